"""Disk space of a store in which the versions of a model were installed one after the other."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.bench.peers import tree_bytes
from tests.bench.process import Run, run, ystore_path
from tests.bench.serve import serve
from tests.bench.workload import Model
from yarnstore.store.disk import disk_bytes

POLICIES = ("instant", "thin")
# The goals, in multiples of one version: after the install, after one update, after two.
GOALS = {"instant": (1.01, 2.02, 2.15), "thin": (1.01, 1.15, 1.25)}


@dataclass(frozen=True)
class Step:
    """One install: the store's disk space after it, and its time until the result and until its end."""

    version: str
    disk_bytes: int
    result_s: float
    process_s: float


@dataclass(frozen=True)
class AtRest:
    """Bytes of all versions of a model as they are, in a registry, and in stores, by policy of rollback."""

    versions: int
    raw_bytes: int
    packs_bytes: int
    deltas_bytes: int
    steps: dict[str, list[Step]]

    @property
    def one_bytes(self) -> int:
        """The size of one version."""
        return self.raw_bytes // self.versions


def at_rest(model: Model, work: Path) -> AtRest:
    """Raises: BenchError."""
    with tempfile.TemporaryDirectory(dir=work, prefix="rest-") as folder:
        registry = Path(folder) / "registry"
        for version, source in model.versions.items():
            spec = f"{model.name}@{version}"
            _ystore(Path(folder) / "none", work, "publish", source, spec, "--registry", registry)
        with serve(registry, work) as server:
            steps = {
                policy: _install_all(model, Path(folder) / policy, policy, server.url, work)
                for policy in POLICIES
            }
        return AtRest(
            len(model.versions),
            sum(map(model.raw_bytes, model.versions)),
            tree_bytes(registry / "packs"),
            tree_bytes(registry / "deltas") if (registry / "deltas").is_dir() else 0,
            steps,
        )


def _install_all(model: Model, home: Path, policy: str, url: str, work: Path) -> list[Step]:
    home.mkdir()
    (home / "config.toml").write_text(f'rollback = "{policy}"\n')
    _ystore(home, work, "registry", "add", "bench", url)
    steps = []
    for n, version in enumerate(model.versions):
        ran = _ystore(home, work, "update" if n else "checkout", f"{model.name}@{version}")
        steps.append(Step(version, disk_bytes(home), float(ran.json()["seconds"]), ran.seconds))
    return steps


def _ystore(home: Path, work: Path, *args: str | Path) -> Run:
    return run(ystore_path(), "--home", home, "--json", *args, work=work, writes=False)
