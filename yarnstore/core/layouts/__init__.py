"""Layouts: the offsets of the tensors in a model file, read from its headers.

`read_layout` accepts any file; a malformed one has no layout.  It reads at most 256 MiB of a file, takes at
most about a second and 256 MiB of memory, and raises only what the source raises.  docs/format/chunking.md
governs the package.  Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from yarnstore.core.layouts.elements import BYTES, ELEMENT_TYPES, LIKELY_TYPES, ElementType, element_type
from yarnstore.core.layouts.gguf import MAGIC as GGUF_MAGIC
from yarnstore.core.layouts.gguf import parse_gguf
from yarnstore.core.layouts.manifest_form import layout_from_json, layout_to_json
from yarnstore.core.layouts.model import BytesSource, Layout, Source, Tensor
from yarnstore.core.layouts.numpy_ import MAGIC as NPY_MAGIC
from yarnstore.core.layouts.numpy_ import parse_npy
from yarnstore.core.layouts.onnx import parse_onnx, parse_onnx_external, parse_onnx_names
from yarnstore.core.layouts.safetensors import parse_safetensors
from yarnstore.core.layouts.segments import Segment, cut_segments
from yarnstore.core.layouts.torchpickle import is_torch_pickle, parse_torch_pickle
from yarnstore.core.layouts.torchzip import parse_zip
from yarnstore.core.layouts.zipdir import MAGIC as ZIP_MAGIC
from yarnstore.errors import FormatError

__all__ = [
    "BYTES",
    "ELEMENT_TYPES",
    "LIKELY_TYPES",
    "BytesSource",
    "ElementType",
    "Layout",
    "Segment",
    "Source",
    "Tensor",
    "cut_segments",
    "element_type",
    "external_layouts",
    "external_sizes",
    "layout_from_json",
    "layout_to_json",
    "parse_layout",
    "read_layout",
]


def read_layout(source: Source, *, name: str = "") -> Layout | None:
    """Return the layout of a file; None if it has no tensors or cannot be parsed.

    `name` is the file's name, used if the bytes do not determine the format.
    """
    parse = _find_parser(source.read(0, 16), name)
    if parse is None:  # most files; no exception is made for them
        return None
    try:
        layout = parse(source)
    except FormatError:
        return None
    return layout if layout.tensors else None


def external_layouts(source: Source, sizes: Mapping[str, int]) -> dict[str, Layout]:
    """Return the layouts of the files in which the ONNX model `source` keeps tensors; none if it is
    malformed.

    `sizes` has the size in bytes of each existing file, by its path from the model's folder; others are
    omitted.
    """
    try:
        return parse_onnx_external(source, sizes)
    except FormatError:
        return {}


def external_sizes(source: Source) -> dict[str, int]:
    """Return the least size in bytes of each file in which the ONNX model `source` keeps tensors.

    The keys are paths from the model's folder, also those of missing files; empty if the model is malformed.
    """
    try:
        return parse_onnx_names(source)
    except FormatError:
        return {}


def parse_layout(source: Source, *, name: str = "") -> Layout:
    """Return the layout of a file.  Raises: FormatError with the reason if it is malformed."""
    head = source.read(0, 16)
    parse = _find_parser(head, name)
    if parse is None:
        raise FormatError("layout", "has an unknown format")
    return parse(source)


def _find_parser(head: bytes, name: str) -> Callable[[Source], Layout] | None:
    if head.startswith(GGUF_MAGIC):
        return parse_gguf
    if head.startswith(NPY_MAGIC):
        return parse_npy
    if head.startswith(ZIP_MAGIC):
        return parse_zip
    if head[8:9] == b"{":
        return parse_safetensors
    if is_torch_pickle(head):
        return parse_torch_pickle
    # Protobuf has no magic number.  Writers put the format's version first, in field 1.
    if head.startswith(b"\x08") or name.lower().endswith(".onnx"):
        return parse_onnx
    return None
