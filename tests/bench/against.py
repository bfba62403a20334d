"""This release beside another one: the same operations on the same files, in turn, as whole processes."""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from tests.bench.process import Run, ystore, ystore_path
from tests.bench.serve import serve
from tests.bench.workload import Model

Runs = dict[str, dict[str, list[Run]]]


def measure(model: Model, other: Path, work: Path, repeats: int) -> Runs:
    """The runs of each operation by the command `other` ("before") and by ours ("now").

    Each publishes to a registry of its own and installs from there.  The releases take turns, and so does
    which of them is first.  Raises: BenchError.
    """
    runs: Runs = defaultdict(lambda: defaultdict(list))
    for n in range(repeats):
        turns = [("before", str(other)), ("now", ystore_path())]
        for which, command in reversed(turns) if n % 2 else turns:
            for operation, ran in _round(model, command, work):
                runs[operation][which].append(ran)
    return runs


def middle(runs: list[Run], field: str) -> float:
    """The median of a field."""
    return median(getattr(run, field) for run in runs)


def _round(model: Model, command: str, work: Path) -> Iterator[tuple[str, Run]]:
    old, new = list(model.versions)[:2]
    with tempfile.TemporaryDirectory(dir=work, prefix="against-") as folder:
        registry = Path(folder) / "registry"

        def by(home: str, *args: str | Path) -> Run:
            return ystore(Path(folder) / home, *args, work=work, command=command)

        for version in (old, new):
            spec = f"{model.name}@{version}"
            yield (
                f"publish {version}",
                by("home", "publish", model.versions[version], spec, "--registry", registry),
            )
        with serve(registry, work) as server:
            for home in ("home", "straight"):
                by(home, "registry", "add", "bench", server.url)
            for version in (old, new):
                spec = f"{model.name}@{version}"
                yield f"fetch {version}", by("home", "fetch", spec)
                yield f"checkout {version}", by("home", "checkout", spec)
                yield f"checkout {version}, not fetched", by("straight", "checkout", spec)
        yield "rollback", by("home", "rollback", model.name)
        yield "fsck", by("home", "fsck")
        yield "gc", by("home", "gc")
