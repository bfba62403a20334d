"""Work that must stay quick however large its input is, each part beside the most that it may take.

The tests hold what this work gives; its time is measured here, where nothing else runs.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.bench.workload import minilm
from tests.support.giant_registry import MINE, GiantRegistry
from tests.support.samples import FileSource, lay
from tests.support.servers import ScriptedServer
from yarnstore import Store
from yarnstore.core.layouts import cut_segments, parse_layout
from yarnstore.core.limits import KIB
from yarnstore.errors import NotFoundError
from yarnstore.registry.schema import parse_registry
from yarnstore.registry.select import find_model

_RUNS = 3


@dataclass(frozen=True)
class Bound:
    """Seconds that some work took, the fastest of three, and the most that it may take."""

    name: str
    took_s: float
    most_s: float


def measure(work: Path) -> Iterator[Bound]:
    """Each bound; the one on a real model only where that is on this machine."""
    layout, size = lay(*((96 * KIB, "bf16"), (512, "bf16")) * 50_000)
    yield Bound("cut 100,000 tensors into segments", _fastest(lambda: cut_segments(layout, size)), 0.8)

    names = [f"model-{number:06d}-{'base' if number % 2 else 'chat'}" for number in range(100_000)]
    names.append("microsoft/phi-3-mini-128k-instruct")
    registry = parse_registry(json.dumps({"models": {name: {"versions": {}} for name in names}}).encode())
    for asked in ("modl-001234-chat", "microsoft/phi3-mini-128k-instruct"):

        def find(asked: str = asked) -> None:
            try:
                find_model(registry, asked)
            except NotFoundError:
                return
            raise AssertionError(f"{asked} exists")

        yield Bound(f"suggest a name for {asked} among 100,000", _fastest(find), 1)

    with _store_of_giant(work) as home:

        def outdated() -> float:
            with Store.open(home) as store:
                started = time.perf_counter()
                assert len(store.check_for_updates()) == len(MINE)
                return time.perf_counter() - started

        yield Bound(
            "outdated, of a split registry of 100,000 models", min(outdated() for _ in range(_RUNS)), 0.3
        )

    yield Bound("roll back a model of four small files", _rollback(work), 0.005)

    yield from _many_files(work)

    real = minilm()
    if real:
        source = FileSource(real.weights("1.0.0"))
        yield Bound(f"read the layout of {real.name}", _fastest(lambda: parse_layout(source)), 0.5)


def _fastest(action: Callable[[], object]) -> float:
    took = []
    for _ in range(_RUNS):
        started = time.perf_counter()
        action()
        took.append(time.perf_counter() - started)
    return min(took)


@contextmanager
def _store_of_giant(work: Path) -> Iterator[Path]:
    """The home of a store with three models of the giant registry, which is served meanwhile."""
    with tempfile.TemporaryDirectory(dir=work, prefix="bounds-") as folder:
        home = Path(folder) / "home"
        with ScriptedServer(GiantRegistry()) as server:
            with Store.open(home) as store:
                store.add_registry("giant", server.url)
                for model in MINE:
                    store.checkout(f"{model}@1.0.0")
            yield home


def _rollback(work: Path) -> float:
    with tempfile.TemporaryDirectory(dir=work, prefix="bounds-") as folder:
        model = Path(folder) / "model"
        model.mkdir()
        with Store.open(Path(folder) / "home") as store:
            for version in ("1.0.0", "1.1.0"):
                for name in ("a", "b", "c", "d"):
                    (model / name).write_text(f"{name} {version}")
                store.import_model(model, f"small@{version}")
                store.checkout(f"small@{version}")

            def rollback() -> float:
                seconds = store.rollback_model("small").seconds
                store.checkout("small@1.1.0")
                return seconds

            return min(rollback() for _ in range(_RUNS))


def _many_files(work: Path) -> Iterator[Bound]:
    """10,000 files of 200 bytes: published, and installed beside a plain loop, by the clock of one run."""
    with tempfile.TemporaryDirectory(dir=work, prefix="bounds-") as folder:
        source, registry = Path(folder) / "source", Path(folder) / "registry"
        contents = {f"{n % 100}/{n}.bin": os.urandom(200) for n in range(10_000)}
        for path, data in contents.items():
            (source / path).parent.mkdir(parents=True, exist_ok=True)
            (source / path).write_bytes(data)
        started = time.process_time()
        Store.publish(source, "many@1.0.0", registry=registry)
        yield Bound("publish 10,000 small files, processor time", time.process_time() - started, 2)
        started = time.perf_counter()
        _write_and_link(contents, Path(folder) / "plain")
        plain_s = time.perf_counter() - started
        with Store.open(Path(folder) / "home") as store:
            store.add_registry("bounds", registry)
            store.fetch("many@1.0.0")
            seconds = store.checkout("many@1.0.0").seconds
        yield Bound("check out 10,000 small files, beside twice a plain loop", seconds, 2 * plain_s)


def _write_and_link(contents: Mapping[str, bytes], folder: Path) -> None:
    """What installing files takes at least: write, sync, rename and link each, and sync the folders."""
    files, view = folder / "files", folder / "view"
    files.mkdir(parents=True)
    for number, data in enumerate(contents.values()):
        with open(files / f"{number}.tmp", "xb", buffering=0) as file:
            file.write(data)
            os.fsync(file.fileno())
        os.rename(files / f"{number}.tmp", files / str(number))
    for number, path in enumerate(contents):
        (view / path).parent.mkdir(parents=True, exist_ok=True)
        os.link(files / str(number), view / path)
    for place in (files, *view.iterdir()):
        fd = os.open(place, os.O_RDONLY)
        os.fsync(fd)
        os.close(fd)
