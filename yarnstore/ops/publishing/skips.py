"""Which further deltas into a version are worth writing: those that shorten ways over several others.

Each way over several deltas downloads what every step changed; a delta that skips versions downloads less.
How large it would be is known from a sample, before it is made.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from yarnstore.core.manifest import Manifest
from yarnstore.ops.publishing.deltas import DeltaReader, estimate_deltas, stored_bytes
from yarnstore.registry.ways import Edge, cheapest_ways
from yarnstore.store.places import lacking_ids

# The versions that count as in use if nobody says which are: so many of the newest before the newest.
IN_USE = 12
# A delta is worth its place if it takes no more than this share of what the cheapest way takes now.
WORTH_SHARE = 0.85


class Skip(NamedTuple):
    """A delta that is to be written: about how large it is, and what is downloaded without it."""

    base: Manifest
    about_bytes: int
    instead_of_bytes: int


def find_skips(
    reader: DeltaReader,
    new: Manifest,
    bases: Iterable[Manifest],
    sizes: dict[Edge, int],
    *,
    from_share: float = 0.0,
) -> list[Skip]:
    """Return the deltas from some of `bases`, the nearest first, into `new` that shorten ways.

    `sizes` are the bytes of the deltas that exist; those that are returned are added.  With `from_share`,
    only versions count whose update takes more than this share of the files of `new`.

    Raises: IntegrityError, NotFoundError if a chunk cannot be read.
    """
    found = []
    for base in bases:
        if (base.digest, new.digest) in sizes:
            continue
        ways = cheapest_ways(sizes, new.digest, new.size_bytes)
        instead = full = stored_bytes(reader, lacking_ids(new, base))
        if base.digest in ways:
            instead = min(full, ways[base.digest].cost)
        if instead <= from_share * new.size_bytes:
            continue
        about = estimate_deltas(reader, new, base)
        if about <= WORTH_SHARE * instead:
            sizes[base.digest, new.digest] = about
            found.append(Skip(base, about, instead))
    return found
