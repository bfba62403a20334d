"""The cheapest ways from one version to another over the deltas of a registry.

The versions of a model, named by their manifests, and their deltas are a graph.  Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple, TypeAlias

from yarnstore.core.digest import Sha256
from yarnstore.core.limits import DELTA_DEPTH_LIMIT

# What one more step costs besides its bytes, as a share of the chunks that it decodes: at 1/128 a way of
# more steps is taken only if it saves bytes that take longer to download than its chunks take to decode,
# on lines of up to about 40 Mbit/s.
DECODE_SHARE: Final = 128

# From the manifest of a base to that of the version that its delta leads to.
Edge: TypeAlias = tuple[Sha256, Sha256]


class Ahead(NamedTuple):
    """The cheapest way from a version to the wanted one: its cost, and the version after this one."""

    cost: int
    next: Sha256 | None


def cheapest_ways(sizes: Mapping[Edge, int], to: Sha256, size_bytes: int) -> dict[Sha256, Ahead]:
    """Return the cheapest way to `to` from each version that has one.

    `sizes` are the bytes of each delta, `size_bytes` those of the version's files, 0 if not known.  A way has
    no more steps than a chunk may have deltas, and no way costs as much as the files.
    """
    into: dict[Sha256, list[tuple[Sha256, int]]] = {}
    for (base, end), size in sizes.items():
        into.setdefault(end, []).append((base, size))
    found = {to: Ahead(0, None)}
    fresh = {to}
    for step in range(DELTA_DEPTH_LIMIT):
        before, changed = dict(found), set()
        for end in fresh:
            for base, size in into.get(end, ()):
                # The first step needs no chunk between.
                cost = before[end].cost + size + (size_bytes // DECODE_SHARE if step else 0)
                too_much = bool(size_bytes) and cost >= size_bytes
                if not too_much and (base not in found or cost < found[base].cost):
                    found[base] = Ahead(cost, end)
                    changed.add(base)
        fresh = changed
    return found


def way_from(ways: Mapping[Sha256, Ahead], start: Sha256, to: Sha256) -> list[Edge]:
    """Return the steps from `start`, in order; nothing if there is no way, or only one that is too long."""
    steps: list[Edge] = []
    at = start
    while at != to:
        after = ways[at].next if at in ways else None
        if after is None or len(steps) == DELTA_DEPTH_LIMIT:
            return []
        steps.append((at, after))
        at = after
    return steps
