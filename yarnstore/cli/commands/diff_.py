"""`ystore diff`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from yarnstore.cli.command import Invocation, command
from yarnstore.cli.display import clean, size, table
from yarnstore.ops.inspecting.figures import (
    format_parameters,
    format_ratio,
    format_shape,
    format_share,
    shorten,
)
from yarnstore.progress import format_count, plural

if TYPE_CHECKING:
    from yarnstore.results import DiffResult, FileDiff, StatusCounts, TensorDiff

_SHOWN = 20


@command(
    "diff",
    example="ystore diff phi-3-mini@1.0.0 phi-3-mini@1.1.0\n"
    "ystore diff phi-3-mini@1.0.0 @1.1.0 --html changes.html\n"
    "ystore diff ./before.safetensors ./after.safetensors",
)
@click.argument("old")
@click.argument("new")
@click.option(
    "--html",
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help="Write an HTML page with a picture of the changes.",
)
def cli(run: Invocation, old: str, new: str, html: str | None) -> None:
    """Compare two versions, files or folders, tensor by tensor.

    OLD and NEW are specs or paths; NEW may be @VERSION, for another version of the same model.  A version
    that is not downloaded is fetched.  An argument is a path if it begins with a dot, or has no @ and exists.
    """
    with run.store() as store:
        found = store.diff(old, new, html=html)
    verbose, width = run.output.verbose, run.output.columns
    rows = _names(found) if run.output.quiet else _rows(found, verbose=verbose)
    run.output.report(found, lambda: _text(found, width, verbose=verbose), rows)
    if html is not None:
        run.output.say(f"picture written to {clean(html)}")


def _names(found: DiffResult) -> list[tuple[str]]:
    changed = [file.path for file in found.files if file.status != "same"]
    return [(name,) for name in (*changed, *(each.name for each in found.tensors if each.status != "same"))]


# --- piped ------------------------------------------------------------------------------------


def _rows(found: DiffResult, *, verbose: bool) -> list[Sequence[object]]:
    """Piped rows: the first column is the kind of the row, the second its status."""
    rows: list[Sequence[object]] = [
        ("file", f.status, f.path, f.old_path, f.format, f.size_bytes, f.old_size_bytes, f.bytes_changed)
        for f in found.files
    ]
    rows += [
        (
            *("tensor", t.status, t.name, t.old_name, t.file, t.dtype, format_shape(t.shape)),
            *(t.unit, t.units, t.units_changed, t.bytes_changed),
            *map(_digits, (t.relative_mean, t.relative_max, t.distance)),
        )
        for t in found.tensors
        if verbose or t.status != "same"
    ]
    total = found.totals
    counts = total.tensors
    rows.append(
        (
            *("total", counts.same, counts.changed, counts.added, counts.removed, counts.moved),
            *(total.parameters, total.parameters_changed, total.bytes, total.bytes_changed),
        )
    )
    return rows


def _digits(value: float | None) -> str | None:
    return None if value is None else f"{value:.6g}"


# --- for people -------------------------------------------------------------------------------


def _text(found: DiffResult, width: int | None, *, verbose: bool) -> str:
    blocks = [_headline(found), _files(found, width, verbose=verbose)]
    changed = [tensor for tensor in found.tensors if tensor.status != "same"]
    if changed:
        changed.sort(key=lambda tensor: tensor.rank())
        shown = changed if verbose else changed[:_SHOWN]
        header = ("TENSOR", "", "TYPE", "SHAPE", "CHANGED", "MEAN", "LARGEST", "DISTANCE")
        blocks.append(table(header, [_tensor_row(tensor) for tensor in shown], width))
        if len(shown) < len(changed):
            rest = format_count(len(changed) - len(shown))
            blocks[-1] += f"\n… and {rest} more   (-v lists all, --html FILE draws them)"
    broken = sum(tensor.broken for tensor in found.tensors)
    if broken:
        blocks.append(f"{plural(broken, 'element')} became infinite or NaN")
    return "\n\n".join(blocks)


def _headline(found: DiffResult) -> str:
    old, new, total = found.old, found.new, found.totals
    version = new.version if old.model == new.model and old.version != new.version else None
    first = f"{clean(old.label)} → {version or clean(new.label)}"
    if total.bytes_changed == 0 and set(_counts(total.files)) <= {"same"}:
        return f"{first}: no difference in {plural(total.files.same, 'file')}, {size(total.bytes)}"
    parts = []
    if found.tensors:
        share = format_share(total.parameters_changed, total.parameters)
        parts.append(f"{_said(total.tensors)} of {plural(len(found.tensors), 'tensor')}")
        parts.append(f"{share} of {format_parameters(total.parameters)} parameters")
    parts.append(f"{size(total.bytes_changed)} of {size(total.bytes)} differ")
    return f"{first}: {'; '.join(parts)}"


def _counts(counts: StatusCounts) -> dict[str, int]:
    words = ("changed", "added", "removed", "moved", "same")
    return {word: getattr(counts, word) for word in words if getattr(counts, word)}


def _said(counts: StatusCounts) -> str:
    return ", ".join(f"{format_count(count)} {word}" for word, count in _counts(counts).items())


def _files(found: DiffResult, width: int | None, *, verbose: bool) -> str:
    shown = [file for file in found.files if verbose or file.status != "same"]
    rows = [_file_row(file) for file in shown]
    rest = len(found.files) - len(shown)
    shown_lines = [table(("FILE", "", "SIZE", "DIFFERS", "TENSORS"), rows, width)] if rows else []
    if rest:
        shown_lines.append(f"{plural(rest, 'file')} unchanged")
    return "\n".join(shown_lines)


def _file_row(file: FileDiff) -> tuple[str, ...]:
    came = f" (was {clean(file.old_path)})" if file.old_path not in (None, file.path) else ""
    whole = file.status in ("added", "removed", "same", "moved")
    differs = (
        "–" if whole else f"{size(file.bytes_changed)} ({format_share(file.bytes_changed, file.size_bytes)})"
    )
    return clean(file.path) + came, file.status, size(file.size_bytes), differs, _said(file.tensors) or "–"


def _tensor_row(tensor: TensorDiff) -> tuple[str, ...]:
    kind, shape = tensor.dtype, format_shape(tensor.shape)
    if tensor.status == "changed":
        kind = kind if tensor.old_dtype in (None, kind) else f"{tensor.old_dtype} → {kind}"
        if tensor.old_shape not in (None, tensor.shape):
            shape = f"{format_shape(tensor.old_shape or ())} → {shape}"
        changed = format_share(tensor.units_changed, tensor.units)
        if tensor.unit != "elements":
            changed += f" of {tensor.unit}"
    else:
        changed = "–"
    name = shorten(clean(tensor.name))
    if tensor.status == "moved" and tensor.old_name != tensor.name:
        name += f" (was {shorten(clean(tensor.old_name))})"
    measures = (
        format_ratio(tensor.relative_mean),
        format_ratio(tensor.relative_max),
        format_ratio(tensor.distance),
    )
    return name, tensor.status, kind, shape, changed, *measures
