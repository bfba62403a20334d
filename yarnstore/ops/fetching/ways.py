"""Ways through the registry: what it offers of a version, and which delta packs lead to it from the store.

A delta pack leads to a version from another one, usually of the same model.  A version that no delta leads to
directly from one in the store may be reached over others.  Only the packs along the cheapest way are read;
`cheapest` then decides chunk by chunk.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeAlias

from yarnstore.core.deflate import compressor_id
from yarnstore.core.digest import PackId, Sha256
from yarnstore.core.index import Ids, Ints, id_bytes
from yarnstore.core.limits import VERSION_LIMIT_PACKS
from yarnstore.registry.entries import (
    BASED,
    PLAIN,
    BasedDeltaEntry,
    ModelEntry,
    TransposedDeltaEntry,
    VersionEntry,
)
from yarnstore.registry.select import iter_builds
from yarnstore.registry.ways import Edge, cheapest_ways, way_from
from yarnstore.store.chunks import ChunkStore

# The folders of a registry with packs.
PACKS = "packs"
DELTAS = "deltas"
# Delta packs of one model that are looked through; a registry with more of them is not searched for ways.
_WAYS_LIMIT = 50_000


class RemotePack(NamedTuple):
    """A pack and its folder in the registry."""

    folder: str
    pack: PackId

    @property
    def key(self) -> str:
        """The pack's key in the registry."""
        return f"{self.folder}/{self.pack.hex}.pack"

    @property
    def index_key(self) -> str:
        """The key of its index in the registry."""
        return f"{self.folder}/{self.pack.hex}.idx"


class PackRange(NamedTuple):
    """A wanted chunk in a remote pack."""

    offset: int
    stored: int
    chunk_id: bytes

    @property
    def end(self) -> int:
        return self.offset + self.stored


@dataclass(frozen=True)
class Run:
    """Entries of one pack, ascending, that are requested at once, as columns of equal length.

    Without entries it is the whole pack, because its index could not be read.
    """

    pack: RemotePack
    offsets: Ints
    stored: Ints
    ids: Ids

    def places(self) -> list[PackRange]:
        """Return the entries one by one."""
        ids = (id_bytes(self.ids, n) for n in range(len(self.ids)))
        return [PackRange(*row) for row in zip(self.offsets.tolist(), self.stored.tolist(), ids, strict=True)]


class DeltaPack(NamedTuple):
    """A delta pack of a registry: it leads from the manifest `base` of `version` to the manifest `to`.

    What is in a `mapped` one is stored whole, since older releases cannot read it; because of it, entries of
    the others between the two that have `replaced_bytes` are not downloaded.  With `other_model`, `base` is a
    version of another model, which `version` names too.  With `whole_base`, it helps only if the store has
    `base` whole; if it `transposes`, others are against its chunks.  With `compressor`, it needs one of that
    name.
    """

    pack: RemotePack
    base: Sha256
    version: str
    to: Sha256
    size_bytes: int
    mapped: bool = False
    replaced_bytes: int = 0
    other_model: bool = False
    whole_base: bool = False
    transposes: bool = False
    compressor: str = ""

    @property
    def can_be_made(self) -> bool:
        """Whether this process can make its chunks: compress streams to the publisher's bytes."""
        return not self.compressor or self.compressor == compressor_id()


@dataclass(frozen=True)
class PackOffer:
    """Where a version's chunks are, by its registry: full packs, and `deltas` into it.

    `ways` are the delta packs of all versions of its model, these included; `size_bytes` is the size of the
    version's files, 0 if the registry does not give it.
    """

    packs: tuple[PackId, ...]
    deltas: tuple[DeltaPack, ...] = ()
    ways: tuple[DeltaPack, ...] = ()
    size_bytes: int = 0

    @classmethod
    def of(cls, entry: VersionEntry, model: ModelEntry | None = None) -> PackOffer:
        """What a registry entry offers; `model` is the entry of its model."""
        packs = tuple(PackId.parse(pack) for pack in entry.packs)
        deltas = tuple(_deltas_into(entry))
        ways: list[DeltaPack] = []
        if model is not None:
            for build in iter_builds(model):
                ways += _deltas_into(build.entry)
                if len(ways) > _WAYS_LIMIT:
                    ways.clear()
                    break
        return cls(packs, deltas, tuple(ways) or deltas, entry.size_bytes or 0)

    def that_can_be_made(self) -> PackOffer:
        """Return it without deltas that need another compressor than this process's."""
        deltas, ways = (tuple(d for d in some if d.can_be_made) for some in (self.deltas, self.ways))
        return replace(self, deltas=deltas, ways=ways)

    def listed(self) -> Iterator[str]:
        """All that a plan can be made from, as text."""
        yield from (str(pack) for pack in self.packs)
        yield from (f"{delta.base} {delta.to} {delta.pack.pack}" for delta in self.ways)


def _deltas_into(entry: VersionEntry) -> Iterable[DeltaPack]:
    if entry.manifest is None:
        return
    for key, deltas in entry.delta_lists:
        for delta in deltas:
            based = delta if isinstance(delta, BasedDeltaEntry) else None
            transposed = delta if isinstance(delta, TransposedDeltaEntry) else None
            yield DeltaPack(
                pack=RemotePack(DELTAS, PackId.parse(delta.pack)),
                base=Sha256.parse(delta.base_manifest),
                version=delta.label,
                to=Sha256.parse(entry.manifest),
                size_bytes=delta.size_bytes,
                mapped=key not in (PLAIN, BASED) if based is None else based.mapped,
                replaced_bytes=delta.replaced_bytes,
                other_model=based is not None,
                whole_base=transposed is not None,
                transposes=transposed is not None and transposed.transposes,
                compressor=delta.compressor,
            )


# Delta packs by step, back from the wanted version: those that lead into it, those that lead into their
# bases, and so on.
Way: TypeAlias = Sequence[Sequence[DeltaPack]]


def find_way(
    offer: PackOffer,
    complete: Collection[Sha256],
    chunks: ChunkStore,
    *,
    without: Collection[RemotePack] = (),
) -> Way:
    """Return the delta packs to read for a version; `complete` are the manifests of versions in the
    store, `without` are packs that have failed.

    These are the deltas from versions in the store, directly or over others.  If no version of the store is
    in the registry, they are all that lead into the version directly from its own model: its chunks may be
    known by another name.  Those that need another compressor than this process's are left out.
    """
    way = _find_way(offer, complete, chunks, without)
    # Which compressor this is takes a while to say, and few ways need one.
    if all(delta.can_be_made for step in way for delta in step):
        return way
    return _find_way(offer.that_can_be_made(), complete, chunks, without)


def _find_way(
    offer: PackOffer, complete: Collection[Sha256], chunks: ChunkStore, without: Collection[RemotePack]
) -> Way:
    def usable(delta: DeltaPack) -> bool:
        return not delta.whole_base or delta.base in complete

    deltas = [delta for delta in offer.deltas if delta.pack not in without and usable(delta)]
    if not deltas or chunks.is_empty:
        return []
    to = deltas[0].to
    failed = {(delta.base, delta.to) for delta in offer.ways if delta.pack in without}
    edges: dict[Edge, list[DeltaPack]] = {}
    for delta in offer.ways:
        if (delta.base, delta.to) not in failed and usable(delta):
            edges.setdefault((delta.base, delta.to), []).append(delta)
    sizes = {
        edge: max(0, sum(delta.size_bytes - delta.replaced_bytes for delta in packs))
        for edge, packs in edges.items()
    }
    ways = cheapest_ways(sizes, to, offer.size_bytes)
    known = [digest for digest in complete if digest in ways and digest != to]
    start = min(known, key=lambda digest: (ways[digest].cost, digest.hex), default=None)
    steps = [edges[edge] for edge in reversed(way_from(ways, start, to))] if start is not None else []
    if not steps or sum(map(len, steps)) + len(offer.packs) > VERSION_LIMIT_PACKS:
        direct = [delta for delta in deltas if not delta.other_model or delta.base in complete]
        return _in_order([direct]) if direct else []
    first = [delta for delta in deltas if delta.base in complete or delta in steps[0]]
    return _in_order([first, *steps[1:]])


def _in_order(steps: Way) -> Way:
    """Return a way with packs that transpose one step further back: others are against their chunks."""
    found: list[list[DeltaPack]] = [[] for _ in range(len(steps) + 1)]
    for n, step in enumerate(steps):
        for delta in step:
            found[n + delta.transposes].append(delta)
    return found if found[-1] else found[:-1]
