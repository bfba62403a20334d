"""ONNX: a protobuf whose initializers are the tensors, in the file or in files beside it.

https://github.com/onnx/onnx/blob/main/onnx/onnx.proto, read field by field without the tensors' data.
Initializers of subgraphs and tensors of nodes are found if the node is large, and named after their path.
Numbers stored as varints (`int32_data`, `int64_data`) and text have no fixed width and are not in the layout.
Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from yarnstore.core.layouts.elements import ELEMENT_TYPES
from yarnstore.core.layouts.limits import (
    LAYOUT_LIMIT_TENSORS,
    ONNX_LIMIT_DEPTH,
    ONNX_LIMIT_FIELDS,
    ONNX_NODE_MIN_BYTES,
    RANK_LIMIT,
    TENSOR_NAME_LIMIT_CHARS,
)
from yarnstore.core.layouts.model import Layout, Source, Tensor, count_elements, make_layout
from yarnstore.core.layouts.window import ReadWindow
from yarnstore.errors import FormatError

NAME: Final = "onnx"
EXTERNAL: Final = "onnx-data"

# `TensorProto.DataType`.  8 is text; 27 and 28 (6-bit floats) have no defined packing.
_DTYPES: Final = {
    number: ELEMENT_TYPES[name]
    for number, name in {
        1: "f32", 2: "u8", 3: "i8", 4: "u16", 5: "i16", 6: "i32", 7: "i64", 9: "bool", 10: "f16",
        11: "f64", 12: "u32", 13: "u64", 14: "c64", 15: "c128", 16: "bf16", 17: "f8_e4m3",
        18: "f8_e4m3fnuz", 19: "f8_e5m2", 20: "f8_e5m2fnuz", 21: "u4", 22: "i4", 23: "f4_e2m1",
        24: "f8_e8m0", 25: "u2", 26: "i2",
    }.items()
}  # fmt: skip
# Packed fields of fixed width, and the data types stored in them.
_FLOAT_DATA, _DOUBLE_DATA = 4, 10
_PACKED: Final = {_FLOAT_DATA: (1, 14), _DOUBLE_DATA: (11, 15)}
_RAW_DATA: Final = 9
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
# The highest field number of ModelProto; files with others are not ONNX, or of a later version.
_MODEL_FIELD_LIMIT: Final = 64
_MODEL_IR_VERSION, _MODEL_GRAPH, _MODEL_FUNCTIONS = 1, 7, 25


class _Field(NamedTuple):
    """A field: the `value` of a number, or the range of its bytes."""

    number: int
    wire: int
    value: int
    start: int
    end: int


class _External(NamedTuple):
    path: str
    tensor: Tensor


class _Walk:
    """One pass over a model; collects tensors in the file's order."""

    def __init__(self, source: Source) -> None:
        self.window = ReadWindow(source, NAME)
        self.fields_left = ONNX_LIMIT_FIELDS
        self.inline: list[Tensor] = []
        self.external: list[_External] = []

    def fields(self, start: int, end: int) -> Iterator[_Field]:
        """Yield the fields of the message at `start`, which must fill its range exactly."""
        at = start
        while at < end:
            self.fields_left -= 1
            if self.fields_left < 0:
                raise FormatError(NAME, f"has more than {ONNX_LIMIT_FIELDS} fields")
            head = self.window.peek(at, min(20, end - at))  # a tag and a number, 10 bytes each at most
            is_last = at + len(head) >= self.window.size
            tag, used = _read_varint(head, 0, is_cut=is_last)
            number, wire = tag >> 3, tag & 7
            value = 0
            if wire in (_BYTES, _VARINT):
                value, used = _read_varint(head, used, is_cut=is_last)
            elif wire in (_FIXED32, _FIXED64):
                value = 4 if wire == _FIXED32 else 8
            else:
                raise FormatError(NAME, f"has a field of the unknown wire type {wire}")
            at += used
            begin = at
            if wire != _VARINT:
                at += value
            if at > end or not number:
                is_cut = bool(number) and at > self.window.size
                raise FormatError(NAME, "has a field that is longer than its message", is_cut=is_cut)
            yield _Field(number, wire, value, begin, at)

    def text(self, field: _Field) -> str:
        """Return the text of a field.

        Text that exceeds the limit of names is truncated, but stays too long for a name.
        """
        length = min(field.end - field.start, 4 * TENSOR_NAME_LIMIT_CHARS + 4)
        return self.window.take(field.start, length).decode("utf-8", "replace")

    def model(self) -> None:
        graphs: list[_Field] = []
        functions: list[_Field] = []
        for field in self.fields(0, self.window.size):
            if field.number > _MODEL_FIELD_LIMIT or (field.number == _MODEL_IR_VERSION and field.wire):
                raise FormatError(NAME, "is not an ONNX model")
            if field.number == _MODEL_GRAPH and field.wire == _BYTES:
                graphs.append(field)
            elif field.number == _MODEL_FUNCTIONS and field.wire == _BYTES:
                functions.append(field)
        if len(graphs) != 1:
            raise FormatError(NAME, f"has {len(graphs)} graphs instead of one")
        self.graph(graphs[0], "", 0)
        for index, function in enumerate(functions):
            self.nodes(
                [each for each in self.fields(function.start, function.end) if _is_large_node(each, 7)],
                f"function {index}/",
                1,
            )

    def graph(self, message: _Field, path: str, depth: int) -> None:
        if depth > ONNX_LIMIT_DEPTH:
            raise FormatError(NAME, f"has graphs nested more than {ONNX_LIMIT_DEPTH} deep")
        nodes: list[_Field] = []
        for field in self.fields(message.start, message.end):
            if field.wire != _BYTES:
                continue
            if field.number == 5:  # initializer
                self.tensor(field, path, "")
            elif field.number == 15:  # sparse_initializer
                self.sparse(field, path)
            elif _is_large_node(field, 1):
                nodes.append(field)
        self.nodes(nodes, path, depth)

    def nodes(self, nodes: list[_Field], path: str, depth: int) -> None:
        for node in nodes:
            title = ""
            attributes: list[_Field] = []
            for field in self.fields(node.start, node.end):
                if field.wire != _BYTES:
                    continue
                if (field.number == 2 and not title) or field.number == 3:  # first output, name
                    title = self.text(field) or title
                elif field.number == 5:
                    attributes.append(field)
            for attribute in attributes:
                self.attribute(attribute, f"{path}{title}/", depth)

    def attribute(self, message: _Field, path: str, depth: int) -> None:
        title = ""
        values: list[_Field] = []
        for field in self.fields(message.start, message.end):
            if field.wire != _BYTES:
                continue
            if field.number == 1:
                title = self.text(field)
            elif field.number in (5, 6, 10, 11, 22, 23):  # t, g, tensors, graphs, sparse_tensor(s)
                values.append(field)
        for index, value in enumerate(values):
            name = f"{path}{title}" if len(values) == 1 else f"{path}{title}.{index}"
            if value.number in (6, 11):
                self.graph(value, f"{name}/", depth + 1)
            elif value.number in (5, 10):
                self.tensor(value, "", name)
            else:
                self.sparse(value, f"{name}/")

    def sparse(self, message: _Field, path: str) -> None:
        """Collect a sparse tensor: `values`, which has the name, and `indices`, which is named after it."""
        parts = {
            field.number: field
            for field in self.fields(message.start, message.end)
            if field.wire == _BYTES and field.number in (1, 2)
        }
        title = self.tensor(parts[1], path, "") if 1 in parts else ""
        if title and 2 in parts:
            self.tensor(parts[2], "", f"{title}.indices")

    def tensor(self, message: _Field, path: str, name: str) -> str:
        """Collect one TensorProto and return its full name: `name`, or its own name below `path`."""
        title, kind, location = "", 0, 0
        shape: list[int] = []
        data: list[_Field] = []
        external: list[_Field] = []
        for field in self.fields(message.start, message.end):
            number, wire = field.number, field.wire
            if number == 1:
                self.dims(field, shape)
            elif number == 2 and wire == _VARINT:
                kind = field.value
            elif number == 8 and wire == _BYTES:
                title = self.text(field)
            elif number == 14 and wire == _VARINT:
                location = field.value
            elif number == 13 and wire == _BYTES:
                external.append(field)
            elif number in (3, 4, 5, 6, 7, 10, 11, _RAW_DATA):  # segment, and the location of the data
                data.append(field)
        name = name or (path + title if title else "")
        if len(name) > TENSOR_NAME_LIMIT_CHARS:
            raise FormatError(
                NAME,
                f"has a tensor name of {len(name)} characters; at most {TENSOR_NAME_LIMIT_CHARS} are read",
            )
        dtype = _DTYPES.get(kind)
        if dtype is None or not name:
            return name
        if len(self.inline) + len(self.external) >= LAYOUT_LIMIT_TENSORS:
            raise FormatError(NAME, f"has more than {LAYOUT_LIMIT_TENSORS} tensors")
        length = dtype.bytes_for(count_elements(shape, NAME))
        if location == 1:
            tensor = Tensor(name, dtype, tuple(shape), 0, length)
            self.external.append(self.locate(external, tensor))
        elif len(data) == 1 and data[0].wire == _BYTES and self.is_fixed_width(data[0].number, kind):
            if data[0].end - data[0].start != length:
                raise FormatError(NAME, f"has data that does not match its shape for {name[:80]!r}")
            self.inline.append(Tensor(name, dtype, tuple(shape), data[0].start, length))
        return name

    @staticmethod
    def is_fixed_width(number: int, kind: int) -> bool:
        return number == _RAW_DATA or kind in _PACKED.get(number, ())

    def dims(self, field: _Field, shape: list[int]) -> None:
        if field.wire == _VARINT:
            shape.append(field.value)
        elif field.wire == _BYTES and field.end - field.start <= 10 * RANK_LIMIT:
            packed = self.window.take(field.start, field.end - field.start)
            at = 0
            while at < len(packed):
                value, at = _read_varint(packed, at)
                shape.append(value)
        else:
            raise FormatError(NAME, "has dimensions that are not numbers")
        if len(shape) > RANK_LIMIT:
            raise FormatError(NAME, f"has a tensor of more than {RANK_LIMIT} dimensions")

    def locate(self, entries: list[_Field], tensor: Tensor) -> _External:
        """Return the location of a tensor's `external_data`.  Keys: location, offset, length, checksum."""
        pairs: dict[str, str] = {}
        for entry in entries:
            texts = {
                field.number: self.text(field)
                for field in self.fields(entry.start, entry.end)
                if field.wire == _BYTES
            }
            pairs[texts.get(1, "")] = texts.get(2, "")
        if "length" in pairs and _parse_decimal(pairs["length"]) != tensor.length:
            raise FormatError(NAME, f"has a length that does not match its shape for {tensor.name[:80]!r}")
        # Only compared with the caller's paths, so it needs no further check.
        return _External(
            pairs.get("location", "").removeprefix("./"),
            tensor._replace(offset=_parse_decimal(pairs.get("offset", "0"))),
        )


def _is_large_node(field: _Field, number: int) -> bool:
    return field.number == number and field.wire == _BYTES and field.end - field.start >= ONNX_NODE_MIN_BYTES


def _read_varint(data: bytes, at: int, *, is_cut: bool = False) -> tuple[int, int]:
    """Return a varint of at most 64 bits and the position after it; `is_cut` if the file ends with `data`."""
    value = shift = 0
    is_cut = is_cut and len(data) < at + 10
    for byte in data[at : at + 10]:
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise FormatError(NAME, "has a number that does not end", is_cut=is_cut)


def _parse_decimal(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or len(text) > 19:
        raise FormatError(NAME, f"has an offset or length that is not a number: {text[:40]!r}")
    return int(text)


def parse_onnx(source: Source) -> Layout:
    """Return the layout of the tensors inside an ONNX file.  Raises: FormatError."""
    walk = _Walk(source)
    walk.model()
    return make_layout(NAME, walk.inline, source.size)


def parse_onnx_external(source: Source, sizes: Mapping[str, int]) -> dict[str, Layout]:
    """Return the layouts of the files in which an ONNX model keeps tensors.

    `sizes` has the size in bytes of each existing file, by its path from the model's folder; other files are
    omitted.

    Raises: FormatError if the model is malformed or contradicts a file in `sizes`.
    """
    walk = _Walk(source)
    walk.model()
    by_path: dict[str, list[Tensor]] = {}
    for path, tensor in walk.external:
        if path in sizes:
            by_path.setdefault(path, []).append(tensor)
    return {path: make_layout(EXTERNAL, tensors, sizes[path]) for path, tensors in by_path.items()}


def parse_onnx_names(source: Source) -> dict[str, int]:
    """Return the least size in bytes of each file in which an ONNX model keeps tensors, by path from the
    model's folder.

    Raises: FormatError.
    """
    walk = _Walk(source)
    walk.model()
    found: dict[str, int] = {}
    for path, tensor in walk.external:
        if path:
            found[path] = max(found.get(path, 0), tensor.end)
    return found
