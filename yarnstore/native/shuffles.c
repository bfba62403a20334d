#include "shuffles.h"

#include "wide.h"

#if defined(__x86_64__) && defined(__GNUC__)

#include <string.h>
#include <tmmintrin.h>

#define TARGET __attribute__((target("ssse3")))
#define KEYS 12
#define BLOCK 1024 /* elements that are put in order in the first-level cache */

/* For each set of eight elements: shuffles that move them together, and apart again; how many they are. */
static _Alignas(16) uint8_t together[256][16], apart[256][16];
static uint8_t sizes[256];
static unsigned used_bits;

void shuffles_init(void) {
    for (unsigned set = 0; set < 256; set++) {
        unsigned size = 0;
        memset(together[set], 0x80, 16); /* a zero */
        memset(apart[set], 0x80, 16);
        for (unsigned i = 0; i < 8; i++) {
            if (!(set >> i & 1)) continue;
            for (unsigned byte = 0; byte < 2; byte++) {
                together[set][2 * size + byte] = (uint8_t)(2 * i + byte);
                apart[set][2 * i + byte] = (uint8_t)(2 * size + byte);
            }
            size++;
        }
        sizes[set] = (uint8_t)size;
    }
    shuffles_limit(512);
}

unsigned shuffles_limit(unsigned bits) {
    int has_bytes = __builtin_cpu_supports("ssse3") != 0;
    used_bits = has_bytes && bits >= 512 && wide_works() ? 512 : has_bytes && bits >= 128 ? 128 : 0;
    return used_bits;
}

int shuffles_wide(void) {
    return used_bits == 512;
}

unsigned shuffle_keys(void) {
    return used_bits == 512 ? WIDE_KEYS : used_bits == 128 ? KEYS : 0;
}

static inline unsigned word_at(const uint8_t *bytes, size_t i) {
    uint16_t word;
    memcpy(&word, bytes + 2 * i, sizeof word);
    return word;
}

/* Which of eight keys are this one. */
TARGET static inline unsigned set_of(__m128i keys, unsigned key) {
    return (unsigned)_mm_movemask_epi8(_mm_cmpeq_epi8(keys, _mm_set1_epi8((char)key))) & 0xFF;
}

TARGET static inline __m128i shuffled(__m128i values, const uint8_t table[16]) {
    return _mm_shuffle_epi8(values, _mm_load_si128((const __m128i *)table));
}

TARGET void shuffle_count(
    const uint8_t *keys, size_t count, unsigned low, unsigned span, uint32_t *counts) {
    size_t at = 0;
    while (at + 16 <= count) {
        /* A byte counts to 255. */
        size_t end = count - at < 255 * 16 ? at + (count - at) / 16 * 16 : at + 255 * 16;
        for (unsigned k = 0; k < span; k++) {
            __m128i key = _mm_set1_epi8((char)(low + k)), found = _mm_setzero_si128();
            for (size_t i = at; i < end; i += 16) {
                __m128i some = _mm_loadu_si128((const __m128i *)(keys + i));
                found = _mm_sub_epi8(found, _mm_cmpeq_epi8(some, key));
            }
            __m128i sums = _mm_sad_epu8(found, _mm_setzero_si128());
            counts[low + k] += (uint32_t)(_mm_extract_epi16(sums, 0) + _mm_extract_epi16(sums, 4));
        }
        at = end;
    }
    for (; at < count; at++) counts[keys[at]]++;
}

TARGET void shuffle_scatter(
    const uint8_t *data, const uint8_t *base, const uint8_t *keys, size_t count, unsigned low, unsigned span,
    uint32_t *begins, uint16_t *out) {
    /* A store writes all eight, and so past the end of a run: not into `out`, where another run begins. */
    uint16_t runs[KEYS][BLOCK + 8];
    size_t at = 0;
    if (shuffles_wide()) at = wide_scatter(data, base, keys, count, low, span, begins, out);
    while (span <= KEYS && at + 8 <= count) {
        size_t end = count - at < BLOCK ? at + (count - at) / 8 * 8 : at + BLOCK;
        size_t lengths[KEYS] = {0};
        for (; at < end; at += 8) {
            __m128i here = _mm_loadu_si128((const __m128i *)(data + 2 * at));
            __m128i there = _mm_loadu_si128((const __m128i *)(base + 2 * at));
            __m128i step = _mm_sub_epi16(here, there);
            __m128i values = _mm_xor_si128(_mm_slli_epi16(step, 1), _mm_srai_epi16(step, 15));
            __m128i eight = _mm_loadl_epi64((const __m128i *)(keys + at));
            for (unsigned k = 0; k < span; k++) {
                unsigned set = set_of(eight, low + k);
                _mm_storeu_si128((__m128i *)(runs[k] + lengths[k]), shuffled(values, together[set]));
                lengths[k] += sizes[set];
            }
        }
        for (unsigned k = 0; k < span; k++) {
            memcpy(out + begins[low + k], runs[k], lengths[k] * sizeof *out);
            begins[low + k] += (uint32_t)lengths[k];
        }
    }
    for (; at < count; at++) {
        unsigned step = word_at(data, at) - word_at(base, at);
        out[begins[keys[at]]++] = (uint16_t)(step << 1 ^ (0 - (step >> 15 & 1)));
    }
}

TARGET void shuffle_gather(
    const uint16_t *steps, const uint8_t *keys, size_t count, unsigned low, unsigned span, uint32_t *begins,
    const uint8_t *base, uint8_t *out) {
    size_t at = 0;
    if (shuffles_wide()) at = wide_gather(steps, keys, count, low, span, begins, base, out);
    for (; span <= KEYS && at + 8 <= count; at += 8) {
        __m128i eight = _mm_loadl_epi64((const __m128i *)(keys + at));
        __m128i sum = _mm_loadu_si128((const __m128i *)(base + 2 * at));
        __m128i found = _mm_setzero_si128();
        for (unsigned k = 0; k < span; k++) {
            unsigned set = set_of(eight, low + k);
            __m128i next = _mm_loadu_si128((const __m128i *)(steps + begins[low + k]));
            found = _mm_or_si128(found, shuffled(next, apart[set]));
            begins[low + k] += sizes[set];
        }
        _mm_storeu_si128((__m128i *)(out + 2 * at), _mm_add_epi16(sum, found));
    }
    for (; at < count; at++) {
        uint16_t value = (uint16_t)(word_at(base, at) + steps[begins[keys[at]]++]);
        memcpy(out + 2 * at, &value, 2);
    }
}

#else

void shuffles_init(void) {
}

unsigned shuffles_limit(unsigned bits) {
    (void)bits;
    return 0;
}

int shuffles_wide(void) {
    return 0;
}

unsigned shuffle_keys(void) {
    return 0;
}

void shuffle_count(
    const uint8_t *keys, size_t count, unsigned low, unsigned span, uint32_t *counts) {
    (void)keys, (void)count, (void)low, (void)span, (void)counts;
}

void shuffle_scatter(
    const uint8_t *data, const uint8_t *base, const uint8_t *keys, size_t count, unsigned low, unsigned span,
    uint32_t *begins, uint16_t *out) {
    (void)data, (void)base, (void)keys, (void)count, (void)low, (void)span, (void)begins, (void)out;
}

void shuffle_gather(
    const uint16_t *steps, const uint8_t *keys, size_t count, unsigned low, unsigned span, uint32_t *begins,
    const uint8_t *base, uint8_t *out) {
    (void)steps, (void)keys, (void)count, (void)low, (void)span, (void)begins, (void)base, (void)out;
}

#endif
