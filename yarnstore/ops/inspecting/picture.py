"""The picture of a comparison: which parts of a model changed, as SVG text.

Two drawings with one colour scale: the model from its first byte to its last, and its layers side by side,
with a row for each tensor that they have in common.  Parts that are too small to see are merged, so that the
picture of 100 000 tensors is not larger than that of 5 000.
"""

from __future__ import annotations

import html
import math
import re
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from yarnstore.ops.inspecting.figures import format_ratio, format_share, shorten
from yarnstore.ops.inspecting.tensors import TensorDiff

CLASSES = 7
_WIDTH = 1080
_STRIP_HEIGHT = 44
_STRIP_CELLS = 600
_LABEL_WIDTH = 290
_LABEL_CHARS = 39
_ROW_HEIGHT = 24
_CELL_WIDTH = 62
_TEXT_WIDTH = 46
# Tensors outside layers: the number of lists side by side, and of rows from which on there are several.
_LISTS = 3
_LIST_ROWS_MIN = 6
_COLUMNS_LIMIT = 128
_ROWS_LIMIT = 44
_CELLS_LIMIT = 2000
# The first number between dots is the layer: `model.layers.3.`, `blk.3.`, `features.3.`
_LAYER = re.compile(r"^(.*?)\.?\b(\d{1,5})\.(.+)$")
_TITLE_CHARS = 64


@dataclass(frozen=True)
class Scale:
    """The colour of a change.

    `by_distance` says whether values are distances, or shares of bytes because most of what changed has a
    type without known values.  `edges` are the limits between the CLASSES classes, ascending.
    """

    by_distance: bool
    edges: tuple[float, ...]

    @classmethod
    def of(cls, tensors: Iterable[TensorDiff]) -> Scale:
        """Return the scale that shows the changes of these tensors best: even steps of a logarithm."""
        changed = [tensor for tensor in tensors if tensor.status == "changed" and tensor.bytes_changed]
        known = sum(tensor.bytes_changed for tensor in changed if tensor.distance is not None)
        by_distance = 2 * known >= sum(tensor.bytes_changed for tensor in changed)
        values = sorted(filter(None, (_value(tensor, by_distance) for tensor in changed))) or [0.01]
        low, high = values[len(values) // 20], values[len(values) - 1 - len(values) // 20]
        if high < 4 * low:
            middle = math.sqrt(low * high)
            low, high = middle / 2, middle * 2
        step = (high / low) ** (1 / CLASSES)
        return cls(by_distance, tuple(_rounded(low * step**n) for n in range(1, CLASSES)))

    def value(self, tensor: TensorDiff) -> float | None:
        """Return how much a tensor changed, or None if that is not known."""
        return 0.0 if tensor.status in ("same", "moved") else _value(tensor, self.by_distance)

    def css_class(self, tensors: Sequence[TensorDiff]) -> str:
        """Return the colour of some tensors: `same`, `added`, `odd` for unknown, or `c0` to `c6`."""
        if all(tensor.status in ("same", "moved") for tensor in tensors):
            return "same"
        if all(tensor.status == "added" for tensor in tensors):
            return "added"
        value = self.mean(tensors)
        return "odd" if value is None else f"c{bisect_right(self.edges, value)}"

    def mean(self, tensors: Sequence[TensorDiff]) -> float | None:
        """Return how much some tensors changed, weighted by their bytes; added ones are left out."""
        known = [(self.value(each), each.size_bytes) for each in tensors if each.status != "added"]
        weighed = [(value, size) for value, size in known if value is not None]
        total = sum(size for _, size in weighed)
        return sum(value * size for value, size in weighed) / total if total else None


def _value(tensor: TensorDiff, by_distance: bool) -> float | None:
    if by_distance:
        return tensor.distance
    return tensor.bytes_changed / tensor.size_bytes if tensor.size_bytes else None


def _rounded(value: float) -> float:
    return float(f"{value:.2g}")


def escape(text: str) -> str:
    """Make text safe between tags and in attributes, without control characters."""
    return html.escape(re.sub(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]", "\ufffd", text))


def _svg(height: float, label: str, parts: Iterable[str]) -> str:
    body = "".join(parts)
    return f'<svg viewBox="0 0 {_WIDTH} {height:.0f}" role="img" aria-label="{escape(label)}">{body}</svg>'


def _cell(
    x: float, y: float, width: float, height: float, tensors: Sequence[TensorDiff], scale: Scale
) -> str:
    kind = scale.css_class(tensors)
    place = f'x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"'
    return f'<rect class="{kind}" {place}><title>{_title(tensors, scale)}</title></rect>'


def _title(tensors: Sequence[TensorDiff], scale: Scale) -> str:
    first = tensors[0]
    if len(tensors) > 1:
        name, last = (escape(shorten(each.name, _TITLE_CHARS // 2)) for each in (first, tensors[-1]))
        changed = sum(tensor.status not in ("same", "moved") for tensor in tensors)
        amount = format_ratio(scale.mean(tensors))
        return f"{name}\n… {last}\n{len(tensors)} tensors, {changed} changed, {amount} on average"
    name = escape(shorten(first.name, _TITLE_CHARS))
    if first.status != "changed":
        return f"{name}\n{first.dtype}, {first.status}"
    share = f"{format_share(first.units_changed, first.units)} of {first.unit} changed"
    measures = f"\ndistance {format_ratio(first.distance)}, mean {format_ratio(first.relative_mean)}"
    return f"{name}\n{first.dtype}, {share}{measures if first.distance is not None else ''}"


# --- from the first byte to the last ----------------------------------------------------------


def draw_strip(tensors: Sequence[TensorDiff], scale: Scale) -> str:
    """Draw all tensors of the new side in their order, each as wide as its share of the bytes."""
    present = [tensor for tensor in tensors if tensor.status != "removed" and tensor.size_bytes]
    total = sum(tensor.size_bytes for tensor in present)
    if not total:
        return ""
    parts = []
    least = total / _STRIP_CELLS
    at = 0
    waiting: list[TensorDiff] = []
    size = 0
    for n, tensor in enumerate(present):
        waiting.append(tensor)
        size += tensor.size_bytes
        # A wide tensor is not merged with narrow ones before it.
        next_is_wide = n + 1 < len(present) and present[n + 1].size_bytes >= least
        if size >= least or (next_is_wide and 2 * size >= least) or n + 1 == len(present):
            x, width = at / total * _WIDTH, size / total * _WIDTH
            gap = 0.6 if width > 3 else 0
            parts.append(_cell(x, 0, width - gap, _STRIP_HEIGHT, waiting, scale))
            at += size
            waiting, size = [], 0
    return _svg(_STRIP_HEIGHT, "the model from its first byte to its last", parts)


# --- layer by layer ---------------------------------------------------------------------------

# A row of the picture: its label, and the tensors in each of its columns.
Row = tuple[str, dict[int, list[TensorDiff]]]


@dataclass(frozen=True)
class Block:
    """Rows with columns in common: the layers of one stack, or one column of tensors that are in no stack."""

    heading: str
    columns: list[str]
    rows: list[Row]


def find_blocks(tensors: Iterable[TensorDiff]) -> list[Block]:
    """Return the stacks of layers by the names of their tensors, the largest first, and then the rest."""
    stacks: dict[str, dict[int, list[tuple[str, TensorDiff]]]] = defaultdict(lambda: defaultdict(list))
    alone: list[tuple[str, TensorDiff]] = []
    for tensor in tensors:
        found = _LAYER.match(tensor.name)
        if tensor.status == "removed" or not tensor.size_bytes:
            continue
        if found:
            stacks[found[1]][int(found[2])].append((found[3], tensor))
        else:
            alone.append((tensor.name, tensor))
    for prefix in [prefix for prefix, layers in stacks.items() if len(layers) < 2]:
        alone += [(tensor.name, tensor) for rows in stacks.pop(prefix).values() for _, tensor in rows]
    blocks = []
    budget = _CELLS_LIMIT
    for prefix, layers in sorted(stacks.items(), key=lambda item: -_weight(item[1].values())):
        block = _make_block(prefix, layers, budget)
        if block is None:
            alone += [(f"{prefix}.*", tensor) for rows in layers.values() for _, tensor in rows]
            continue
        budget -= len(block.columns) * len(block.rows)
        blocks.append(block)
    if alone:
        heading = "not in a layer" if blocks else "all tensors"
        rows: list[Row] = [(label, {0: cell}) for label, cell in _fold([alone], _ROWS_LIMIT).items()]
        blocks.append(Block(heading, [""], rows))
    return blocks


def _weight(layers: Iterable[list[tuple[str, TensorDiff]]]) -> int:
    return sum(tensor.size_bytes for rows in layers for _, tensor in rows)


def _make_block(prefix: str, layers: dict[int, list[tuple[str, TensorDiff]]], budget: int) -> Block | None:
    numbers = sorted(layers)
    per_column = -(-len(numbers) // _COLUMNS_LIMIT)
    bins = [numbers[n : n + per_column] for n in range(0, len(numbers), per_column)]
    columns = [str(each[0]) if len(each) == 1 else f"{each[0]}–{each[-1]}" for each in bins]
    limit = min(_ROWS_LIMIT, budget // len(columns))
    if limit < 1:
        return None
    labels = _fold(list(layers.values()), limit)
    column_of = {number: n for n, each in enumerate(bins) for number in each}
    layer_of = {id(tensor): number for number, rows in layers.items() for _, tensor in rows}
    rows: list[Row] = []
    for label, tensors in labels.items():
        cells: dict[int, list[TensorDiff]] = defaultdict(list)
        for tensor in tensors:
            cells[column_of[layer_of[id(tensor)]]].append(tensor)
        rows.append((label, dict(cells)))
    return Block(prefix or "layer", columns, rows)


def _fold(groups: list[list[tuple[str, TensorDiff]]], limit: int) -> dict[str, list[TensorDiff]]:
    """Group tensors by label in at most `limit` rows.

    Numbers in names become `*`; if that is not enough, the rows with the fewest bytes are drawn together.
    """
    rows: dict[str, list[TensorDiff]] = defaultdict(list)
    for group in groups:
        for label, tensor in group:
            rows[label].append(tensor)
    if len(rows) > limit:
        folded: dict[str, list[TensorDiff]] = defaultdict(list)
        for label, tensors in rows.items():
            folded[re.sub(r"\d+", "*", label)] += tensors
        rows = folded
    if len(rows) > limit:
        by_size = sorted(rows, key=lambda label: -sum(tensor.size_bytes for tensor in rows[label]))
        small = set(by_size[limit - 1 :])
        others = [tensor for label in rows if label in small for tensor in rows[label]]
        rows = {label: tensors for label, tensors in rows.items() if label not in small}
        rows["all others" if rows else "all"] = others
    return dict(rows)


def draw_block(block: Block, scale: Scale) -> str:
    """Draw one block with its labels; cells that are large enough show their value."""
    return _draw_stack(block, scale) if len(block.columns) > 1 else _draw_list(block, scale)


def _draw_stack(block: Block, scale: Scale) -> str:
    room = _WIDTH - _LABEL_WIDTH
    width = min(_CELL_WIDTH, room / len(block.columns))
    top = 22
    every = max(1, math.ceil(len(block.columns) * max(map(len, block.columns)) * 8 / room))
    parts = [
        f'<text class="axis" x="{_LABEL_WIDTH + (n + 0.5) * width:.1f}" y="14">{escape(label)}</text>'
        for n, label in enumerate(block.columns)
        if n % every == 0
    ]
    for row, (label, cells) in enumerate(block.rows):
        y = top + row * _ROW_HEIGHT
        parts.append(_label(label, _LABEL_WIDTH, y))
        for column, tensors in sorted(cells.items()):
            parts.append(_row_cell(_LABEL_WIDTH + column * width, y, width, tensors, scale))
    return _svg(top + len(block.rows) * _ROW_HEIGHT, f"changes in {block.heading}", parts)


def _draw_list(block: Block, scale: Scale) -> str:
    """Draw tensors without layers, in as many lists side by side as fit."""
    lists = min(_LISTS, -(-len(block.rows) // _LIST_ROWS_MIN))
    per_list = -(-len(block.rows) // lists)
    parts = []
    for n, (label, cells) in enumerate(block.rows):
        x, y = n // per_list * _WIDTH / _LISTS, n % per_list * _ROW_HEIGHT
        cell = _LABEL_WIDTH + x
        parts += [_label(label, cell, y), _row_cell(cell, y, _CELL_WIDTH, cells[0], scale)]
    return _svg(per_list * _ROW_HEIGHT, f"changes in {block.heading}", parts)


def _label(label: str, x: float, y: float) -> str:
    """Return the name of a row, ending at `x`."""
    full = f"<title>{escape(shorten(label, _TITLE_CHARS))}</title>" if len(label) > _LABEL_CHARS else ""
    shown = escape(shorten(label, _LABEL_CHARS))
    return f'<text class="label" x="{x - 10:.1f}" y="{y + 16}">{shown}{full}</text>'


def _row_cell(x: float, y: float, width: float, tensors: Sequence[TensorDiff], scale: Scale) -> str:
    gap = 2 if width > 8 else 0.5
    cell = _cell(x, y + 1, width - gap, _ROW_HEIGHT - 2, tensors, scale)
    text = _cell_text(tensors, scale) if width >= _TEXT_WIDTH else ""
    if not text:
        return cell
    kind = scale.css_class(tensors)
    return f'{cell}<text class="in {kind}" x="{x + (width - gap) / 2:.1f}" y="{y + 16}">{text}</text>'


def _cell_text(tensors: Sequence[TensorDiff], scale: Scale) -> str:
    kind = scale.css_class(tensors)
    if kind in ("same", "odd"):
        return ""
    return "new" if kind == "added" else format_ratio(scale.mean(tensors))
