"""Other tools at the same work: store a version, store its successor, restore that.

Each gets a new repository on the same disk, no encryption where that can be had, zstd where it can
be chosen, and one whole process per step.  What a tool adds to its repository for the second
version is what it would have to move: its bytes on the wire.
"""

from __future__ import annotations

import filecmp
import json
import shutil
import subprocess
import tempfile
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from tests.bench.process import Run, run

_HERE = Path(__file__).parent


@dataclass(frozen=True)
class PeerTiming:
    """One tool on one pair of versions: medians."""

    tool: str
    store_s: float
    store_on_disk_s: float
    restore_s: float
    restore_on_disk_s: float
    added_bytes: int
    peak_bytes: int


class Peer(ABC):
    """One tool with a new repository in `root`."""

    name: str

    def __init__(self, root: Path, work: Path) -> None:
        self.root = root
        self.work = work
        self.repository = root / "repository"
        self.start()

    def start(self) -> None:
        """Make the repository."""
        self.repository.mkdir()

    @abstractmethod
    def store(self, source: Path, version: str) -> Run:
        """Store the files of a folder as a version."""

    @abstractmethod
    def restore(self, version: str, out: Path) -> Run:
        """Bring a version's files into the new folder `out`."""

    def stored_bytes(self) -> int:
        return tree_bytes(self.repository)


class Borg(Peer):
    name = "borg (zstd,3)"

    def _borg(self, *args: str | Path, cwd: Path) -> Run:
        env = {"BORG_BASE_DIR": str(self.root / "base"), "BORG_REPO": str(self.repository)}
        env["BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK"] = "yes"
        return run("borg", *args, work=self.work, cwd=cwd, env=env)

    def start(self) -> None:
        self._borg("init", "-e", "none", cwd=self.root)

    def store(self, source: Path, version: str) -> Run:
        return self._borg("create", "-C", "zstd,3", f"::{version}", ".", cwd=source)

    def restore(self, version: str, out: Path) -> Run:
        return self._borg("extract", f"::{version}", cwd=out)


class Restic(Peer):
    name = "restic"

    def _restic(self, *args: str | Path, cwd: Path) -> Run:
        # It always encrypts.
        env = {"RESTIC_PASSWORD": "bench", "RESTIC_REPOSITORY": str(self.repository)}
        env["RESTIC_CACHE_DIR"] = str(self.root / "cache")
        return run("restic", "-q", *args, work=self.work, cwd=cwd, env=env)

    def start(self) -> None:
        self._restic("init", cwd=self.root)

    def store(self, source: Path, version: str) -> Run:
        return self._restic("backup", "--host", "bench", "--tag", version, ".", cwd=source)

    def restore(self, version: str, out: Path) -> Run:
        return self._restic("restore", "latest", "--tag", version, "--target", out, cwd=self.root)


class Casync(Peer):
    name = "casync (zstd)"

    def _casync(self, verb: str, version: str, tree: Path) -> Run:
        # --with=2sec-time leaves out owners and attributes, which nobody else stores either.
        options = ["--store", self.repository / "chunks.castr", "--compression=zstd", "--with=2sec-time"]
        index = self.repository / f"{version}.caidx"
        return run("casync", verb, *options, index, tree, work=self.work)

    def store(self, source: Path, version: str) -> Run:
        return self._casync("make", version, source)

    def restore(self, version: str, out: Path) -> Run:
        return self._casync("extract", version, out)


class Xet(Peer):
    name = "Xet (hf_xet)"
    python = ""  # an interpreter that has hf_xet

    def _xet(self, *args: str | Path) -> Run:
        command = (self.python, _HERE / "xet.py", self.repository, *args)
        env = {"HF_XET_CACHE": str(self.root / "cache"), "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
        return run(*command, work=self.work, env=env)

    def store(self, source: Path, version: str) -> Run:
        return self._xet("store", source, self.root / f"{version}.json")

    def restore(self, version: str, out: Path) -> Run:
        return self._xet("restore", self.root / f"{version}.json", out)


def installed_peers(python: str) -> list[type[Peer]]:
    """The tools that are on this machine, the others said aloud; `python` may have hf_xet."""
    found: list[type[Peer]] = []
    for peer, command in ((Borg, "borg"), (Restic, "restic"), (Casync, "casync")):
        if shutil.which(command):
            found.append(peer)
        else:
            print(f"skipped: {command} is not installed")
    if has_module(python, "hf_xet"):
        Xet.python = python
        found.append(Xet)
    return found


def has_module(python: str, module: str) -> bool:
    """Whether an interpreter has a module; says so where it has not."""
    there = subprocess.run([python, "-c", f"import {module}"], capture_output=True).returncode == 0
    if not there:
        print(f"skipped: {python} has no {module} (see --peer-python)")
    return there


def tree_bytes(root: Path) -> int:
    """The size of all files below a folder, a file with several links once."""
    found = {(s.st_dev, s.st_ino): s.st_size for p in root.rglob("*") if p.is_file() for s in [p.stat()]}
    return sum(found.values())


def measure_peer(peer: type[Peer], old: Path, new: Path, work: Path, repeats: int) -> PeerTiming:
    """Store the folder `old`, then `new`, restore `new`, and compare.  Raises: BenchError."""
    stores: list[Run] = []
    restores: list[Run] = []
    added = 0
    for _ in range(repeats):
        with tempfile.TemporaryDirectory(dir=work, prefix="peer-") as folder:
            tool = peer(Path(folder), work)
            tool.store(old, "1")
            before = tool.stored_bytes()
            stores.append(tool.store(new, "2"))
            added = tool.stored_bytes() - before
            out = Path(folder) / "out"
            out.mkdir()
            restores.append(tool.restore("2", out))
            names = [path.name for path in new.iterdir()]
            equal, *_ = filecmp.cmpfiles(new, out, names, shallow=False)
            assert len(equal) == len(names), f"{peer.name} restored something else"
    return PeerTiming(
        peer.name,
        median(ran.seconds for ran in stores),
        median(ran.on_disk_s for ran in stores),
        median(ran.seconds for ran in restores),
        median(ran.on_disk_s for ran in restores),
        added,
        max(ran.peak_bytes for ran in [*stores, *restores]),
    )


# --- deltas of single files, and whole files ---------------------------------------------------


@dataclass(frozen=True)
class DeltaTiming:
    """A delta between two files: its size, and what making and applying it takes."""

    tool: str
    delta_bytes: int
    make_s: float
    apply_s: float
    peak_bytes: int


_DELTA_TOOLS = {
    "xdelta3 -9": (
        ("xdelta3", "-f", "-9", "-e", "-s", "{old}", "{new}", "{delta}"),
        ("xdelta3", "-f", "-d", "-s", "{old}", "{delta}", "{out}"),
    ),
    "zstd -19 --patch-from": (
        ("zstd", "-q", "-f", "-19", "--long=27", "--patch-from={old}", "{new}", "-o", "{delta}"),
        ("zstd", "-q", "-f", "-d", "--long=27", "--patch-from={old}", "{delta}", "-o", "{out}"),
    ),
}


def delta_timings(old: Path, new: Path, work: Path) -> list[DeltaTiming]:
    """Each installed delta tool on two files, once: the slow ones take a minute."""
    found = []
    for tool, (make, apply) in _DELTA_TOOLS.items():
        if shutil.which(make[0]) is None:
            print(f"skipped: {make[0]} is not installed")
            continue
        with tempfile.TemporaryDirectory(dir=work, prefix="delta-") as folder:
            names = {"old": old, "new": new, "delta": Path(folder) / "delta", "out": Path(folder) / "out"}
            made = run(*(word.format(**names) for word in make), work=work)
            applied = run(*(word.format(**names) for word in apply), work=work)
            assert filecmp.cmp(new, names["out"], shallow=False), f"{tool} gave something else"
            peak = max(made.peak_bytes, applied.peak_bytes)
            size = names["delta"].stat().st_size
            found.append(DeltaTiming(tool, size, made.seconds, applied.seconds, peak))
    return found


def zipnn_whole(path: Path, python: str, work: Path) -> tuple[int, float, float] | None:
    """ZipNN on one bf16 file: its bytes, and the seconds of compressing and decompressing without
    start-up (it imports torch); None where it is not installed."""
    if not has_module(python, "zipnn"):
        return None
    told = json.loads(run(python, _HERE / "zipnn_whole.py", path, work=work).stdout.splitlines()[-1])
    return told["bytes"], told["compress_s"], told["decompress_s"]
