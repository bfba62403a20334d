#include "transforms.h"

#include "shuffles.h"
#include "wide.h"

#include <string.h>

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "numbers are read as they lie in memory: little-endian machines only; numpy's code serves others"
#endif

#define BLOCK 1024 /* elements that are transformed in the first-level cache */

static inline size_t least(size_t a, size_t b) {
    return a < b ? a : b;
}

/* The functions for one width.  Loops over whole arrays are written so that compilers vectorise them:
 * one index, no branches, loads and stores by memcpy, which has no alignment. */
#define NUMBERS(T, BITS)                                                                                  \
    static inline T load##BITS(const uint8_t *at, size_t i) {                                             \
        T value;                                                                                          \
        memcpy(&value, at + i * sizeof value, sizeof value);                                              \
        return value;                                                                                     \
    }                                                                                                     \
                                                                                                          \
    static inline void store##BITS(uint8_t *at, size_t i, T value) {                                      \
        memcpy(at + i * sizeof value, &value, sizeof value);                                              \
    }                                                                                                     \
                                                                                                          \
    static inline T zigzag##BITS(T difference) {                                                          \
        return (T)((T)(difference << 1) ^ (T)(0 - (T)(difference >> (BITS - 1))));                        \
    }                                                                                                     \
                                                                                                          \
    static inline T unzigzag##BITS(T value) {                                                             \
        return (T)((T)(value >> 1) ^ (T)(0 - (T)(value & 1)));                                            \
    }                                                                                                     \
                                                                                                          \
    static void part##BITS(const T *restrict in, size_t start, size_t n, uint8_t *const *planes) {        \
        for (unsigned p = 0; p < BITS / 8; p++) {                                                         \
            uint8_t *restrict plane = planes[p] + start;                                                  \
            for (size_t i = 0; i < n; i++) plane[i] = (uint8_t)(in[i] >> (8 * p));                        \
        }                                                                                                 \
    }                                                                                                     \
                                                                                                          \
    static void unite##BITS(const uint8_t *const *planes, size_t start, size_t n, T *restrict out) {      \
        for (size_t i = 0; i < n; i++) out[i] = planes[0][start + i];                                     \
        for (unsigned p = 1; p < BITS / 8; p++) {                                                         \
            const uint8_t *restrict plane = planes[p] + start;                                            \
            for (size_t i = 0; i < n; i++) out[i] = (T)(out[i] | (T)((T)plane[i] << (8 * p)));            \
        }                                                                                                 \
    }                                                                                                     \
                                                                                                          \
    static void differ##BITS(                                                                             \
        const uint8_t *restrict data, const uint8_t *restrict base, size_t n, T *restrict out) {          \
        for (size_t i = 0; i < n; i++) out[i] = zigzag##BITS((T)(load##BITS(data, i) - load##BITS(base, i))); \
    }                                                                                                     \
                                                                                                          \
    static void delta_split##BITS(                                                                        \
        const uint8_t *data, const uint8_t *base, size_t count, uint8_t *const *planes) {                 \
        T steps[BLOCK];                                                                                   \
        for (size_t at = 0; at < count; at += BLOCK) {                                                    \
            size_t n = least(BLOCK, count - at);                                                          \
            differ##BITS(data + at * sizeof(T), base + at * sizeof(T), n, steps);                         \
            part##BITS(steps, at, n, planes);                                                             \
        }                                                                                                 \
    }                                                                                                     \
                                                                                                          \
    static void delta_join##BITS(                                                                         \
        const uint8_t *const *planes, const uint8_t *base, size_t count, uint8_t *out) {                  \
        T steps[BLOCK];                                                                                   \
        for (size_t at = 0; at < count; at += BLOCK) {                                                    \
            size_t n = least(BLOCK, count - at);                                                          \
            const uint8_t *restrict from = base + at * sizeof(T);                                         \
            uint8_t *restrict to = out + at * sizeof(T);                                                  \
            unite##BITS(planes, at, n, steps);                                                            \
            for (size_t i = 0; i < n; i++)                                                                \
                store##BITS(to, i, (T)(load##BITS(from, i) + unzigzag##BITS(steps[i])));                  \
        }                                                                                                 \
    }

/* Those that only numbers of 2 bytes and more need: planes, and the order by exponents.
 *
 * An order is a counting sort.  With few keys, each element would wait for the count that the one before
 * it raised; so the elements are taken from several parts in turn, which count apart from each other. */
#define WIDE_NUMBERS(T, BITS)                                                                             \
    NUMBERS(T, BITS)                                                                                      \
                                                                                                          \
    static void planes_split##BITS(const uint8_t *data, size_t count, uint8_t *const *planes) {           \
        T turned[BLOCK];                                                                                  \
        for (size_t at = 0; at < count; at += BLOCK) {                                                    \
            size_t n = least(BLOCK, count - at);                                                          \
            const uint8_t *restrict from = data + at * sizeof(T);                                         \
            for (size_t i = 0; i < n; i++) {                                                              \
                T bits = load##BITS(from, i);                                                             \
                turned[i] = (T)((T)(bits << 1) | (T)(bits >> (BITS - 1)));                                \
            }                                                                                             \
            part##BITS(turned, at, n, planes);                                                            \
        }                                                                                                 \
    }                                                                                                     \
                                                                                                          \
    static void planes_join##BITS(const uint8_t *const *planes, size_t count, uint8_t *out) {             \
        T turned[BLOCK];                                                                                  \
        for (size_t at = 0; at < count; at += BLOCK) {                                                    \
            size_t n = least(BLOCK, count - at);                                                          \
            uint8_t *restrict to = out + at * sizeof(T);                                                  \
            unite##BITS(planes, at, n, turned);                                                           \
            for (size_t i = 0; i < n; i++)                                                                \
                store##BITS(to, i, (T)((T)(turned[i] >> 1) | (T)(turned[i] << (BITS - 1))));              \
        }                                                                                                 \
    }                                                                                                     \
                                                                                                          \
    static void keys##BITS(                                                                               \
        const uint8_t *restrict base, size_t count, Element element, uint8_t *restrict keys) {            \
        for (size_t i = 0; i < count; i++)                                                                \
            keys[i] = (uint8_t)((T)(load##BITS(base, i) >> element.shift) & element.mask);                \
    }                                                                                                     \
                                                                                                          \
    static void key_counts##BITS(                                                                         \
        const uint8_t *base, size_t count, Element element, size_t step, uint64_t *counts) {              \
        for (size_t i = 0; i < count; i += step)                                                          \
            counts[(uint8_t)((T)(load##BITS(base, i) >> element.shift) & element.mask)]++;                \
    }                                                                                                     \
                                                                                                          \
    static void scatter##BITS(const T *restrict in, size_t count, Order *order, T *restrict out) {        \
        const uint8_t *keys = order->keys;                                                                \
        size_t part = count / PARTS;                                                                       \
        for (size_t i = 0; i < part; i++)                                                              \
            for (size_t q = 0; q < PARTS; q++)                                                                \
                out[order->begins[q][keys[q * part + i]]++] = in[q * part + i];                     \
        for (size_t i = PARTS * part; i < count; i++) out[order->begins[PARTS - 1][keys[i]]++] = in[i];            \
    }                                                                                                     \
                                                                                                          \
    static void gather##BITS(                                                                             \
        const T *restrict steps, const uint8_t *restrict base, size_t count, Order *order,                \
        uint8_t *restrict out) {                                                                          \
        const uint8_t *keys = order->keys;                                                                \
        size_t part = count / PARTS;                                                                       \
        for (size_t i = 0; i < part; i++)                                                              \
            for (size_t q = 0; q < PARTS; q++) {                                                              \
                size_t at = q * part + i;                                                              \
                store##BITS(out, at, (T)(load##BITS(base, at) + steps[order->begins[q][keys[at]]++]));    \
            }                                                                                             \
        for (size_t at = PARTS * part; at < count; at++)                                                   \
            store##BITS(out, at, (T)(load##BITS(base, at) + steps[order->begins[PARTS - 1][keys[at]]++]));        \
    }

NUMBERS(uint8_t, 8)
WIDE_NUMBERS(uint16_t, 16)
WIDE_NUMBERS(uint32_t, 32)
WIDE_NUMBERS(uint64_t, 64)

#define BY_WIDTH(width, name, ...)                                                                        \
    switch (width) {                                                                                      \
    case 2:                                                                                               \
        name##16(__VA_ARGS__);                                                                            \
        break;                                                                                            \
    case 4:                                                                                               \
        name##32(__VA_ARGS__);                                                                            \
        break;                                                                                            \
    case 8:                                                                                               \
        name##64(__VA_ARGS__);                                                                            \
        break;                                                                                            \
    default:                                                                                              \
        break;                                                                                            \
    }

void planes_split(const uint8_t *data, size_t count, unsigned width, uint8_t *const *planes) {
    BY_WIDTH(width, planes_split, data, count, planes)
}

void planes_join(const uint8_t *const *planes, size_t count, unsigned width, uint8_t *out) {
    BY_WIDTH(width, planes_join, planes, count, out)
}

void key_counts(const uint8_t *base, size_t count, Element element, size_t step, uint64_t counts[256]) {
    memset(counts, 0, 256 * sizeof *counts);
    BY_WIDTH(element.width, key_counts, base, count, element, step, counts)
}

void order_keys(
    const uint8_t *base, size_t count, Element element, unsigned low, unsigned high, Order *order,
    uint32_t ends[256]) {
    uint8_t *keys = order->keys;
    uint8_t lowest = (uint8_t)low, highest = (uint8_t)high;
    size_t part = count / PARTS;
    uint32_t total = 0;
    order->low = low;
    order->span = high - low + 1;
    order->few = element.width == 2 && order->span <= shuffle_keys();
    memset(order->begins, 0, sizeof order->begins);
    size_t done = 0;
    if (order->few && shuffles_wide())
        done = wide_keys(base, count, element.shift, element.mask, low, high, keys, order->begins[0]);
    BY_WIDTH(element.width, keys, base + done * element.width, count - done, element, keys + done)
    for (size_t i = done; i < count; i++) keys[i] = keys[i] < lowest ? lowest : keys[i];
    for (size_t i = done; i < count; i++) keys[i] = keys[i] > highest ? highest : keys[i];
    if (order->few) {
        shuffle_count(keys + done, count - done, low, order->span, order->begins[0]);
    } else {
        for (size_t i = 0; i < part; i++)
            for (size_t q = 0; q < PARTS; q++) order->begins[q][keys[q * part + i]]++;
        for (size_t i = PARTS * part; i < count; i++) order->begins[PARTS - 1][keys[i]]++;
    }
    for (size_t key = 0; key < 256; key++) {
        for (size_t q = 0; q < PARTS; q++) {
            uint32_t found = order->begins[q][key];
            order->begins[q][key] = total;
            total += found;
        }
        ends[key] = total;
    }
}

void delta_split(
    const uint8_t *data, const uint8_t *base, size_t count, unsigned width, uint8_t *const *planes) {
    if (width == 1) delta_split8(data, base, count, planes);
    BY_WIDTH(width, delta_split, data, base, count, planes)
}

void delta_join(
    const uint8_t *const *planes, const uint8_t *base, size_t count, unsigned width, uint8_t *out) {
    if (width == 1) delta_join8(planes, base, count, out);
    BY_WIDTH(width, delta_join, planes, base, count, out)
}

/* Two elements a time, as one number, so that nibbles of both are within reach. */
static void part_nibbles(const uint16_t *in, size_t count, uint8_t *const *streams) {
    size_t half = (count + 1) / 2;
    uint8_t *restrict lows = streams[0], *restrict highs = streams[1], *restrict top = streams[2];
    const uint8_t *pairs = (const uint8_t *)in;
    size_t done = shuffles_wide() ? wide_part(in, count, streams) : 0;
    for (size_t i = done / 2; i < count / 2; i++) {
        uint32_t pair = load32(pairs, i);
        lows[i] = (uint8_t)((pair & 0x0F) | (pair >> 12 & 0xF0));
        highs[i] = (uint8_t)((pair >> 4 & 0x0F) | (pair >> 16 & 0xF0));
        store16(top, i, (uint16_t)((pair >> 8 & 0xFF) | (pair >> 16 & 0xFF00)));
    }
    if (count % 2) {
        uint16_t last = in[count - 1];
        lows[half - 1] = last & 0x0F;
        highs[half - 1] = last >> 4 & 0x0F;
        top[count - 1] = (uint8_t)(last >> 8);
    }
}

/* The inverse, with the zigzag undone. */
static void unite_nibbles(const uint8_t *const *streams, size_t count, uint16_t *out) {
    const uint8_t *restrict lows = streams[0], *restrict highs = streams[1], *restrict top = streams[2];
    uint8_t *restrict pairs = (uint8_t *)out;
    size_t done = shuffles_wide() ? wide_unite(streams, count, out) : 0;
    for (size_t i = done / 2; i < count / 2; i++) {
        uint32_t low = lows[i], high = highs[i], both = load16(top, i);
        uint32_t pair = (low & 0x0F) | (high & 0x0F) << 4 | (both & 0xFF) << 8 | (low & 0xF0) << 12
            | (high & 0xF0) << 16 | (both & 0xFF00) << 16;
        /* Each half by itself: a right shift without the bit that crosses, and the sign spread over it. */
        uint32_t signs = (pair & 0x00010001u) * 0xFFFFu;
        store32(pairs, i, (pair >> 1 & 0x7FFF7FFFu) ^ signs);
    }
    if (count % 2) {
        size_t half = (count + 1) / 2;
        unsigned value = (lows[half - 1] & 0x0Fu) | (highs[half - 1] & 0x0Fu) << 4 | (unsigned)top[count - 1] << 8;
        out[count - 1] = unzigzag16((uint16_t)value);
    }
}

#define SORTED(T, BITS)                                                                                   \
    static void split_sorted##BITS(                                                                       \
        const uint8_t *data, const uint8_t *base, size_t count, Order *order, void *room, void *sorted,   \
        uint8_t *const *streams) {                                                                        \
        if (BITS == 16 && order->few) {                                                                   \
            shuffle_scatter(                                                                              \
                data, base, order->keys, count, order->low, order->span, order->begins[0], sorted);       \
        } else {                                                                                          \
            differ##BITS(data, base, count, room);                                                        \
            scatter##BITS(room, count, order, sorted);                                                    \
        }                                                                                                 \
        if (BITS == 16 && !order->whole) part_nibbles(sorted, count, streams);                                             \
        else                                                                                              \
            for (size_t at = 0; at < count; at += BLOCK)                                                  \
                part##BITS((const T *)sorted + at, at, least(BLOCK, count - at), streams);                \
    }                                                                                                     \
                                                                                                          \
    static void join_sorted##BITS(                                                                        \
        const uint8_t *const *streams, const uint8_t *base, size_t count, Order *order, void *room,       \
        uint8_t *out) {                                                                                   \
        T *steps = room;                                                                                  \
        if (BITS == 16 && !order->whole) unite_nibbles(streams, count, room);                                              \
        else                                                                                              \
            for (size_t at = 0; at < count; at += BLOCK) {                                                \
                size_t n = least(BLOCK, count - at);                                                      \
                unite##BITS(streams, at, n, steps + at);                                                  \
                for (size_t i = at; i < at + n; i++) steps[i] = unzigzag##BITS(steps[i]);                 \
            }                                                                                             \
        if (BITS == 16 && order->few)                                                                     \
            shuffle_gather(                                                                               \
                room, order->keys, count, order->low, order->span, order->begins[0], base, out);          \
        else gather##BITS(steps, base, count, order, out);                                                \
    }

SORTED(uint16_t, 16)
SORTED(uint32_t, 32)
SORTED(uint64_t, 64)

void delta_split_sorted(
    const uint8_t *data, const uint8_t *base, size_t count, unsigned width, Order *order, void *room,
    void *sorted, uint8_t *const *streams) {
    BY_WIDTH(width, split_sorted, data, base, count, order, room, sorted, streams)
}

void delta_join_sorted(
    const uint8_t *const *streams, const uint8_t *base, size_t count, unsigned width, Order *order,
    void *room, uint8_t *out) {
    BY_WIDTH(width, join_sorted, streams, base, count, order, room, out)
}

void blocks_split(
    const uint8_t *data, const uint8_t *base, size_t count, Block block, uint8_t *const streams[3]) {
    size_t after = block.offset + 2 * block.scales;
    uint8_t *low = streams[0], *high = streams[1], *rest = streams[2];
    for (size_t n = 0; n < count; n++, data += block.width, base += block.width) {
        for (size_t i = 0; i < block.scales; i++) {
            const uint8_t *here = data + block.offset, *there = base + block.offset;
            uint16_t step = zigzag16((uint16_t)(load16(here, i) - load16(there, i)));
            *low++ = (uint8_t)step;
            *high++ = (uint8_t)(step >> 8);
        }
        for (size_t i = 0; i < block.offset; i++) *rest++ = (uint8_t)(data[i] - base[i]);
        for (size_t i = after; i < block.width; i++) *rest++ = (uint8_t)(data[i] - base[i]);
    }
}

void blocks_join(
    const uint8_t *const streams[3], const uint8_t *base, size_t count, Block block, uint8_t *out) {
    size_t after = block.offset + 2 * block.scales;
    const uint8_t *low = streams[0], *high = streams[1], *rest = streams[2];
    for (size_t n = 0; n < count; n++, out += block.width, base += block.width) {
        for (size_t i = 0; i < block.scales; i++) {
            uint16_t step = unzigzag16((uint16_t)(*low++ | *high++ << 8));
            store16(out + block.offset, i, (uint16_t)(load16(base + block.offset, i) + step));
        }
        for (size_t i = 0; i < block.offset; i++) out[i] = (uint8_t)(base[i] + *rest++);
        for (size_t i = after; i < block.width; i++) out[i] = (uint8_t)(base[i] + *rest++);
    }
}

size_t count_nonzero(const uint8_t *data, size_t length, size_t enough) {
    size_t found = 0;
    if (shuffles_wide()) {
        size_t done = wide_count_nonzero(data, length, enough, &found);
        data += done;
        length -= done;
    }
    while (length && found < enough) {
        size_t n = least(length, 4096);
        uint16_t some = 0; /* a narrow sum is added in vectors */
        for (size_t i = 0; i < n; i++) some = (uint16_t)(some + (data[i] != 0));
        found += some;
        data += n;
        length -= n;
    }
    return found;
}

void byte_counts(const uint8_t *data, size_t length, size_t step, uint64_t counts[256]) {
    memset(counts, 0, 256 * sizeof *counts);
    if (step == 1 && length <= UINT32_MAX) {
        /* Equal bytes that follow one another are counted apart, so that none waits for the one before. */
        uint32_t parts[4][256] = {{0}};
        size_t at = 0;
        for (; at + 8 <= length; at += 8) {
            uint64_t bytes = load64(data + at, 0);
            for (unsigned i = 0; i < 8; i++) parts[i % 4][bytes >> (8 * i) & 0xFF]++;
        }
        for (; at < length; at++) parts[0][data[at]]++;
        for (unsigned i = 0; i < 256; i++)
            counts[i] = (uint64_t)parts[0][i] + parts[1][i] + parts[2][i] + parts[3][i];
        return;
    }
    for (size_t at = 0; at < length; at += step) {
        counts[data[at]]++;
        if (length - at <= step) break; /* at + step may not fit */
    }
}

size_t sparse_split(const uint8_t *data, size_t length, uint8_t *mask, uint8_t *values, size_t room) {
    size_t found = 0, at = 0;
    if (shuffles_wide()) at = wide_sparse_split(data, length, mask, values, room, &found);
    for (; at < length; at += 8) {
        size_t n = least(8, length - at);
        unsigned bits = 0;
        if (n < 8 || load64(data + at, 0)) {
            for (size_t i = 0; i < n; i++) {
                uint8_t value = data[at + i];
                if (!value) continue;
                bits |= 0x80u >> i;
                if (found < room) values[found] = value;
                found++;
            }
        }
        mask[at / 8] = (uint8_t)bits;
    }
    return found;
}

static unsigned bit_count(unsigned byte) {
    byte -= byte >> 1 & 0x55;
    byte = (byte & 0x33) + (byte >> 2 & 0x33);
    return (byte + (byte >> 4)) & 0x0F;
}

size_t mask_count(const uint8_t *mask, size_t length) {
    size_t found = 0;
    for (size_t i = 0; i < length / 8; i++) found += bit_count(mask[i]);
    if (length % 8) found += bit_count(mask[length / 8] & (0xFF00u >> length % 8 & 0xFFu));
    return found;
}

size_t sparse_join(
    const uint8_t *mask, const uint8_t *values, size_t count, uint8_t *out, size_t length) {
    size_t used = 0, at = 0;
    if (shuffles_wide()) at = wide_sparse_join(mask, values, count, out, length, &used);
    memset(out + at, 0, length - at);
    for (; at < length; at += 8) {
        unsigned bits = mask[at / 8];
        for (size_t i = at; bits && i < at + 8 && i < length; i++, bits = bits << 1 & 0xFF) {
            if (!(bits & 0x80)) continue;
            if (used == count) return count + 1;
            out[i] = values[used++];
        }
    }
    return used;
}
