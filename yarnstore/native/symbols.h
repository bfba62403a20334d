/* Packed streams of encoding 5: several small symbols in a byte (docs/format/encodings.md).
 *
 * Plain C without Python; module.c checks every length.  `per_byte` is one for which `symbols_radix` is not 0.
 */
#ifndef YARNSTORE_SYMBOLS_H
#define YARNSTORE_SYMBOLS_H

#include <stddef.h>
#include <stdint.h>

/* Fill the tables, once. */
void symbols_init(void);
/* How many symbols there are, of which the last is the escape; 0 if no so many go into a byte. */
long symbols_radix(long long per_byte);

/* How many bytes are at least `least`, in zigzag order if they are signed. */
size_t large_count(const uint8_t *plain, size_t length, unsigned least, int is_signed);
/* Pack `length` bytes; of escaped symbols, at most `room`, is written by how much they exceed the escape.  Returns how many there are. */
size_t symbols_split(
    const uint8_t *plain, size_t length, size_t per_byte, int is_signed, uint8_t *packed, uint8_t *escaped,
    size_t room);
/* How many of the first `length` symbols are escapes. */
size_t escapes_count(const uint8_t *packed, size_t length, size_t per_byte);
/* Fill `out` with `length` symbols.  Returns how many of the `count` escaped ones it used, or count + 1 if they
 * are too few. */
size_t symbols_join(
    const uint8_t *packed, const uint8_t *escaped, size_t count, uint8_t *out, size_t length, size_t per_byte);
/* Undo the zigzag order. */
void signs_join(uint8_t *bytes, size_t length);

#endif
