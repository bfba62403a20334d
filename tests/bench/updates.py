"""What an update downloads, by what changed: beside zstd --patch-from, xdelta3, and XOR in byte planes."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import zstandard
from numpy.typing import NDArray

from tests.bench.entropy import fine_tuned_share, fresh_share, quants_bits, stepped_share
from tests.bench.plot import Bar
from tests.bench.process import Run, ystore, ystore_path
from tests.bench.report import Report, Table, marked, percent
from tests.bench.serve import serve
from tests.support.deflated import gzipped, hdf5, npz, zipped
from tests.support.reshaped import (
    AVERAGED_SHARE,
    EMBEDDING,
    Q8_0_BYTES,
    Q8_0_WEIGHTS,
    TUNED_SHARE,
    Files,
    Weights,
    adapter,
    as_type,
    averaged,
    convolutions,
    edited,
    fine_tuned,
    fused,
    gguf_q8_0,
    int8_per_channel,
    made,
    one_file,
    onnx,
    pruned,
    quantised,
    renamed,
    retrained,
    safetensors,
    sharded,
    stacked,
    stepped,
    texts,
    torch_archive,
    torch_pickle,
    transposed,
    values,
    with_layer,
    with_prefix,
    with_rows,
    with_typos,
    without_rows,
)
from yarnstore import Store

_LAYERS, _WIDTH, _VOCABULARY = 8, 448, 6000
_MODEL = "updated"
_PEERS = {
    "zstd -19 --patch-from": (
        "zstd",
        "-q",
        "-f",
        "-19",
        "--long=27",
        "--patch-from={old}",
        "{new}",
        "-o",
        "{delta}",
    ),
    "xdelta3 -9": ("xdelta3", "-f", "-9", "-e", "-s", "{old}", "{new}", "{delta}"),
}


_SAMPLED_WEIGHTS = 6400


@dataclass(frozen=True)
class Update:
    """One change: what an update downloads, the files' bytes, the goal, what peers make of it, and the
    entropy of what is new if that is known.

    Without a goal of its own it is what the best peer makes of it.
    """

    name: str
    download_bytes: int
    file_bytes: int
    goal_share: float | None
    peers: dict[str, int | None]
    entropy_share: float | None = None

    @property
    def goal(self) -> str:
        if self.goal_share is not None:
            return f"{100 * self.goal_share:.1f} %"
        return percent(min(size for size in self.peers.values() if size is not None), self.file_bytes)


@dataclass(frozen=True)
class _Case:
    name: str
    goal_share: float | None
    old: Callable[[], Files]
    new: Callable[[], Files]
    counts_all: bool = False  # manifest, indexes and the registry too, and not only packs
    entropy_share: float | None = None  # no coder needs less


# Their shares are of files that deflate makes smaller by a tenth or more.
_COMPRESSED: dict[str, Callable[[Weights], Files]] = {
    "`np.savez_compressed`, f16": lambda weights: {"model.npz": npz(as_type(weights, "<f2"))},
    "zip of safetensors": lambda weights: {"model.zip": zipped(one_file(weights), 6)},
    "gzip'd safetensors": lambda weights: {"model.safetensors.gz": gzipped(safetensors(weights), 6)},
    "HDF5, gzip 4": lambda weights: {
        "model.h5": hdf5(b"".join(array.tobytes() for array in weights.values()))
    },
}


def _cases() -> Iterator[_Case]:
    base = made(layers=_LAYERS, width=_WIDTH, vocabulary=_VOCABULARY)
    tuned = fine_tuned(base)

    moved_share, whole_share = fine_tuned_share(base[EMBEDDING], TUNED_SHARE), fresh_share(base[EMBEDDING])

    def case(name: str, goal: float | None, new: Weights) -> _Case:
        return _Case(name, goal, lambda: one_file(base), lambda: one_file(new))

    def moved(name: str, new: Weights, *, goal: float = 0.155, fresh: float = 0.0) -> _Case:
        least = moved_share * (1 - fresh) + whole_share * fresh
        return replace(case(name, goal, new), entropy_share=least)

    yield moved("fine-tuned, same names", tuned)
    yield moved("all names and their order changed, fine-tuned", renamed(tuned))
    yield _Case(
        "3 shards → 2 shards, fine-tuned",
        0.155,
        lambda: sharded(base, 3),
        lambda: sharded(tuned, 2),
        entropy_share=moved_share,
    )
    layer = with_layer(tuned, _LAYERS // 2)
    fresh = 1 - sum(a.nbytes for a in base.values()) / sum(a.nbytes for a in layer.values())
    # The new layer is downloaded whole, at 0.8 of its size.
    goal = 0.155 * (1 - fresh) + 0.8 * fresh
    yield moved("layer inserted, fine-tuned", layer, goal=goal, fresh=fresh)
    yield moved("9 rows in front of the embedding, fine-tuned", with_rows(tuned, 9))
    yield case("queries, keys and values fused, same", 0.001, fused(base))
    yield moved("queries, keys and values fused, fine-tuned", fused(tuned))
    yield moved("matrices of all layers stacked, fine-tuned", stacked(tuned))
    yield case("one of 25 rows of the embedding removed, fine-tuned", None, without_rows(tuned, 25))
    half, wide = as_type(base, "<f2"), as_type(base, "<f4")
    yield case("same weights, bf16 → f16", 0.01, half)
    yield case("same weights, bf16 → f32", 0.01, wide)
    yield _Case("same weights, f32 → bf16", 0.01, lambda: one_file(wide), lambda: one_file(base))
    wide_tuned = as_type(tuned, "<f4")
    yield _Case(
        "f32 of 16-bit values, fine-tuned",
        0.08,
        lambda: one_file(wide),
        lambda: one_file(wide_tuned),
        entropy_share=moved_share / 2,
    )
    rows = values(base[EMBEDDING]), values(tuned[EMBEDDING])
    eights = [{"model.gguf": gguf_q8_0(weights)} for weights in (base, tuned)]
    blocks = [array.reshape(-1, Q8_0_WEIGHTS) for array in rows]
    least = _quants_share(*blocks, "<f2") * Q8_0_WEIGHTS / Q8_0_BYTES
    yield _Case("Q8_0, fine-tuned", 0.084, lambda: eights[0], lambda: eights[1], entropy_share=least)
    channels = [one_file(int8_per_channel(weights)) for weights in (base, tuned)]
    least = _quants_share(*rows, "<f4")
    yield _Case(
        "int8 per channel, fine-tuned", 0.082, lambda: channels[0], lambda: channels[1], entropy_share=least
    )
    torches = [{"model.pt": torch_pickle(weights, seed)} for seed, weights in enumerate((base, tuned))]
    # Its plain form may take 15.5 %.
    yield _Case("PyTorch file from before 1.6, fine-tuned", 0.185, lambda: torches[0], lambda: torches[1])
    for kind, packed in _COMPRESSED.items():
        new = packed(tuned)
        # The same bytes, as a share of what deflate leaves of the weights.
        least = moved_share * sum(bits.nbytes for bits in tuned.values()) / sum(map(len, new.values()))
        yield _Case(
            f"{kind}, fine-tuned", 0.185, partial(packed, base), partial(dict, new), entropy_share=least
        )
    small = adapter(layers=24, width=768)
    renamed_small = with_prefix(fine_tuned(small))
    yield _Case(
        "LoRA adapter, a prefix before all names, fine-tuned",
        0.155,
        partial(one_file, small),
        partial(one_file, renamed_small),
        entropy_share=moved_share,
    )
    yield _Case(
        "LoRA adapter, all names and their order changed, fine-tuned",
        0.155,
        partial(one_file, small),
        partial(one_file, renamed(fine_tuned(small))),
        entropy_share=moved_share,
    )
    least = fine_tuned_share(base[EMBEDDING], AVERAGED_SHARE)
    yield replace(case("averaged checkpoints", 0.035, averaged(base)), entropy_share=least)
    least = stepped_share(0.1)
    yield replace(case("10 % of weights moved by one step", 0.04, stepped(base)), entropy_share=least)
    yield case("pruned to 2:4", 0.06, pruned(base))
    yield case("transposed, same", 0.005, transposed(base))
    yield moved("transposed, fine-tuned", transposed(tuned))
    torch = convolutions(380_000)
    yield _Case(
        "PyTorch archive of 1.5 MB, three quarters of its tensors retrained",
        None,
        lambda: {"model.pt": torch_archive(torch)},
        lambda: {"model.pt": torch_archive(retrained(torch, 0.75))},
    )
    graph = convolutions(500_000)
    yield _Case(
        "ONNX of 2 MB, 100 numbers changed",
        None,
        lambda: {"model.onnx": onnx(graph)},
        lambda: {"model.onnx": onnx(edited(graph, 100))},
    )
    notes = texts(10_000, 4096)
    yield _Case(
        "10,000 texts of 4 KiB, a letter of each changed",
        0.08,
        lambda: notes,
        lambda: with_typos(notes),
        counts_all=True,
    )


def _quants_share(before: NDArray[np.float32], after: NDArray[np.float32], scale_type: str) -> float:
    """The entropy of the quants of weights after a fine-tune, as a share of their bytes, from a sample of
    rows with a scale each.
    """
    count = -(-_SAMPLED_WEIGHTS // before.shape[1])
    scales, quants = quantised(before[:count], scale_type)
    new_scales, _ = quantised(after[:count], scale_type)
    old, new = (
        np.broadcast_to(some.astype(np.float64)[:, None], quants.shape) for some in (scales, new_scales)
    )
    deviation = float(before.std())
    return quants_bits(quants.astype(int), old, new, deviation, TUNED_SHARE * deviation) / 8


def measure(work: Path) -> list[Update]:
    """Publish and update each case."""
    found = []
    for case in _cases():
        folder = work / "updates"
        old, new = case.old(), case.new()
        registry = folder / "registry"
        for version, source in _sources(folder, old, new).items():
            Store.publish(source, f"{_MODEL}@{version}", registry=registry)
        with serve(registry, folder) as server, Store.open(folder / "home") as store:
            store.add_registry("here", server.url)
            store.checkout(f"{_MODEL}@1.0.0")
            server.sent_bytes()
            came = store.checkout(f"{_MODEL}@1.1.0").download_bytes
            sent = server.sent_bytes()
            path = Path(store.path(_MODEL))
            for name, content in new.items():
                assert (path if path.is_file() else path / name).read_bytes() == content
        size = sum(map(len, new.values()))
        counted = sent if case.counts_all else came
        if counted is not None:  # the server may not say what it sent
            peers = _peers(folder, old, new)
            found.append(Update(case.name, counted, size, case.goal_share, peers, case.entropy_share))
        shutil.rmtree(folder)
    return found


def _share_by(command: str | Path, case: _Case, folder: Path, work: Path) -> float:
    """What the update of a case by a release's `command` downloads, as a share of its files."""
    old, new = case.old(), case.new()

    def run(*args: str | Path) -> Run:
        return ystore(folder / "home", *args, work=work, command=command)

    for version, source in _sources(folder, old, new).items():
        run("publish", source, f"{_MODEL}@{version}", "--registry", folder / "registry")
    with serve(folder / "registry", folder) as server:
        run("registry", "add", "here", server.url)
        run("checkout", f"{_MODEL}@1.0.0")
        server.sent_bytes()
        came = run("checkout", f"{_MODEL}@1.1.0").json()["download_bytes"]
        sent = server.sent_bytes()
    counted = sent if case.counts_all and sent is not None else came
    return counted / sum(map(len, new.values()))


def _sources(folder: Path, old: Files, new: Files) -> dict[str, Path]:
    """Write the files of both versions: their folders, by version."""
    sources = {"1.0.0": folder / "1.0.0", "1.1.0": folder / "1.1.0"}
    for source, files in zip(sources.values(), (old, new), strict=True):
        for name, content in files.items():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes(content)
    return sources


def _peers(folder: Path, old: Files, new: Files) -> dict[str, int | None]:
    """What other delta coders make of all files, one after the other; None for one that is not installed."""
    places = {name: folder / f"{name}.bin" for name in ("old", "new", "delta")}
    before, after = (b"".join(files[path] for path in sorted(files)) for files in (old, new))
    places["old"].write_bytes(before)
    places["new"].write_bytes(after)
    sizes: dict[str, int | None] = {}
    for tool, command in _PEERS.items():
        sizes[tool] = None
        if shutil.which(command[0]) is not None:
            subprocess.run([word.format(**places) for word in command], check=True)
            sizes[tool] = places["delta"].stat().st_size
    sizes["XOR planes"] = _xor_planes(before, after)
    return sizes


def _xor_planes(old: bytes, new: bytes) -> int:
    """The size of the XOR of two files of 16-bit numbers, as byte planes in zstd, with what is longer."""
    count = min(len(old), len(new)) // 2 * 2
    words = np.frombuffer(old[:count], "<u2") ^ np.frombuffer(new[:count], "<u2")
    planes = words.view(np.uint8).reshape(-1, 2).T
    coder = zstandard.ZstdCompressor(level=3)
    return sum(len(coder.compress(part)) for part in (*(p.tobytes() for p in planes), new[count:]))


def against_table(report: Report, other: Path, work: Path) -> None:
    """Add what updates download by this release, beside an earlier one."""
    rows = []
    for case in _cases():
        shares = []
        for command in (other, ystore_path()):
            with tempfile.TemporaryDirectory(dir=work, prefix="updates-") as folder:
                shares.append(_share_by(command, case, Path(folder), work))
        before, now = shares
        rows.append((case.name, percent(before, 1), percent(now, 1), f"{now / before:.2f}"))
    bars = tuple(Bar(row[0], float(row[3]), row[3], ours=True) for row in rows)
    notes = (
        "The same models as in the table of updates, each published and installed by both releases.",
        "`before` is the release that the command names.",
    )
    columns = ("what changed", "before", "now", "ratio")
    title = "Updates, by what changed, beside an earlier release"
    report.add(Table("updates-against", title, columns, rows, notes, bars, "× the bytes before", 1.0), rows)


def updates_table(report: Report, work: Path) -> None:
    """Add the table of what updates download."""
    _add_table(report, measure(work))


def _add_table(report: Report, found: list[Update]) -> None:
    peers = list(found[0].peers)
    rows = [
        (
            update.name,
            marked(percent(update.download_bytes, update.file_bytes), update.goal),
            update.goal,
            "–" if update.entropy_share is None else f"{100 * update.entropy_share:.1f} %",
            *(percent(update.peers[tool], update.file_bytes) for tool in peers),
        )
        for update in found
    ]
    bars = tuple(
        Bar(update.name, 100 * update.download_bytes / update.file_bytes, row[1].strip("*"), ours=True)
        for update, row in zip(found, rows, strict=True)
    )
    notes = (
        f"Made bf16 models of {_LAYERS} layers of width {_WIDTH}, {found[0].file_bytes / 1e6:.0f} MB "
        "(`tests/support/reshaped.py`); a fine-tune moves each weight by a random step, of 0.4 % of its "
        "tensor's standard deviation.",
        "`download_bytes` of `checkout`, as a share of the version's files; installed files were compared.",
        "Of the texts all that the server sent counts: registry, manifest, indexes and packs; most of it is "
        "hashes.",
        "Entropy: that of the new weights, calculated from the distribution of the steps, with the older "
        "weights known, and the scales of quants (`tests/bench/entropy.py`). No coder needs less on average, "
        "so a goal below it cannot be reached.",
        "Goal: at most that share; for the PyTorch archive, ONNX and removed rows, what the best peer "
        "needs. The new weights of the inserted layer, 9.7 % of the file, may take 80 % of their size, the "
        "others 15.5 %.",
        "Peers get all files of a version one after the other. `XOR planes`: XOR with the older file, byte "
        "by byte, in two byte planes, each by zstd -3.",
    )
    columns = ("what changed", "ystore", "goal", "entropy", *peers)
    report.add(Table("updates", "Updates, by what changed", columns, rows, notes, bars, "%"), found)
