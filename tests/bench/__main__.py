"""The command line of the benchmark: `make bench ARGS="--size-gb 0.1 --repeats 1 --out /tmp/b"`."""

from __future__ import annotations

import argparse
import shlex
import shutil
import signal
import sys
import tempfile
from pathlib import Path

from tests.bench import operations, tables, updates, ways
from tests.bench.report import Report, machine
from tests.bench.workload import made_model, magika, minilm, reshaped_model

_DOCS = Path(__file__).resolve().parents[2] / "docs"
_PATHS = ("--against", "--out", "--peer-python", "--work")
_SECTIONS = (
    *("operations", "peers", "wire", "ways", "updates", "sizes", "startup", "scale", "kernels"),
    "bounds",
)


def main() -> None:
    args = _arguments()
    report = Report(_command(sys.argv[1:]), machine(), args.out)
    print(report.machine)
    # A terminated run tidies up as an interrupted one does.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    work = Path(tempfile.mkdtemp(dir=args.work, prefix="ystore-bench-"))
    try:
        if args.memory_gb:
            tables.memory_table(report, made_model(work, args.memory_gb), work)
        elif args.against and args.only == ["updates"]:
            updates.against_table(report, args.against, work)
        elif args.against:
            for model in filter(None, (minilm(), made_model(work, args.size_gb))):
                tables.against_table(report, model, args.against, work, args.repeats)
        else:
            _measure(args, report, work)
    finally:
        shutil.rmtree(work)
    if args.out:
        print(f"\nwritten: {args.out / 'benchmarks.md'}")
    if report.over:
        sys.exit(f"over its bound: {', '.join(report.over)}")


def _command(arguments: list[str]) -> str:
    """The command as the page shows it: a path is that of one machine, so its name stands for it."""
    shown = [
        before.removeprefix("--").upper() if before in _PATHS else word
        for before, word in zip(["", *arguments], arguments, strict=False)
    ]
    return "make bench" + (f' ARGS="{shlex.join(shown)}"' if shown else "")


def _measure(args: argparse.Namespace, report: Report, work: Path) -> None:
    real = minilm()
    if {"operations", "peers"} & set(args.only):
        for model in filter(None, (real, made_model(work, args.size_gb))):
            print(f"operations on {model.name} …", flush=True)
            measured = operations.measure(model, work, args.repeats)
            if "operations" in args.only:
                tables.primitives_table(report, measured)
                tables.operations_table(report, measured)
            if "peers" in args.only:
                tables.peers_table(report, model, measured, work, args.repeats, args.peer_python)
    if "wire" in args.only:
        tables.wire_tables(report, work, args.peer_python)
    if "ways" in args.only:
        ways.ways_table(report, work)
    if "updates" in args.only:
        updates.updates_table(report, work)
    if "sizes" in args.only:
        for model in filter(None, (real, reshaped_model(work), magika())):
            tables.sizes_table(report, model, work, goals=model is real)
    if "startup" in args.only:
        tables.startup_table(report, work)
    if "scale" in args.only:
        tables.scale_table(report, work)
    if "kernels" in args.only:
        tables.kernels_table(report)
    if "bounds" in args.only:
        tables.bounds_table(report, work)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--size-gb", type=float, default=1.0, help="size of the made model (1)")
    parser.add_argument("--repeats", type=int, default=3, help="rounds of which the median counts (3)")
    parser.add_argument(
        "--only",
        nargs="+",
        choices=_SECTIONS,
        default=_SECTIONS,
        metavar="SECTION",
        help=", ".join(_SECTIONS),
    )
    parser.add_argument(
        "--against",
        type=Path,
        help="only a comparison with another release's `ystore`: of times, or with `--only updates` of bytes",
    )
    parser.add_argument("--work", type=Path, help="folder on the disk to be measured (the temporary folder)")
    parser.add_argument(
        "--out", type=Path, help="folder whose page and plots are updated (docs/ in a full run, else none)"
    )
    parser.add_argument("--memory-gb", type=float, help="only the peak memory, on a made model of that size")
    parser.add_argument(
        "--peer-python", default=sys.executable, help="an interpreter with hf_xet and zipnn (this one)"
    )
    args = parser.parse_args()
    for command in filter(None, (args.against, args.peer_python)):
        if shutil.which(command) is None:
            parser.error(f"{command} is no command")
    if args.out is None and args.only == _SECTIONS and not args.memory_gb and not args.against:
        args.out = _DOCS
    return args


if __name__ == "__main__":
    main()
