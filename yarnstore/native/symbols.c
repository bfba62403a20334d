#include "symbols.h"

#include <string.h>

#define MOST 8 /* symbols in a byte */

/* For each number of symbols in a byte: the symbols of each byte, and the places of escapes among them as bits. */
static uint8_t digits[MOST + 1][256][MOST];
static uint8_t escapes[MOST + 1][256];

long symbols_radix(long long per_byte) {
    static const long radix[MOST + 1] = {0, 0, 16, 6, 4, 3, 0, 0, 2};
    return per_byte < 0 || per_byte > MOST ? 0 : radix[per_byte];
}

void symbols_init(void) {
    for (unsigned n = 0; n <= MOST; n++) {
        unsigned radix = (unsigned)symbols_radix(n);
        for (unsigned byte = 0; radix && byte < 256; byte++) {
            unsigned rest = byte, places = 0;
            for (unsigned i = 0; i < n; i++, rest /= radix) {
                digits[n][byte][i] = (uint8_t)(rest % radix);
                if (rest % radix == radix - 1) places |= 1u << i;
            }
            escapes[n][byte] = (uint8_t)places;
        }
    }
}

static inline uint8_t zigzag(uint8_t byte, int is_signed) {
    return is_signed ? (uint8_t)((byte << 1) ^ (0 - (byte >> 7))) : byte;
}

size_t large_count(const uint8_t *plain, size_t length, unsigned least, int is_signed) {
    size_t found = 0;
    uint8_t most = (uint8_t)least;
    while (length) {
        size_t n = length < 4096 ? length : 4096;
        uint16_t some = 0; /* a narrow sum is added in vectors */
        if (is_signed)
            for (size_t i = 0; i < n; i++) some = (uint16_t)(some + (zigzag(plain[i], 1) >= most));
        else
            for (size_t i = 0; i < n; i++) some = (uint16_t)(some + (plain[i] >= most));
        found += some;
        plain += n;
        length -= n;
    }
    return found;
}

#define BLOCK 3840 /* symbols that are packed in the first-level cache: whole bytes of each number of them */

/* For a number of symbols that the compiler knows, so that it unrolls the inner loop. */
static inline void pack(const uint8_t *symbols, size_t bytes, unsigned n, unsigned radix, uint8_t *packed) {
    uint8_t most = (uint8_t)(radix - 1);
    for (size_t at = 0; at < bytes; at++, symbols += n) {
        unsigned byte = 0;
        for (unsigned i = n; i-- > 0;) byte = byte * radix + (symbols[i] < most ? symbols[i] : most);
        packed[at] = (uint8_t)byte;
    }
}

size_t symbols_split(
    const uint8_t *plain, size_t length, size_t per_byte, int is_signed, uint8_t *packed, uint8_t *escaped,
    size_t room) {
    unsigned radix = (unsigned)symbols_radix((long long)per_byte);
    uint8_t most = (uint8_t)(radix - 1);
    uint8_t symbols[BLOCK + MOST], large[BLOCK];
    size_t found = 0;
    for (size_t at = 0; at < length; at += BLOCK) {
        size_t n = length - at < BLOCK ? length - at : BLOCK, some = 0;
        size_t bytes = (n + per_byte - 1) / per_byte;
        for (size_t i = 0; i < n; i++) symbols[i] = zigzag(plain[at + i], is_signed);
        memset(symbols + n, 0, MOST);
        for (size_t i = 0; i < n; i++) {
            large[some] = (uint8_t)(symbols[i] - most);
            some += symbols[i] >= most;
        }
        if (found + some <= room) memcpy(escaped + found, large, some);
        found += some;
        switch (per_byte) {
        case 2:
            pack(symbols, bytes, 2, 16, packed);
            break;
        case 3:
            pack(symbols, bytes, 3, 6, packed);
            break;
        case 4:
            pack(symbols, bytes, 4, 4, packed);
            break;
        case 5:
            pack(symbols, bytes, 5, 3, packed);
            break;
        default:
            pack(symbols, bytes, 8, 2, packed);
            break;
        }
        packed += bytes;
    }
    return found;
}

size_t escapes_count(const uint8_t *packed, size_t length, size_t per_byte) {
    size_t found = 0, whole = length / per_byte;
    uint8_t counts[256];
    for (unsigned byte = 0; byte < 256; byte++) {
        counts[byte] = 0;
        for (unsigned bits = escapes[per_byte][byte]; bits; bits &= bits - 1) counts[byte]++;
    }
    for (size_t i = 0; i < whole; i++) found += counts[packed[i]];
    for (size_t i = 0; i < length % per_byte; i++) found += escapes[per_byte][packed[whole]] >> i & 1;
    return found;
}

size_t symbols_join(
    const uint8_t *packed, const uint8_t *escaped, size_t count, uint8_t *out, size_t length, size_t per_byte) {
    const uint8_t(*symbols)[MOST] = digits[per_byte];
    const uint8_t *places = escapes[per_byte];
    unsigned least = (unsigned)symbols_radix((long long)per_byte) - 1;
    size_t used = 0, at = 0;
    for (; length - at >= MOST; at += per_byte) {
        unsigned byte = *packed++;
        memcpy(out + at, symbols[byte], MOST); /* the next byte overwrites what is not of this one */
        unsigned bits = places[byte];
        for (size_t i = at; bits; i++, bits >>= 1) {
            if (!(bits & 1)) continue;
            if (used == count) return count + 1;
            out[i] = (uint8_t)(least + escaped[used++]);
        }
    }
    for (; at < length; at += per_byte) {
        size_t n = length - at < per_byte ? length - at : per_byte;
        unsigned byte = *packed++;
        for (size_t i = 0; i < n; i++) {
            out[at + i] = symbols[byte][i];
            if (!(places[byte] >> i & 1)) continue;
            if (used == count) return count + 1;
            out[at + i] = (uint8_t)(least + escaped[used++]);
        }
    }
    return used;
}

void signs_join(uint8_t *bytes, size_t length) {
    for (size_t i = 0; i < length; i++) bytes[i] = (uint8_t)(bytes[i] >> 1 ^ (0 - (bytes[i] & 1)));
}
