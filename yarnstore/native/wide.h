/* The sorted difference of 16-bit numbers, and sparse streams, in registers of 512 bits: AVX-512 with its
 * compress and expand instructions (VBMI2).
 *
 * Each function does what the loops in transforms.c and shuffles.c do, and returns how many elements it did:
 * all but the last few.
 */
#ifndef YARNSTORE_WIDE_H
#define YARNSTORE_WIDE_H

#include <stddef.h>
#include <stdint.h>

#define WIDE_KEYS 32

/* Whether the processor has the instructions; without them, the other functions do nothing. */
int wide_works(void);

/* The sort keys, clipped to low … high, high - low < WIDE_KEYS; adds to `counts` how often each occurs. */
size_t wide_keys(
    const uint8_t *base, size_t count, unsigned shift, unsigned mask, unsigned low, unsigned high,
    uint8_t *keys, uint32_t *counts);
/* As `shuffle_scatter` and `shuffle_gather` (shuffles.h). */
size_t wide_scatter(
    const uint8_t *data, const uint8_t *base, const uint8_t *keys, size_t count, unsigned low, unsigned span,
    uint32_t *begins, uint16_t *out);
size_t wide_gather(
    const uint16_t *steps, const uint8_t *keys, size_t count, unsigned low, unsigned span, uint32_t *begins,
    const uint8_t *base, uint8_t *out);
/* Numbers to low nibbles, high nibbles and top bytes, and back with the zigzag undone; an even number. */
size_t wide_part(const uint16_t *in, size_t count, uint8_t *const *streams);
size_t wide_unite(const uint8_t *const *streams, size_t count, uint16_t *out);

/* As `count_nonzero` (transforms.h): sets `found`. */
size_t wide_count_nonzero(const uint8_t *data, size_t length, size_t enough, size_t *found);
/* As `sparse_split` and `sparse_join` (transforms.h); `found` and `used` are how many values there were, at most
 * `room` and `count`: both stop where there are more. */
size_t wide_sparse_split(
    const uint8_t *data, size_t length, uint8_t *mask, uint8_t *values, size_t room, size_t *found);
size_t wide_sparse_join(
    const uint8_t *mask, const uint8_t *values, size_t count, uint8_t *out, size_t length, size_t *used);

#endif
