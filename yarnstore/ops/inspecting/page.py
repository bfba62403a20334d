"""Write a comparison as one HTML page: figures, a picture, tables.

The page is one file that loads nothing and runs nothing, follows the system's light or dark theme, and stays
below 3 MB for any model.  All text in it is escaped.  Its style sheet is `diff.css`; its colours have one
hue, so that larger changes stand out in both themes.  Leaves the drawing to `picture`.
"""

from __future__ import annotations

import importlib.resources
import os
from collections.abc import Iterable, Sequence

from yarnstore._version import __version__
from yarnstore.ops.inspecting.diff import DiffResult, FileDiff, StatusCounts
from yarnstore.ops.inspecting.figures import (
    format_parameters,
    format_ratio,
    format_shape,
    format_share,
    shorten,
)
from yarnstore.ops.inspecting.picture import CLASSES, Scale, draw_block, draw_strip, escape, find_blocks
from yarnstore.ops.inspecting.tensors import TensorDiff
from yarnstore.progress import format_count, format_size
from yarnstore.store import fsio
from yarnstore.store.filepath import Path

_TENSOR_ROWS = 400
_FILE_ROWS = 200
_NAME_CHARS = 96


def write_page(found: DiffResult, path: Path) -> None:
    """Write the page, replacing an existing file.  Raises: StorageError."""
    # The reader's own folder may be a link to another.
    folder = Path(os.path.realpath(path.parent))
    fsio.write_atomic(folder / path.name, render_page(found).encode(), tmp_dir=folder)


def _style_sheet() -> str:
    """Return the style sheet of the page, a data file of this package."""
    return importlib.resources.files(__package__).joinpath("diff.css").read_text(encoding="utf-8")


def render_page(found: DiffResult) -> str:
    """Return the HTML of the page."""
    scale = Scale.of(found.tensors)
    title = " → ".join(_names(found))
    sections = [_header(found), _tiles(found), _picture(found, scale), _files(found.files)]
    sections += [_tensors(found.tensors), _footer(found)]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{escape(title)}</title><style>\n{_style_sheet()}</style></head>\n<body><main>\n"
        + "\n".join(filter(None, sections))
        + "\n</main></body></html>\n"
    )


def _names(found: DiffResult) -> tuple[str, str]:
    """Return the name of the old side, and the new one without what both have in common."""
    old, new = found.old, found.new
    version = new.version if old.model == new.model and old.version != new.version else None
    return old.label, version or new.label


def _header(found: DiffResult) -> str:
    old, new = map(escape, _names(found))
    return f'<header><p class="over">ystore diff</p><h1>{old} <span>→</span> {new}</h1></header>'


def _tiles(found: DiffResult) -> str:
    totals = found.totals
    tiles = []
    if found.tensors:
        counts = totals.tensors
        rest = _said(counts, ("same", "added", "removed", "moved"))
        tiles += [
            _tile(
                format_count(counts.changed), f"of {format_count(len(found.tensors))} tensors changed", rest
            ),
            _tile(
                format_share(totals.parameters_changed, totals.parameters),
                f"of {format_parameters(totals.parameters)} parameters changed",
                f"{format_parameters(totals.parameters_changed)} of them",
            ),
        ]
    sizes = f"{format_size(found.old.size_bytes)} before, {format_size(found.new.size_bytes)} now"
    tiles.append(_tile(format_size(totals.bytes_changed), f"of {format_size(totals.bytes)} differ", sizes))
    most = max(found.tensors, key=lambda tensor: tensor.distance or 0.0, default=None)
    if most is not None and most.distance:
        name = f"<code>{escape(shorten(most.name, 44))}</code>"
        tiles.append(_tile(format_ratio(most.distance), "the largest distance of a tensor", name))
    broken = sum(tensor.broken for tensor in found.tensors)
    if broken:
        tiles.append(_tile(format_count(broken), "elements became infinite or NaN", "", warn=True))
    return f'<section class="tiles">{"".join(tiles)}</section>'


def _tile(figure: str, text: str, detail: str, *, warn: bool = False) -> str:
    """Return one tile with a figure; `detail` is HTML."""
    kind = "tile warn" if warn else "tile"
    return f'<div class="{kind}"><b>{escape(figure)}</b><p>{escape(text)}</p><small>{detail}</small></div>'


def _said(counts: StatusCounts, words: Iterable[str]) -> str:
    return ", ".join(
        f"{format_count(getattr(counts, word))} {word}" for word in words if getattr(counts, word)
    )


# --- the picture ------------------------------------------------------------------------------


def _picture(found: DiffResult, scale: Scale) -> str:
    blocks = find_blocks(found.tensors)
    if not blocks:
        return ""
    parts = ["<h2>What changed, and how much</h2>", _legend(scale)]
    parts.append("<h3>From the first byte to the last</h3>" + draw_strip(found.tensors, scale))
    for block in blocks:
        stack = len(block.columns) > 1
        name = f"<code>{escape(shorten(block.heading))}</code>"
        heading = f"Layers of {name}" if stack else escape(block.heading).capitalize()
        parts.append(f"<h3>{heading}</h3>{draw_block(block, scale)}")
    removed = found.totals.tensors.removed
    if removed:
        parts.append(f'<p class="note">Not drawn: {removed} removed.</p>')
    return f'<section class="card picture">{"".join(parts)}</section>'


def _legend(scale: Scale) -> str:
    if scale.by_distance:
        what = "Distance: the length of the difference of a tensor, divided by its old length."
    else:
        what = "Share of a tensor’s bytes that differ."
    steps = [f'<i class="c{n}"></i><span>{format_ratio(edge)}</span>' for n, edge in enumerate(scale.edges)]
    ramp = "".join(steps) + f'<i class="c{CLASSES - 1}"></i>'
    keys = "".join(
        f'<span class="key"><i class="{kind}"></i>{word}</span>'
        for kind, word in (("same", "the same"), ("added", "new"), ("odd", "changed, not measured"))
    )
    return (
        f'<div class="legend"><p>{what}</p><div class="ramp">{ramp}</div><div class="keys">{keys}</div></div>'
    )


# --- tables -----------------------------------------------------------------------------------


def _table(header: Sequence[str], rows: Iterable[Sequence[str]], sorted_by: str) -> str:
    """Return a table; `rows` are HTML, and the column `sorted_by` is marked."""
    heads = "".join(
        f'<th aria-sort="descending">{name} <em>▾</em></th>' if name == sorted_by else f"<th>{name}</th>"
        for name in header
    )
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>\n" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{heads}</tr></thead><tbody>\n{body}</tbody></table></div>'


def _mark(status: str) -> str:
    return f'<span class="mark {status}">{status}</span>'


def _bar(part: int, whole: int) -> str:
    share = part / whole if whole else 0.0
    width = 0 if not share else max(1.0, 100 * share)
    return f'<span class="bar"><i style="width:{width:.0f}%"></i></span> {format_share(part, whole)}'


def _files(files: Sequence[FileDiff]) -> str:
    ranked = sorted(files, key=lambda file: (file.status == "same", -file.bytes_changed))
    rows = [
        (
            f"<code>{escape(shorten(file.path, _NAME_CHARS))}</code>{_was(file.old_path, file.path)}",
            _mark(file.status),
            format_size(file.size_bytes),
            _bar(file.bytes_changed, file.size_bytes) if file.status == "changed" else "–",
            escape(file.format or "–"),
        )
        for file in ranked[:_FILE_ROWS]
    ]
    header = ("File", "", "Size", "Differs", "Format")
    rest = _rest(len(files) - len(rows), "files")
    return f'<section class="card"><h2>Files</h2>{_table(header, rows, "Differs")}{rest}</section>'


def _tensors(tensors: Sequence[TensorDiff]) -> str:
    changed = sorted((each for each in tensors if each.status != "same"), key=TensorDiff.rank)
    if not changed:
        return ""
    header = ("Tensor", "", "Type", "Shape", "Changed", "Mean", "Largest", "Distance")
    rows = [_tensor_row(tensor) for tensor in changed[:_TENSOR_ROWS]]
    rest = _rest(len(changed) - len(rows), "tensors")
    table = _table(header, rows, "Distance")
    return f'<section class="card"><h2>Tensors</h2>{table}{rest}</section>'


def _tensor_row(tensor: TensorDiff) -> Sequence[str]:
    dtype, shape = tensor.dtype, format_shape(tensor.shape)
    if tensor.status == "changed" and tensor.old_dtype != tensor.dtype:
        dtype = f"{tensor.old_dtype} → {dtype}"
    if tensor.status == "changed" and tensor.old_shape not in (None, tensor.shape):
        shape = f"{format_shape(tensor.old_shape or ())} → {shape}"
    return (
        f"<code>{escape(shorten(tensor.name, _NAME_CHARS))}</code>{_was(tensor.old_name, tensor.name)}",
        _mark(tensor.status),
        escape(dtype),
        escape(shorten(shape, 48)),
        _bar(tensor.units_changed, tensor.units) if tensor.status == "changed" else "–",
        format_ratio(tensor.relative_mean),
        format_ratio(tensor.relative_max),
        f"<b>{format_ratio(tensor.distance)}</b>",
    )


def _was(old: str | None, new: str) -> str:
    if old is None or old == new:
        return ""
    return f"<small>was <code>{escape(shorten(old, _NAME_CHARS))}</code></small>"


def _rest(count: int, noun: str) -> str:
    return (
        f'<p class="note">… and {format_count(count)} more {noun}: <code>ystore diff --json</code></p>'
        if count > 0
        else ""
    )


def _footer(found: DiffResult) -> str:
    words = (
        "<b>Changed</b> is the share of elements whose bytes differ; for quantised types, of blocks. "
        "<b>Mean</b> and <b>Largest</b> are the mean and the maximum of |new − old| / |old| over all "
        "elements that were not zero and are finite. <b>Distance</b> is ‖new − old‖ / ‖old‖ of the whole "
        "tensor as a vector; single values near zero do not inflate it."
    )
    sides = "".join(
        f"<p>{escape(side.label)}: <code>{escape(side.manifest or side.path or '')}</code></p>"
        for side in (found.old, found.new)
    )
    return f"<footer><p>{words}</p>{sides}<p>yarnstore {escape(__version__)}</p></footer>"
