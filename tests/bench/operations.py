"""The operations of `ystore`, timed as whole processes, each round in a registry and a store of its own."""

from __future__ import annotations

import shutil
import tempfile
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from tests.bench.floors import Floor, Part, cores, floor_of
from tests.bench.primitives import Rates, measure_cpu, read_sample, synced_write_rate
from tests.bench.process import Run, ystore
from tests.bench.serve import serve
from tests.bench.workload import Model, made_model

_TINY_GB = 0.0011  # what a command takes on so little is its start
_TINY_ROUNDS = 3  # in the first, Python may have to compile modules
_ROLLBACKS = 5  # of some milliseconds each, so several in a round


@dataclass(frozen=True)
class Sample:
    """One timed operation, and what it has to do; nothing where it has no floor."""

    run: Run
    inside_s: float | None
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Timing:
    """An operation over all rounds: medians, but the highest peak of memory."""

    operation: str
    seconds: float
    inside_s: float | None
    cpu_s: float
    on_disk_s: float
    floor: Floor | None
    start_cpu_s: float  # of the same operation on a model of almost nothing
    sha256_rate: float
    stored_bytes: int
    peak_bytes: int
    written_bytes: int
    samples_s: list[float]

    @property
    def work_cpu_s(self) -> float:
        """The CPU time without start-up."""
        return self.cpu_s - self.start_cpu_s

    @property
    def over(self) -> float | None:
        """The CPU time without start-up, in floors."""
        return self.work_cpu_s / self.floor.cpu_s if self.floor else None

    @property
    def over_parts(self) -> float | None:
        """The same beside all parts, with moving and transforming the bytes."""
        return self.work_cpu_s / self.floor.parts_cpu_s if self.floor else None

    @property
    def wall_over(self) -> float | None:
        """The time that the command reports, beside the longer of its CPU time on all cores and one SHA-256
        of the largest file."""
        if self.floor is None or self.inside_s is None:
            return None
        return self.inside_s / max(self.work_cpu_s / cores(), self.floor.raw_bytes / self.sha256_rate)


@dataclass(frozen=True)
class Measured:
    """What was measured on one model."""

    model: str
    rates: Rates
    write_rates: list[float]
    timings: dict[str, Timing]


def measure(model: Model, work: Path, repeats: int) -> Measured:
    """All operations on the first two versions of a model.  Raises: BenchError."""
    old, new = list(model.versions)[:2]
    sample = read_sample(model.weights(old))
    rates = measure_cpu(sample, read_sample(model.weights(new)), model.weights(old))
    write_rates: list[float] = []
    samples: dict[str, list[Sample]] = defaultdict(list)
    with tempfile.TemporaryDirectory(dir=work, prefix="tiny-") as folder:
        tiny = made_model(Path(folder), _TINY_GB, (old, new))
        tiny_s: dict[str, list[float]] = defaultdict(list)
        for _ in range(_TINY_ROUNDS):
            for name, found in _round(tiny, old, new, work):
                tiny_s[name].append(found.run.cpu_s)
    starts = {name: median(times) for name, times in tiny_s.items()}
    for _ in range(repeats):
        # Before every round, since a shared disk is not the same for long.
        write_rates.append(synced_write_rate(work, model.raw_bytes(old), sample[0]))
        for operation, found in _round(model, old, new, work):
            samples[operation].append(found)
    timings = {}
    for operation, found in samples.items():
        first = found[0]
        inside = [sample.inside_s for sample in found if sample.inside_s is not None]
        timings[operation] = Timing(
            operation,
            median(sample.run.seconds for sample in found),
            median(inside) if inside else None,
            median(sample.run.cpu_s for sample in found),
            median(sample.run.on_disk_s for sample in found),
            floor_of(first.parts, rates) if first.parts else None,
            starts[operation],
            rates["sha256"].one,
            sum(part.stored_bytes for part in first.parts),
            max(sample.run.peak_bytes for sample in found),
            int(median(sample.run.written_bytes for sample in found)),
            [sample.run.seconds for sample in found],
        )
    return Measured(model.name, rates, write_rates, timings)


def _round(model: Model, old: str, new: str, work: Path) -> list[tuple[str, Sample]]:
    """Publish, fetch and install two versions, roll back, check, free; every step on what the one
    before left."""
    done: list[tuple[str, Sample]] = []

    def timed(
        operation: str, *args: str | Path, parts: Callable[[dict[str, Any]], list[Part]]
    ) -> dict[str, Any]:
        ran = ystore(home, *args, work=work)
        answer: dict[str, Any] = ran.json()
        done.append((operation, Sample(ran, answer.get("seconds"), tuple(parts(answer)))))
        return answer

    with tempfile.TemporaryDirectory(dir=work, prefix="round-") as folder:
        home, registry = Path(folder) / "home", Path(folder) / "registry"
        raw = {version: model.raw_bytes(version) for version in (old, new)}

        def publish_parts(answer: dict[str, Any]) -> list[Part]:
            size = raw[answer["version"]]
            deltas = [Part("publish delta", size, stored) for stored in answer["deltas"].values()]
            if answer["back_bytes"]:
                deltas.append(Part("publish delta back", size, answer["back_bytes"]))
            return [Part("publish", size, answer["new_bytes"]), *deltas]

        def publish(version: str) -> tuple[str | Path, ...]:
            return ("publish", model.versions[version], f"{model.name}@{version}", "--registry")

        timed(f"publish {old}", *publish(old), registry, parts=publish_parts)
        plain = Path(folder) / "plain"
        shutil.copytree(registry, plain)
        timed(full_packs(new), *publish(new), plain, "--deltas", "0", parts=publish_parts)
        shutil.rmtree(plain)
        timed(f"publish {new}", *publish(new), registry, parts=publish_parts)
        came = {}
        with serve(registry, work) as server:
            ystore(home, "registry", "add", "bench", server.url, work=work)
            for version, delta in ((old, ""), (new, " delta")):
                spec = f"{model.name}@{version}"

                def part(kind: str, size: int, stored: int) -> Callable[[dict[str, Any]], list[Part]]:
                    return lambda answer: [Part(kind, size, stored or answer["download_bytes"])]

                fetched = timed(
                    f"fetch {version}", "fetch", spec, parts=part(f"fetch{delta}", raw[version], 0)
                )
                came[version] = fetched["download_bytes"]
                timed(
                    f"checkout {version}",
                    *("checkout", spec, "--no-wait"),
                    parts=part(f"checkout{delta}", raw[version], came[version]),
                )
            kept, home = home, Path(folder) / "straight"
            ystore(home, "registry", "add", "bench", server.url, work=work)
            for version, delta in ((old, ""), (new, " delta")):
                timed(
                    straight(version),
                    *("checkout", f"{model.name}@{version}", "--no-wait"),
                    parts=part(f"install{delta}", raw[version], came[version]),
                )
            shutil.rmtree(home)
            home = kept
        for _ in range(_ROLLBACKS):
            timed("rollback", "rollback", model.name, parts=lambda _: [])
            ystore(home, "checkout", f"{model.name}@{new}", "--no-wait", work=work)
        checks = [Part("fsck", raw[old], came[old]), Part("fsck delta", raw[new], came[new])]
        timed("fsck", "fsck", parts=lambda _: checks)
        ystore(home, "rollback", model.name, work=work)
        ystore(home, "remove", f"{model.name}@{new}", work=work)
        timed("gc of one version of two", "gc", parts=lambda _: [])
    return done


def full_packs(version: str) -> str:
    """The name of publishing without deltas, which is what the peers do."""
    return f"publish {version}, full packs"


def straight(version: str) -> str:
    """The name of installing what was not fetched before, as `update` does."""
    return f"checkout {version}, not fetched"


def peak_memory(model: Model, work: Path, threads: int) -> dict[str, int]:
    """The peak memory of each operation on two versions with so many threads, in bytes."""
    old, new = model.versions
    peaks = {}
    env = {"YSTORE_THREADS": str(threads)}
    with tempfile.TemporaryDirectory(dir=work, prefix="memory-") as folder:
        home, registry = Path(folder) / "home", Path(folder) / "registry"

        def note(name: str, *args: str | Path) -> None:
            print(f"{name}, {threads} threads …", flush=True)
            peaks[name] = ystore(home, *args, work=work, env=env).peak_bytes

        for version in (old, new):
            spec = f"{model.name}@{version}"
            note(f"publish {version}", "publish", model.versions[version], spec, "--registry", registry)
        with serve(registry, work) as server:
            ystore(home, "registry", "add", "bench", server.url, work=work)
            note(f"fetch {old}", "fetch", f"{model.name}@{old}")
            note(f"checkout {old}", "checkout", f"{model.name}@{old}")
            note(straight(new), "checkout", f"{model.name}@{new}")
            shutil.rmtree(home)
            ystore(home, "registry", "add", "bench", server.url, work=work)
            note(straight(old), "checkout", f"{model.name}@{old}")
        note("fsck", "fsck")
    return peaks
