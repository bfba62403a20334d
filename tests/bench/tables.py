"""Each question of the benchmark: measures what it needs and makes its table."""

from __future__ import annotations

from pathlib import Path

from tests.bench import against, bounds, kernels, operations, peers, scale, space, startup, wire
from tests.bench.floors import NEEDS, Needs, cores
from tests.bench.operations import Measured
from tests.bench.plot import Bar
from tests.bench.primitives import middle_rate
from tests.bench.report import Report, Table, bold, marked, mebibytes, megabytes, percent, seconds, times
from tests.bench.serve import server_name
from tests.bench.wire import PairTiming
from tests.bench.workload import Model, minilm, real_model

_GOAL_WALL = 1.25
_MEMORY_THREADS = (2, 8, 16)
_GOAL_PEAK = "300 MiB"
_ROLLBACK_GOALS = "at most 10 ms inside and 150 ms as a command"


def primitives_table(report: Report, measured: Measured) -> None:
    rows = [
        (name, f"{rate.one / 1e9:.2f}", f"{rate.two / 1e9:.2f}" if rate.two else "–")
        for name, rate in measured.rates.items()
    ]
    rows.append(("synced writing", middle_rate(measured.write_rates), "–"))
    notes = (
        "GB/s of plain bytes, 1 MiB at a time; CPU time for one thread, elapsed time for two. `pack` and "
        "`unpack` are the entropy coding of an encoding without its transform.",
        "`write` writes into the page cache; `loopback` is the CPU time of sender and receiver, "
        "`receive` that of the receiver.",
        "Synced writing was measured before each round: median (lowest to highest).",
    )
    bars = tuple(Bar(name, rate.one / 1e9, f"{rate.one / 1e9:.2f}") for name, rate in measured.rates.items())
    title = f"Speed of this machine, on {measured.model}"
    key = f"primitives-{measured.model}"
    columns = ("primitive", "one thread", "two threads")
    report.add(Table(key, title, columns, rows, notes, bars, "GB/s, one thread"), measured.rates)


def operations_table(report: Report, measured: Measured) -> None:
    rows = []
    bars = []
    for timing in measured.timings.values():
        inside = f"{timing.inside_s * 1000:.1f} ms" if timing.operation == "rollback" else None
        goal = timing.floor.goal if timing.floor else None
        rows.append(
            (
                timing.operation,
                seconds(timing.seconds),
                inside or seconds(timing.inside_s),
                seconds(timing.cpu_s),
                seconds(timing.floor.cpu_s if timing.floor else None),
                marked(times(timing.over), times(goal)),
                times(goal),
                times(timing.over_parts),
                marked(times(timing.wall_over), times(_GOAL_WALL if goal else None)),
                mebibytes(timing.peak_bytes),
                megabytes(timing.written_bytes),
            )
        )
        if timing.over is not None:
            bars.append(Bar(timing.operation, timing.over, times(timing.over), ours=True))
    needs = (
        f"- `{name}`: {', '.join(need.raw)} for each raw byte; {', '.join(need.stored) or 'nothing'} for "
        f"each stored byte; writes {need.written}. For `parts` also {_moved(need)}"
        for name, need in NEEDS.items()
    )
    notes = (
        "`inside` is the time that the command reports, without start-up; `CPU time` is that of the process "
        "on all cores; `written` is all data written to the disk, in MB.",
        f"Versions are fetched over loopback HTTP from {server_name()}.",
        "The floor is the CPU time of hashing, of entropy coding (what zstd does, without the transforms "
        "that make its streams) and of writing into the page cache, by the rates above. From the CPU time, "
        "that of the same command on a model of 1.1 MB is subtracted; `over` is the rest divided by the "
        "floor, and `goal` the most it should be.",
        "`parts` is that rest divided by a sum that also counts the transforms, reading, and receiving over "
        "loopback: what is beyond 1.00 goes to Python, threads, locks and memory.",
        f"`wall` is `inside` divided by the longer of that rest on {cores()} cores and one SHA-256 of the "
        f"model; its goal is at most {_GOAL_WALL}. At most {_GOAL_PEAK} of memory; rollback "
        f"{_ROLLBACK_GOALS}.",
        "Before each operation, as much memory as it will use is touched, since the first access to a page "
        "can be slow on a virtual machine.",
        "What counts in the floor; `delta` is 1.1.0 from 1.0.0, `install` a checkout without a fetch before:",
        "",
        *needs,
    )
    columns = (
        "operation",
        "process",
        "inside",
        "CPU time",
        "floor",
        "over",
        "goal",
        "parts",
        "wall",
        "peak memory",
        "written",
    )
    title = f"Operations against their floors, on {measured.model}"
    table = Table(f"operations-{measured.model}", title, columns, rows, notes, tuple(bars), "floors")
    report.add(table, {"timings": measured.timings, "write_rates": measured.write_rates})


def _moved(need: Needs) -> str:
    found = [f"{', '.join(need.moved_raw)} for each raw byte"] if need.moved_raw else []
    found += [f"{', '.join(need.moved_stored)} for each stored byte"] if need.moved_stored else []
    return " and ".join(found)


def peers_table(
    report: Report, model: Model, measured: Measured, work: Path, repeats: int, python: str
) -> None:
    old, new = list(model.versions)[:2]
    store, restore = measured.timings[f"publish {new}"], measured.timings[f"checkout {new}"]
    raw_bytes = model.raw_bytes(new)
    found = []
    for peer in peers.installed_peers(python):
        print(f"{peer.name} on {model.name} …", flush=True)
        found.append(peers.measure_peer(peer, model.versions[old], model.versions[new], work, repeats))
    plain, whole = measured.timings[operations.full_packs(new)], measured.timings[f"checkout {old}"]
    rows = [
        (
            name,
            seconds(stored.seconds),
            seconds(stored.on_disk_s),
            times(stored.on_disk_s / plain.on_disk_s),
            seconds(restored.seconds),
            seconds(restored.on_disk_s),
            times(restored.on_disk_s / whole.on_disk_s),
            percent(came.stored_bytes, raw_bytes),
            mebibytes(max(stored.peak_bytes, restored.peak_bytes)),
        )
        for name, stored, restored, came in (
            ("ystore, full packs", plain, whole, plain),
            ("ystore, with a delta", store, restore, measured.timings[f"fetch {new}"]),
        )
    ]
    rows += [
        (
            timing.tool,
            seconds(timing.store_s),
            seconds(timing.store_on_disk_s),
            times(timing.store_on_disk_s / plain.on_disk_s),
            seconds(timing.restore_s),
            seconds(timing.restore_on_disk_s),
            times(timing.restore_on_disk_s / whole.on_disk_s),
            percent(timing.added_bytes, raw_bytes),
            mebibytes(timing.peak_bytes),
        )
        for timing in found
    ]
    bars = [Bar("ystore, store", plain.on_disk_s, seconds(plain.on_disk_s), ours=True)]
    bars += [Bar(f"{t.tool}, store", t.store_on_disk_s, seconds(t.store_on_disk_s)) for t in found]
    bars.append(Bar("ystore, restore", whole.on_disk_s, seconds(whole.on_disk_s), ours=True))
    bars += [Bar(f"{t.tool}, restore", t.restore_on_disk_s, seconds(t.restore_on_disk_s)) for t in found]
    notes = (
        f"`store`: add {new} to a repository that has {old} (`ystore publish`); `restore`: write the files "
        f"of {new} from this repository (`ystore checkout` of a fetched version).",
        "With full packs, `ystore` does the same work as the other tools, which store only new chunks. "
        "A delta is additional work that no other tool does; it makes the download smaller.",
        "`on disk` includes the sync that some tools leave to the system; `× ours` compares these times with "
        "those of `ystore` with full packs.",
        "`added` is the growth of the repository, for `ystore` the download of `fetch`, as a share of all "
        "files of the version.",
        "restic always encrypts; `ystore` and Xet also hash every file with SHA-256.",
    )
    columns = ("tool", "store", "on disk", "× ours", "restore", "on disk", "× ours", "added", "peak memory")
    title = f"Other tools at the same work, on {model.name}"
    table = Table(f"peers-{model.name}", title, columns, rows, notes, tuple(bars), "seconds, on disk")
    report.add(table, found)


def wire_tables(report: Report, work: Path, python: str) -> None:
    """What each real update costs on the wire; and times, for the first of them."""
    models = [
        minilm(),
        real_model("minilm-q4_0", "minilm-q4_0.gguf", "1.0.0", "1.1.0"),
        real_model("magika-onnx", "model.onnx", "3.0.0", "3.1.0"),
    ]
    found = []
    tools = peers.installed_peers(python)
    for pair in [pair for model in models if model for pair in wire.pairs_of(model)]:
        print(f"bytes of {pair.name} …", flush=True)
        found.append(wire.measure(pair, tools, work))
    if not found:
        return
    _wire_table(report, found)
    whole = peers.zipnn_whole(found[0].pair.old, python, work)
    _deltas_table(report, found[0], whole)


def _wire_table(report: Report, found: list[PairTiming]) -> None:
    rows = [
        (tool, *(percent(each.bytes_of(tool), each.pair.file_bytes) for each in found))
        for tool in _tools(found)
    ]
    first = found[0]
    bars = tuple(
        Bar(
            tool,
            100 * size / first.pair.file_bytes,
            percent(size, first.pair.file_bytes),
            ours=tool == "ystore",
        )
        for tool in _tools(found)
        if (size := first.bytes_of(tool)) is not None and tool != wire.ALL_SENT
    )
    notes = (
        "Bytes that a machine with the old version needs for the new one, as a share of the new model file.",
        "`ystore`: `download_bytes` of `fetch`; `all that was sent` also includes registry, manifest and "
        "indexes.",
        "borg, restic, casync and Xet: the growth of the repository. xdelta3 and zstd: the size of the "
        "delta, which works only for this pair of versions.",
        f"The plot shows {first.pair.name}.",
    )
    columns = ("tool", *(each.pair.name for each in found))
    report.add(Table("wire", "Download of an update", columns, rows, notes, bars, "% of the file"), found)


def _tools(found: list[PairTiming]) -> list[str]:
    return list(dict.fromkeys(tool for each in found for tool in each.tools))


def _deltas_table(report: Report, found: PairTiming, whole: tuple[int, float, float] | None) -> None:
    update, file_bytes = found.update, found.pair.file_bytes
    lines = [("ystore, publish and checkout", update.download_bytes, update.publish_s, update.checkout_s)]
    lines += [(delta.tool, delta.delta_bytes, delta.make_s, delta.apply_s) for delta in found.deltas]
    lines.append(("ystore, without a base", update.first_download_bytes, None, None))
    if whole:
        lines.append(("ZipNN, without a base", *whole))
    rows = [
        (tool, megabytes(size), percent(size, file_bytes), seconds(make_s), seconds(apply_s))
        for tool, size, make_s, apply_s in lines
    ]
    bars = tuple(
        Bar(tool, size / 1e6, f"{megabytes(size)} MB", ours=tool.startswith("ystore"))
        for tool, size, _, _ in lines
    )
    notes = (
        f"{found.pair.name}, {megabytes(file_bytes)} MB; one run each.",
        "ZipNN is timed in memory, without start-up; all others are timed as processes.",
        "`publish` also makes the full packs and the delta back.",
    )
    columns = ("tool", "MB", "share", "make", "apply")
    report.add(Table("deltas", "Deltas and whole files", columns, rows, notes, bars, "MB"), lines)


def sizes_table(report: Report, model: Model, work: Path, *, goals: bool) -> None:
    """Add the disk space of the versions of a model; with `goals`, also times, and what it may be."""
    found = space.at_rest(model, work)
    one = found.one_bytes
    rows: list[tuple[str, ...]] = []
    bars = []

    def add(name: str, size: int, goal: str, *took_s: float) -> None:
        rows.append((name, megabytes(size), f"{size / one:.2f}", goal, *map(seconds, took_s or (None, None))))
        bars.append(Bar(name, size / one, f"{size / one:.2f}", ours=not name.endswith("plain files")))

    add(f"{found.versions} versions as plain files", found.raw_bytes, "–")
    add("registry: packs", found.packs_bytes, "–")
    add("registry: deltas", found.deltas_bytes, "–")
    for policy, steps in found.steps.items():
        for n, (step, goal) in enumerate(zip(steps, space.GOALS[policy], strict=False)):
            what = f"update to {step.version}" if n else f"install of {step.version}"
            add(f"{policy}: {what}", step.disk_bytes, f"{goal:.2f}", step.result_s, step.process_s)
            if goals and step.disk_bytes > goal * one:
                report.over.append(f"disk space of {policy} after the {what}")
    notes = (
        "Disk space of a store after each command, in blocks as `du` counts them, with hard-linked files "
        "counted once; `gc` was not run.",
        "`instant` and `thin` are values of the setting `rollback`: with `instant`, the previous version "
        "keeps its files.",
        "`result` is the time that the command reports; `process` includes start-up and the work after the "
        "result: encoding older versions as deltas against the installed one.",
    )
    columns: tuple[str, ...] = ("what", "MB", "of one version", "goal", "result", "process")
    title = f"Disk space of all versions of {model.name}"
    key = "sizes"
    if not goals:
        key, notes = f"sizes-{model.name}", (model.note, *notes[:2])
        columns, rows = columns[:3], [row[:3] for row in rows]
    report.add(Table(key, title, columns, rows, notes, tuple(bars), "× one version"), found)


def startup_table(report: Report, work: Path) -> None:
    found = startup.measure(work)
    over = {
        name: (found[name] - found[reference], goal_ms)
        for name, (reference, goal_ms) in startup.REFERENCES.items()
    }
    rows = [
        (
            name,
            seconds(took),
            *([f"{1000 * over[name][0]:.0f} ms", f"{over[name][1]} ms"] if name in over else "––"),
        )
        for name, took in found.items()
    ]
    bars = tuple(
        Bar(name, 1000 * took, f"{1000 * took:.0f} ms", ours=True) for name, (took, _) in over.items()
    )
    notes = (
        "Medians of 15 runs; the commands take turns. Differences of a few ms, also below 0, are noise.",
        "The reference for `--version` is `import click`, for the others the longer list of imports.",
        "Commands that use the network also import httpx, without its own command line: "
        "[decision 0040](decisions/0040-what-libraries-do-at-their-start.md).",
    )
    columns = ("command", "process", "over its reference", "goal")
    table = Table("startup", "Start-up", columns, rows, notes, bars, "ms over the reference")
    report.add(table, found)


def scale_table(report: Report, work: Path) -> None:
    rows: list[tuple[str, ...]] = []
    bars = []
    data = {}
    for which, title in (("plan", "plan a fetch"), ("mark", "mark for gc")):
        parts, peak_bytes = scale.measure(which, work)
        total, cpu_s = (sum(column) for column in zip(*parts.values(), strict=True))
        if len(parts) > 1:
            rows += [(f"{title}: {name}", *map(seconds, took), "–") for name, took in parts.items()]
        cpu = bold(seconds(cpu_s), cpu_s > scale.TARGET_S)
        rows.append((title, seconds(total), cpu, mebibytes(peak_bytes)))
        bars.append(Bar(title, cpu_s, seconds(cpu_s), ours=True))
        data[which] = parts
    notes = (
        f"{scale.CHUNKS:,} chunks with random ids, of 262 GB, in packs of 256; indexes are read from files.",
        f"Goal of both: at most {scale.TARGET_S:g} s of CPU time, which the plot shows. Memory has no goal "
        "here.",
    )
    columns = ("what", "time", "CPU time", "peak memory")
    table = Table("scale", "A million chunks", columns, rows, notes, tuple(bars), "seconds", scale.TARGET_S)
    report.add(table, data)


def bounds_table(report: Report, work: Path) -> None:
    found = list(bounds.measure(work))
    rows = [(bound.name, seconds(bound.took_s), seconds(bound.most_s)) for bound in found]
    report.over += [bound.name for bound in found if bound.took_s > bound.most_s]
    notes = (
        "The fastest of three runs, of the 10,000 files one; the benchmark fails if a time exceeds its "
        "bound.",
        "The bound of their checkout is twice the time of a loop that writes, syncs, renames and links the "
        "same files.",
        "A rollback syncs six times, each before the next step begins ([order of writing](design.md#order)), "
        "so a disk on which a sync takes 1 ms or longer exceeds its bound.",
    )
    report.add(Table("bounds", "Bounds", ("what", "time", "at most"), rows, notes), found)


def kernels_table(report: Report) -> None:
    found = kernels.measure()
    rows = [
        (
            speed.name,
            *(f"{speed.rates[name] / 1e9:.2f}" if name in speed.rates else "–" for name in ("numpy", "c")),
            bold(f"{speed.ratio:.2f}", speed.ratio < (speed.goal or 0)),
            f"{speed.goal:g}" if speed.goal else "–",
        )
        for speed in found
    ]
    notes = (
        "GB/s of CPU time of one thread for 1 MiB of bf16; `ratio` is C over numpy. Rows without `transform` "
        "include zstd, which is the same in both.",
        "Goals, at least: deltas with zstd, and planes without it, since it takes most of their time.",
    )
    columns = ("task", "numpy", "C", "ratio", "goal")
    bars = tuple(Bar(speed.name, speed.ratio, f"{speed.ratio:.2f}", ours=True) for speed in found)
    report.add(Table("kernels", "Kernels", columns, rows, notes, bars, "times numpy's speed", 2.5), found)


def against_table(report: Report, model: Model, other: Path, work: Path, repeats: int) -> None:
    runs = against.measure(model, other, work, repeats)
    rows: list[tuple[str, ...]] = []
    bars = []
    for operation, of in runs.items():
        cells = []
        for field in ("seconds", "cpu_s"):
            before, now = (against.middle(of[which], field) for which in ("before", "now"))
            cells += [seconds(before), seconds(now), f"{now / before:.2f}"]
        rows.append((operation, *cells))
        bars.append(Bar(operation, float(cells[-1]), cells[-1], ours=True))
    notes = (
        "Processes with all they do after their result, in turn, each release in a registry and a store of "
        "its own. A ratio below 1 is faster.",
        f"`before` is the commit that the command names, `now` the one at the end of its line; "
        f"versions come over loopback HTTP from {server_name()}.",
    )
    columns = ("operation", "before", "now", "ratio", "CPU before", "CPU now", "ratio of CPU")
    title = f"This release beside an earlier one, on {model.name}"
    table = Table(
        f"against-{model.name}", title, columns, rows, notes, tuple(bars), "× the CPU time before", 1.0
    )
    report.add(table, runs)


def memory_table(report: Report, model: Model, work: Path) -> None:
    peaks = {threads: operations.peak_memory(model, work, threads) for threads in _MEMORY_THREADS}
    names = list(peaks[_MEMORY_THREADS[0]])
    rows = [(name, *(mebibytes(peaks[threads][name]) for threads in _MEMORY_THREADS)) for name in names]
    most = {name: max(found[name] for found in peaks.values()) for name in names}
    bars = tuple(Bar(name, size / (1 << 20), mebibytes(size), ours=True) for name, size in most.items())
    notes = (
        "One run of each; `YSTORE_THREADS` sets the threads; the plot has the highest.",
        f"Goal: at most {_GOAL_PEAK}.",
    )
    title = f"Peak memory on {model.name}"
    columns = ("operation", *(f"{threads} threads" for threads in _MEMORY_THREADS))
    report.add(Table("memory", title, columns, rows, notes, bars, "MiB", 300), peaks)
