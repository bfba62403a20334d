"""Coverage-guided fuzzing of every parser and decoder (T12): `python -m tests.fuzz.parsers [SECONDS]`.

Needs atheris.  Whatever the bytes, a parser returns or raises a `YarnstoreError`; anything else ends the
run with a traceback and the input that caused it.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable

import atheris

with atheris.instrument_imports(include=["yarnstore"]):
    from yarnstore.core.codec import decode_entry, decode_zstd
    from yarnstore.core.encodings import decode_delta_planes, decode_delta_zstd, decode_planes
    from yarnstore.core.index import parse_index
    from yarnstore.core.layouts import BytesSource, external_layouts, read_layout
    from yarnstore.core.manifest import Manifest
    from yarnstore.core.pack import EntryStream, parse_entry
    from yarnstore.core.reflog import parse_ref, parse_reflog
    from yarnstore.errors import YarnstoreError
    from yarnstore.registry.schema import parse_model, parse_registry

_BASE = bytes(range(256)) * 4


def _stream(data: bytes) -> None:
    stream = EntryStream()
    for _, entry in stream.feed(data):
        decode_entry(entry)
    stream.finish()


def _layout(data: bytes) -> None:
    read_layout(BytesSource(data), name="model.onnx")
    external_layouts(BytesSource(data), {"weights.bin": 4096})


TARGETS: list[Callable[[bytes], object]] = [
    _stream,
    _layout,
    parse_entry,
    parse_index,
    Manifest.parse,
    parse_ref,
    parse_reflog,
    parse_registry,
    parse_model,
    lambda data: decode_zstd(data, 1024, "frame"),
    lambda data: decode_planes(data, 1024),
    lambda data: decode_delta_planes(data, _BASE, 1024),
    lambda data: decode_delta_zstd(data, _BASE, 1024),
]


def one_input(data: bytes) -> None:
    """The first byte says who gets the rest."""
    if data:
        with contextlib.suppress(YarnstoreError):
            TARGETS[data[0] % len(TARGETS)](data[1:])


def main() -> None:
    """Fuzz for so many seconds."""
    seconds = sys.argv[1] if len(sys.argv) > 1 else "60"
    atheris.Setup([sys.argv[0], f"-max_total_time={seconds}", "-timeout=5", "-rss_limit_mb=1024"], one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
