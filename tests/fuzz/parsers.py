"""Coverage-guided fuzzing of every parser and decoder (T12): `python -m tests.fuzz.parsers [SECONDS]`.

Needs atheris.  Whatever the bytes, a parser returns or raises a `YarnstoreError`; anything else ends the
run with a traceback and the input that caused it.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["yarnstore"]):
    from yarnstore.core.codec import decode_entry, decode_zstd
    from yarnstore.core.deflated import decode_deflated
    from yarnstore.core.encodings import decode_delta_planes, decode_delta_zstd, decode_planes
    from yarnstore.core.encodings.mapped import decode_mapped
    from yarnstore.core.index import parse_index
    from yarnstore.core.layouts import BytesSource, external_layouts, read_layout
    from yarnstore.core.manifest import Manifest
    from yarnstore.core.pack import EntryStream, parse_entry
    from yarnstore.core.reflog import parse_ref, parse_reflog
    from yarnstore.core.transposed import parse_part
    from yarnstore.errors import YarnstoreError
    from yarnstore.registry.schema import parse_model, parse_registry

from tests.fuzz.seeds import BASE, CHUNK, DEFLATED, DEFLATED_BASE, seeds, write_seeds


def _stream(data: bytes) -> None:
    stream = EntryStream()
    for _, entry in stream.feed(data):
        decode_entry(entry, BASE)
    stream.finish()


def _layout(data: bytes) -> None:
    read_layout(BytesSource(data), name="model.onnx")
    external_layouts(BytesSource(data), {"weights.bin": 4096})


TARGETS: dict[str, Callable[[bytes], object]] = {
    "stream": _stream,
    "layout": _layout,
    "entry": lambda data: decode_entry(parse_entry(data), BASE),
    "index": parse_index,
    "manifest": Manifest.parse,
    "ref": parse_ref,
    "reflog": parse_reflog,
    "registry": parse_registry,
    "model": parse_model,
    "zstd": lambda data: decode_zstd(data, 1000, "frame"),
    "planes": lambda data: decode_planes(data, len(CHUNK)),
    "delta-planes": lambda data: decode_delta_planes(data, BASE, len(CHUNK)),
    "delta-mapped": lambda data: decode_mapped(data, BASE, len(CHUNK)),
    "delta-deflated": lambda data: decode_deflated(data, DEFLATED_BASE, len(DEFLATED)),
    "transposed": lambda data: parse_part(data, len(CHUNK)),
    "delta-zstd": lambda data: decode_delta_zstd(data, BASE, len(CHUNK)),
}
_NAMES = list(TARGETS)


def one_input(data: bytes) -> None:
    """The first byte says who gets the rest."""
    if data:
        with contextlib.suppress(YarnstoreError):
            TARGETS[_NAMES[data[0] % len(_NAMES)]](data[1:])


def main() -> None:
    """Fuzz for so many seconds."""
    seconds = sys.argv[1] if len(sys.argv) > 1 else "60"
    limits = [f"-max_total_time={seconds}", "-timeout=5", "-rss_limit_mb=1024", "-max_len=16384"]
    for name, data in seeds():
        TARGETS[name](data)  # one that its parser refuses would be no use
    with tempfile.TemporaryDirectory(prefix="ystore-fuzz-") as corpus:
        write_seeds(Path(corpus), _NAMES)
        atheris.Setup([sys.argv[0], *limits, corpus], one_input)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
