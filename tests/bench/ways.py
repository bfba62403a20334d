"""What clients download that are several versions behind, or go back: ways over several deltas."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from tests.bench.plot import Bar
from tests.bench.report import Report, Table, marked, percent
from tests.bench.workload import minilm
from tests.support.trained import trained
from yarnstore import Store

_WEIGHTS = 1 << 22
_VERSIONS = 13
_MODEL = "trained-bf16"


@dataclass(frozen=True)
class Way:
    """One step of a client: what it downloads, the files of the version, and the most that it should be."""

    name: str
    download_bytes: int
    file_bytes: int
    goal_share: float


def measure(work: Path) -> list[Way]:
    """Measure all steps with registries as `publish` makes them, and after `registry optimize`."""
    registry, source = work / "ways" / "registry", work / "ways" / "model.bin"
    source.parent.mkdir()
    for n, content in enumerate(trained(_VERSIONS, weights=_WEIGHTS)):
        source.write_bytes(content)
        Store.publish(source, f"{_MODEL}@1.{n}.0", registry=registry)
    newest = f"1.{_VERSIONS - 1}.0"
    found = []

    def step(name: str, start: str, to: str, goal_share: float) -> None:
        came = _step(work, registry, f"{_MODEL}@{start}", f"{_MODEL}@{to}")
        found.append(Way(name, came, 2 * _WEIGHTS, goal_share))

    for behind in (1, 2, 3, 4, 6, 8, 12):
        step(f"{behind} behind", f"1.{_VERSIONS - 1 - behind}.0", newest, 0.15)
    step("back one", newest, f"1.{_VERSIONS - 2}.0", found[0].download_bytes / (2 * _WEIGHTS) + 0.01)
    step("back three", newest, f"1.{_VERSIONS - 4}.0", 0.17)
    Store.optimize_registry(registry)
    for behind in (4, 12):
        step(f"{behind} behind, optimized", f"1.{_VERSIONS - 1 - behind}.0", newest, 0.15)
    found += _real(work)
    shutil.rmtree(work / "ways")
    return found


def _real(work: Path) -> list[Way]:
    """From the first to the last of three real versions, of which each has a delta from the one before."""
    model = minilm()
    if model is None:
        return []
    registry = work / "ways" / "real"
    for version, folder in model.versions.items():
        Store.publish(folder, f"{model.name}@{version}", registry=registry, deltas=1)
    first, *_, last = model.versions
    came = _step(work, registry, f"{model.name}@{first}", f"{model.name}@{last}")
    return [Way(f"{model.name}, {first} to {last}", came, model.raw_bytes(last), 0.15)]


def _step(work: Path, registry: Path, start: str, to: str) -> int:
    home = work / "ways" / "home"
    with Store.open(home) as store:
        store.add_registry("here", registry)
        store.checkout(start)
        came = store.checkout(to).download_bytes
    shutil.rmtree(home)
    return came


def ways_table(report: Report, work: Path) -> None:
    """Add the table of what these steps download."""
    found = measure(work)
    rows = [
        (way.name, marked(percent(way.download_bytes, way.file_bytes), goal), goal)
        for way in found
        for goal in [f"{100 * way.goal_share:.1f} %"]
    ]
    bars = tuple(
        Bar(way.name, 100 * way.download_bytes / way.file_bytes, row[1].strip("*"), ours=True)
        for way, row in zip(found, rows, strict=True)
    )
    notes = (
        f"A generated bf16 model with {_VERSIONS} versions, each 8 training steps after the previous one; "
        "`download` is the `download_bytes` of `checkout`, as a share of the version's files.",
        "`publish` writes deltas from the 3 versions before. Further behind, an update goes over several of "
        "them; where that takes more than 15 %, it has one of its own: so 4 behind takes more than 6.",
        "minilm-bf16 has only deltas from the version before. `optimized`: after `registry optimize`.",
        "Goal: at most the share in the last column.",
    )
    columns = ("step", "download", "goal")
    table = Table("ways", "Updates over several versions, and back", columns, rows, notes, bars, "%")
    report.add(table, found)
