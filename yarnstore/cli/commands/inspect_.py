"""`ystore inspect`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from yarnstore.cli.command import Invocation, command
from yarnstore.cli.display import clean, size, table
from yarnstore.ops.inspecting.figures import format_parameters, format_shape, format_share, shorten
from yarnstore.progress import format_count, plural

if TYPE_CHECKING:
    from yarnstore.results import FileInfo, InspectResult, StoredAs, TypeInfo

_SHOWN = 20


@command("inspect", example="ystore inspect phi-3-mini@1.1.0\nystore inspect ./model.gguf")
@click.argument("what", metavar="SPEC|PATH")
def cli(run: Invocation, what: str) -> None:
    """List the tensors of a version, file or folder.

    For a version, also shows how its chunks are stored.  For a path, only headers are read; for a
    version that is not downloaded, only its manifest.
    """
    with run.store() as store:
        found = store.inspect(what)
    verbose, width = run.output.verbose, run.output.columns
    rows = _names(found) if run.output.quiet else _rows(found)
    run.output.report(found, lambda: _text(found, width, verbose=verbose), rows)


def _names(found: InspectResult) -> list[tuple[str]]:
    return [(tensor.name,) for file in found.files for tensor in file.tensors]


def _rows(found: InspectResult) -> list[Sequence[object]]:
    """Piped rows: the first column is the kind of the row."""
    rows: list[Sequence[object]] = []
    for file in found.files:
        rows.append(
            ("file", file.path, file.format, file.size_bytes, file.parameters, file.other_bytes, file.looks)
        )
        rows += [
            (
                "tensor",
                t.name,
                file.path,
                t.dtype,
                format_shape(t.shape),
                t.offset,
                t.size_bytes,
                t.parameters,
            )
            for t in file.tensors
        ]
        rows += [("code", c.path, c.kind, c.what, ",".join(c.names), c.why) for c in file.code]
    rows += [("type", t.dtype, t.tensors, t.parameters, t.size_bytes) for t in found.types]
    rows += [("stored", s.encoding, s.chunks, s.size_bytes, s.stored_bytes) for s in found.storage or ()]
    rows.append(("total", found.label, found.size_bytes, found.parameters))
    return rows


def _text(found: InspectResult, width: int | None, *, verbose: bool) -> str:
    count = sum(len(file.tensors) for file in found.files)
    parts = [size(found.size_bytes)]
    if count:
        parts += [plural(count, "tensor"), f"{format_parameters(found.parameters)} parameters"]
    if found.manifest is not None and not found.in_store:
        parts.append("not in the store")
    blocks = [f"{clean(found.label)}: {', '.join(parts)}", _files(found.files, width)]
    code = [clean(str(item)) for file in found.files for item in file.code]
    if code:
        blocks.append("\n".join(code))
    if found.types:
        header = ("TYPE", "TENSORS", "PARAMETERS", "SIZE")
        blocks.append(table(header, [_type_row(item, found.parameters) for item in found.types], width))
    if found.storage:
        header = ("STORED AS", "CHUNKS", "SIZE", "DISK SPACE")
        blocks.append(table(header, [_stored_row(item) for item in found.storage], width))
    tensors = [tensor for file in found.files for tensor in file.tensors]
    if tensors:
        shown = tensors if verbose else sorted(tensors, key=lambda tensor: -tensor.size_bytes)[:_SHOWN]
        rows = [
            (shorten(clean(tensor.name)), tensor.dtype, format_shape(tensor.shape), size(tensor.size_bytes))
            for tensor in shown
        ]
        blocks.append(table(("TENSOR", "TYPE", "SHAPE", "SIZE"), rows, width))
        if len(shown) < len(tensors):
            rest = format_count(len(tensors) - len(shown))
            blocks[-1] += f"\n… and {rest} smaller ones   (-v lists all, in file order)"
    return "\n\n".join(blocks)


def _files(files: list[FileInfo], width: int | None) -> str:
    rows = [(clean(file.path), _format(file), size(file.size_bytes), _chunks(file)) for file in files]
    return table(("FILE", "FORMAT", "SIZE", "CHUNKS"), rows, width)


def _format(file: FileInfo) -> str:
    if file.format is not None:
        return f"{file.format}, {plural(len(file.tensors), 'tensor')}"
    if file.looks == "text" or file.why is None:
        return file.looks or "–"
    looks = f"; looks like {file.looks}" if file.looks else ""
    return f"no known layout: {clean(file.why)}{looks}"


def _chunks(file: FileInfo) -> str:
    return "–" if file.chunks is None else format_count(file.chunks)


def _type_row(item: TypeInfo, total: int) -> tuple[str, ...]:
    return (
        item.dtype,
        format_count(item.tensors),
        f"{format_count(item.parameters)} ({format_share(item.parameters, total)})",
        size(item.size_bytes),
    )


def _stored_row(item: StoredAs) -> tuple[str, ...]:
    takes = "–"
    if item.encoding not in ("file", "absent"):
        takes = f"{size(item.stored_bytes)} ({format_share(item.stored_bytes, item.size_bytes)})"
    return item.encoding, format_count(item.chunks), size(item.size_bytes), takes
