"""Bytes on the wire for an update, as a share of the model file."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from tests.bench.peers import DeltaTiming, Peer, PeerTiming, delta_timings, measure_peer
from tests.bench.process import ystore
from tests.bench.serve import serve
from tests.bench.workload import Model

ALL_SENT = "ystore, all that was sent"


@dataclass(frozen=True)
class Pair:
    """An update of one model file."""

    name: str
    old: Path
    new: Path

    @property
    def file_bytes(self) -> int:
        return self.new.stat().st_size


def pairs_of(model: Model) -> list[Pair]:
    """Each version's weights with those of the next."""
    names = list(model.versions)
    return [
        Pair(f"{model.name} {old} → {new}", model.weights(old), model.weights(new))
        for old, new in pairwise(names)
    ]


@dataclass(frozen=True)
class Update:
    """What `ystore fetch` of `new` brings into a store that has `old`: chunks, and everything the
    server sent for it, registry, manifest and indexes too (None where the server does not tell)."""

    download_bytes: int
    sent_bytes: int | None
    publish_s: float
    checkout_s: float
    first_download_bytes: int


def ystore_update(pair: Pair, work: Path) -> Update:
    """Raises: BenchError."""
    with tempfile.TemporaryDirectory(dir=work, prefix="wire-") as folder:
        home, registry = Path(folder) / "home", Path(folder) / "registry"
        ystore(home, "publish", pair.old, "m@1.0.0", "--registry", registry, work=work)
        published = ystore(home, "publish", pair.new, "m@2.0.0", "--registry", registry, work=work)
        with serve(registry, work) as server:
            ystore(home, "registry", "add", "bench", server.url, work=work)
            first = ystore(home, "checkout", "m@1.0.0", work=work).json()
            server.sent_bytes()
            fetched = ystore(home, "fetch", "m@2.0.0", work=work).json()
            sent = server.sent_bytes()
            installed = ystore(home, "checkout", "m@2.0.0", work=work)
        return Update(
            fetched["download_bytes"], sent, published.seconds, installed.seconds, first["download_bytes"]
        )


@dataclass(frozen=True)
class PairTiming:
    """An update by everybody."""

    pair: Pair
    update: Update
    peers: list[PeerTiming]
    deltas: list[DeltaTiming]

    @property
    def tools(self) -> dict[str, int | None]:
        """Bytes on the wire by tool."""
        found = {"ystore": self.update.download_bytes, ALL_SENT: self.update.sent_bytes}
        found |= {peer.tool: peer.added_bytes for peer in self.peers}
        return found | {delta.tool: delta.delta_bytes for delta in self.deltas}

    def bytes_of(self, tool: str) -> int | None:
        return self.tools.get(tool)


def measure(pair: Pair, tools: list[type[Peer]], work: Path) -> PairTiming:
    """An update by `ystore`, by each of `tools`, and by the delta tools installed, once each.

    Raises: BenchError.
    """
    update = ystore_update(pair, work)
    with tempfile.TemporaryDirectory(dir=work, prefix="pair-") as folder:
        old, new = (_alone(path, Path(folder) / name) for name, path in (("1", pair.old), ("2", pair.new)))
        peers = [measure_peer(tool, old, new, work, 1) for tool in tools]
    return PairTiming(pair, update, peers, delta_timings(pair.old, pair.new, work))


def _alone(path: Path, folder: Path) -> Path:
    """A new folder with a copy of one file, for tools that store folders."""
    folder.mkdir()
    shutil.copyfile(path, folder / path.name)
    return folder
