/* The order of 16-bit numbers by few keys, 32 at a time where the processor has AVX-512 with VBMI2, eight at a
 * time where it has byte shuffles (SSSE3).
 *
 * A counting sort moves an element in about six cycles, most of them spent waiting; eight at a time take two,
 * and 32 less than one.  Not every x86-64 has the instructions, and compilers do not use them unasked: so they
 * are looked for once.
 */
#ifndef YARNSTORE_SHUFFLES_H
#define YARNSTORE_SHUFFLES_H

#include <stddef.h>
#include <stdint.h>

/* Make the tables; before anything else, by one thread. */
void shuffles_init(void);
/* Use registers of at most so many bits from now on; returns of how many: 512, 128, or 0 for none. */
unsigned shuffles_limit(unsigned bits);
/* Whether the functions of wide.h are used. */
int shuffles_wide(void);
/* For how many keys the other functions may be called, since with more, counting is as fast; 0 if never. */
unsigned shuffle_keys(void);

/* Add to `counts` how often each key occurs.  `keys` lie in low … low + span - 1, span ≤ shuffle_keys(). */
void shuffle_count(const uint8_t *keys, size_t count, unsigned low, unsigned span, uint32_t *counts);
/* out = the zigzagged difference in stable order of the keys; `begins[key]`, where the run of each key begins,
 * is used up. */
void shuffle_scatter(
    const uint8_t *data, const uint8_t *base, const uint8_t *keys, size_t count, unsigned low, unsigned span,
    uint32_t *begins, uint16_t *out);
/* out = base + the steps, which are in that order; they have SLACK_BYTES more (transforms.h). */
void shuffle_gather(
    const uint16_t *steps, const uint8_t *keys, size_t count, unsigned low, unsigned span, uint32_t *begins,
    const uint8_t *base, uint8_t *out);

#endif
