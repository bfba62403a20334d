#include "wide.h"

#if defined(__x86_64__) && (defined(__clang__) || (defined(__GNUC__) && __GNUC__ >= 9))

#include <immintrin.h>
#include <string.h>

#define TARGET __attribute__((target("avx512f,avx512bw,avx512vl,avx512vbmi2,popcnt")))
#define BLOCK 512 /* elements that are put in order in the first-level cache */
#define LANES 32  /* elements in a register */

int wide_works(void) {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vbmi2") &&
        __builtin_cpu_supports("popcnt");
}

/* Which of 32 keys are this one. */
TARGET static inline __mmask32 set_of(__m256i keys, unsigned key) {
    return _mm256_cmpeq_epi8_mask(keys, _mm256_set1_epi8((char)key));
}

TARGET size_t wide_keys(
    const uint8_t *base, size_t count, unsigned shift, unsigned mask, unsigned low, unsigned high,
    uint8_t *keys, uint32_t *counts) {
    __m128i by = _mm_cvtsi32_si128((int)shift);
    __m512i kept = _mm512_set1_epi16((short)mask);
    __m512i least = _mm512_set1_epi8((char)low), most = _mm512_set1_epi8((char)high);
    size_t at = 0;
    for (; at + 2 * LANES <= count; at += 2 * LANES) {
        __m512i first = _mm512_loadu_si512(base + 2 * at);
        __m512i second = _mm512_loadu_si512(base + 2 * at + 2 * LANES);
        first = _mm512_and_si512(_mm512_srl_epi16(first, by), kept);
        second = _mm512_and_si512(_mm512_srl_epi16(second, by), kept);
        __m512i both = _mm512_inserti64x4(
            _mm512_castsi256_si512(_mm512_cvtepi16_epi8(first)), _mm512_cvtepi16_epi8(second), 1);
        both = _mm512_min_epu8(_mm512_max_epu8(both, least), most);
        _mm512_storeu_si512(keys + at, both);
        for (unsigned key = low; key <= high; key++)
            counts[key] += (uint32_t)_mm_popcnt_u64(_mm512_cmpeq_epi8_mask(both, _mm512_set1_epi8((char)key)));
    }
    return at;
}

TARGET size_t wide_scatter(
    const uint8_t *data, const uint8_t *base, const uint8_t *keys, size_t count, unsigned low, unsigned span,
    uint32_t *begins, uint16_t *out) {
    /* A store writes all lanes, and so past the end of a run: not into `out`, where another run begins. */
    uint16_t runs[WIDE_KEYS][BLOCK + LANES];
    size_t at = 0;
    while (at + LANES <= count) {
        size_t end = count - at < BLOCK ? at + (count - at) / LANES * LANES : at + BLOCK;
        size_t lengths[WIDE_KEYS] = {0};
        for (; at < end; at += LANES) {
            __m512i here = _mm512_loadu_si512(data + 2 * at), there = _mm512_loadu_si512(base + 2 * at);
            __m512i step = _mm512_sub_epi16(here, there);
            __m512i values = _mm512_xor_si512(_mm512_slli_epi16(step, 1), _mm512_srai_epi16(step, 15));
            __m256i some = _mm256_loadu_si256((const __m256i *)(keys + at));
            for (unsigned k = 0; k < span; k++) {
                __mmask32 set = set_of(some, low + k);
                _mm512_storeu_si512(runs[k] + lengths[k], _mm512_maskz_compress_epi16(set, values));
                lengths[k] += (size_t)_mm_popcnt_u32(set);
            }
        }
        for (unsigned k = 0; k < span; k++) {
            memcpy(out + begins[low + k], runs[k], lengths[k] * sizeof *out);
            begins[low + k] += (uint32_t)lengths[k];
        }
    }
    return at;
}

TARGET size_t wide_gather(
    const uint16_t *steps, const uint8_t *keys, size_t count, unsigned low, unsigned span, uint32_t *begins,
    const uint8_t *base, uint8_t *out) {
    size_t at = 0;
    for (; at + LANES <= count; at += LANES) {
        __m256i some = _mm256_loadu_si256((const __m256i *)(keys + at));
        __m512i found = _mm512_setzero_si512();
        for (unsigned k = 0; k < span; k++) {
            __mmask32 set = set_of(some, low + k);
            __m512i next = _mm512_loadu_si512(steps + begins[low + k]);
            found = _mm512_mask_expand_epi16(found, set, next);
            begins[low + k] += (uint32_t)_mm_popcnt_u32(set);
        }
        _mm512_storeu_si512(out + 2 * at, _mm512_add_epi16(_mm512_loadu_si512(base + 2 * at), found));
    }
    return at;
}

/* The low nibbles of two numbers, in the low byte of the 32 bits that both have. */
TARGET static inline __m128i nibbles(__m512i pairs) {
    __m512i low = _mm512_and_si512(pairs, _mm512_set1_epi16(0x0F));
    return _mm512_cvtepi32_epi8(_mm512_or_si512(low, _mm512_srli_epi32(low, 12)));
}

TARGET size_t wide_part(const uint16_t *in, size_t count, uint8_t *const *streams) {
    size_t at = 0;
    for (; at + LANES <= count; at += LANES) {
        __m512i some = _mm512_loadu_si512(in + at);
        _mm_storeu_si128((__m128i *)(streams[0] + at / 2), nibbles(some));
        _mm_storeu_si128((__m128i *)(streams[1] + at / 2), nibbles(_mm512_srli_epi16(some, 4)));
        _mm256_storeu_si256((__m256i *)(streams[2] + at), _mm512_cvtepi16_epi8(_mm512_srli_epi16(some, 8)));
    }
    return at;
}

/* The inverse of `nibbles`. */
TARGET static inline __m512i apart(const uint8_t *bytes) {
    __m512i both = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)bytes));
    return _mm512_and_si512(_mm512_or_si512(both, _mm512_slli_epi32(both, 12)), _mm512_set1_epi16(0x0F));
}

TARGET size_t wide_unite(const uint8_t *const *streams, size_t count, uint16_t *out) {
    size_t at = 0;
    for (; at + LANES <= count; at += LANES) {
        __m512i top = _mm512_cvtepu8_epi16(_mm256_loadu_si256((const __m256i *)(streams[2] + at)));
        __m512i low = _mm512_or_si512(
            apart(streams[0] + at / 2), _mm512_slli_epi16(apart(streams[1] + at / 2), 4));
        __m512i some = _mm512_or_si512(low, _mm512_slli_epi16(top, 8));
        __m512i signs = _mm512_sub_epi16(_mm512_setzero_si512(), _mm512_and_si512(some, _mm512_set1_epi16(1)));
        _mm512_storeu_si512(out + at, _mm512_xor_si512(_mm512_srli_epi16(some, 1), signs));
    }
    return at;
}

/* The bits of each byte in the other direction: the first of a mask is the most significant. */
static inline uint64_t turned(uint64_t bits) {
    bits = (bits >> 1 & 0x5555555555555555u) | (bits & 0x5555555555555555u) << 1;
    bits = (bits >> 2 & 0x3333333333333333u) | (bits & 0x3333333333333333u) << 2;
    return (bits >> 4 & 0x0F0F0F0F0F0F0F0Fu) | (bits & 0x0F0F0F0F0F0F0F0Fu) << 4;
}

static inline __mmask64 first(size_t count) {
    return count < 64 ? ((__mmask64)1 << count) - 1 : ~(__mmask64)0;
}

TARGET size_t wide_count_nonzero(const uint8_t *data, size_t length, size_t enough, size_t *found) {
    size_t at = 0, some = 0;
    for (; at + 64 <= length && some < enough; at += 64) {
        __m512i bytes = _mm512_loadu_si512(data + at);
        some += (size_t)_mm_popcnt_u64(_mm512_test_epi8_mask(bytes, bytes));
    }
    *found = some;
    return at;
}

TARGET size_t wide_sparse_split(
    const uint8_t *data, size_t length, uint8_t *mask, uint8_t *values, size_t room, size_t *found) {
    size_t at = 0, some = 0;
    for (; at + 64 <= length; at += 64) {
        __m512i bytes = _mm512_loadu_si512(data + at);
        __mmask64 set = _mm512_test_epi8_mask(bytes, bytes);
        size_t more = (size_t)_mm_popcnt_u64(set);
        uint64_t bits = turned(set);
        if (more > room - some) break;
        memcpy(mask + at / 8, &bits, sizeof bits);
        if (more) _mm512_mask_storeu_epi8(values + some, first(more), _mm512_maskz_compress_epi8(set, bytes));
        some += more;
    }
    *found = some;
    return at;
}

TARGET size_t wide_sparse_join(
    const uint8_t *mask, const uint8_t *values, size_t count, uint8_t *out, size_t length, size_t *used) {
    size_t at = 0, some = 0;
    for (; at + 64 <= length; at += 64) {
        uint64_t bits;
        memcpy(&bits, mask + at / 8, sizeof bits);
        __mmask64 set = turned(bits);
        size_t more = (size_t)_mm_popcnt_u64(set);
        if (more > count - some) break;
        __m512i bytes = _mm512_setzero_si512();
        if (more) bytes = _mm512_maskz_expand_epi8(set, _mm512_maskz_loadu_epi8(first(more), values + some));
        _mm512_storeu_si512(out + at, bytes);
        some += more;
    }
    *used = some;
    return at;
}

#else

int wide_works(void) {
    return 0;
}

size_t wide_keys(
    const uint8_t *base, size_t count, unsigned shift, unsigned mask, unsigned low, unsigned high,
    uint8_t *keys, uint32_t *counts) {
    (void)base, (void)count, (void)shift, (void)mask, (void)low, (void)high, (void)keys, (void)counts;
    return 0;
}

size_t wide_scatter(
    const uint8_t *data, const uint8_t *base, const uint8_t *keys, size_t count, unsigned low, unsigned span,
    uint32_t *begins, uint16_t *out) {
    (void)data, (void)base, (void)keys, (void)count, (void)low, (void)span, (void)begins, (void)out;
    return 0;
}

size_t wide_gather(
    const uint16_t *steps, const uint8_t *keys, size_t count, unsigned low, unsigned span, uint32_t *begins,
    const uint8_t *base, uint8_t *out) {
    (void)steps, (void)keys, (void)count, (void)low, (void)span, (void)begins, (void)base, (void)out;
    return 0;
}

size_t wide_part(const uint16_t *in, size_t count, uint8_t *const *streams) {
    (void)in, (void)count, (void)streams;
    return 0;
}

size_t wide_unite(const uint8_t *const *streams, size_t count, uint16_t *out) {
    (void)streams, (void)count, (void)out;
    return 0;
}

size_t wide_count_nonzero(const uint8_t *data, size_t length, size_t enough, size_t *found) {
    (void)data, (void)length, (void)enough;
    *found = 0;
    return 0;
}

size_t wide_sparse_split(
    const uint8_t *data, size_t length, uint8_t *mask, uint8_t *values, size_t room, size_t *found) {
    (void)data, (void)length, (void)mask, (void)values, (void)room;
    *found = 0;
    return 0;
}

size_t wide_sparse_join(
    const uint8_t *mask, const uint8_t *values, size_t count, uint8_t *out, size_t length, size_t *used) {
    (void)mask, (void)values, (void)count, (void)out, (void)length;
    *used = 0;
    return 0;
}

#endif
