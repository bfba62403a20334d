/* The transforms between the bytes of a chunk and the streams of its encodings (docs/format/encodings.md).
 *
 * Plain C without Python.  Every length was checked by the caller (module.c); what each function needs is
 * in its comment.  No function allocates.  Byte pointers may have any alignment.  Where a function reads an
 * input twice, it reads a copy of its own the second time: another process may write to what is mapped.
 */
#ifndef YARNSTORE_TRANSFORMS_H
#define YARNSTORE_TRANSFORMS_H

#include <stddef.h>
#include <stdint.h>

/* A number format: `width` is 1, 2, 4 or 8 bytes; the sort key is (bits >> shift) & mask, mask ≤ 255. */
typedef struct {
    unsigned width;
    unsigned shift;
    unsigned mask;
} Element;

#define SLACK_BYTES 64 /* read behind the elements, and not used */
#define PARTS 8 /* of the elements that are put in order, each with counts of its own */

/* The clipped sort key of each element, and where each key's run begins for each part of the elements. */
typedef struct {
    uint8_t *keys; /* count bytes */
    unsigned low, span;
    int few;                     /* whether the shuffles do it; then one part counts for all */
    int whole;                   /* whether the first plane of two bytes is not two streams of nibbles */
    uint32_t begins[PARTS][256]; /* used up by a scatter or a gather */
} Order;

/* A quantised block: `scales` 16-bit scales at byte `offset` of `width` bytes. */
typedef struct {
    size_t width;
    size_t offset;
    size_t scales;
} Block;

/* Encoding 2: `count` elements of 2, 4 or 8 bytes to `width` planes of `count` bytes each, and back. */
void planes_split(const uint8_t *data, size_t count, unsigned width, uint8_t *const *planes);
void planes_join(const uint8_t *const *planes, size_t count, unsigned width, uint8_t *out);

/* How often each key occurs among every `step`-th element. */
void key_counts(const uint8_t *base, size_t count, Element element, size_t step, uint64_t counts[256]);
/* Fill `order` for the elements of `base`, low < high ≤ 255; `ends` gets the end of the run of each key. */
void order_keys(
    const uint8_t *base, size_t count, Element element, unsigned low, unsigned high, Order *order,
    uint32_t ends[256]);

/* Encoding 3, not sorted: the planes of the zigzagged difference, and back. */
void delta_split(
    const uint8_t *data, const uint8_t *base, size_t count, unsigned width, uint8_t *const *planes);
void delta_join(
    const uint8_t *const *planes, const uint8_t *base, size_t count, unsigned width, uint8_t *out);
/* The same, sorted.  For elements of two bytes the first plane, unless it is whole, is two streams of
 * (count + 1) / 2 bytes: low nibbles, high nibbles.  `room` and `sorted` are `count * width` bytes and
 * SLACK_BYTES each, aligned for uint64_t. */
void delta_split_sorted(
    const uint8_t *data, const uint8_t *base, size_t count, unsigned width, Order *order, void *room,
    void *sorted, uint8_t *const *streams);
void delta_join_sorted(
    const uint8_t *const *streams, const uint8_t *base, size_t count, unsigned width, Order *order,
    void *room, uint8_t *out);

/* Quantised blocks: the planes of the scales' difference, then that of all other bytes; and back. */
void blocks_split(
    const uint8_t *data, const uint8_t *base, size_t count, Block block, uint8_t *const streams[3]);
void blocks_join(
    const uint8_t *const streams[3], const uint8_t *base, size_t count, Block block, uint8_t *out);

/* How many bytes are not zero, or at least `enough` of them once so many were found. */
size_t count_nonzero(const uint8_t *data, size_t length, size_t enough);
/* How often each byte occurs at 0, step, 2 * step …. */
void byte_counts(const uint8_t *data, size_t length, size_t step, uint64_t counts[256]);
/* The mask (most significant bit first) and at most `room` bytes that are not zero; returns how many. */
size_t sparse_split(const uint8_t *data, size_t length, uint8_t *mask, uint8_t *values, size_t room);
/* How many of the first `length` bits are set. */
size_t mask_count(const uint8_t *mask, size_t length);
/* The inverse of `sparse_split`; returns how many of the `count` values it used, or count + 1 if they are
 * too few. */
size_t sparse_join(
    const uint8_t *mask, const uint8_t *values, size_t count, uint8_t *out, size_t length);

#endif
