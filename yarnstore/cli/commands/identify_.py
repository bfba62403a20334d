"""`ystore identify`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from yarnstore.cli.command import Invocation, command
from yarnstore.cli.display import clean, size
from yarnstore.errors import UsageError
from yarnstore.store.native import quoted

if TYPE_CHECKING:
    from yarnstore.results import IdentifiedFile, KnownFile

_PLACES = {"store": "in the store", "registry": "in a registry", "hf": "in the Hugging Face cache",
           "ollama": "in Ollama"}  # fmt: skip


@command("identify", example="ystore identify ~/Downloads/model-q4.gguf")
@click.argument("file", type=click.Path())
def cli(run: Invocation, file: str) -> None:
    """Find out which model a file is.

    The file is hashed, and looked up in the store, the cached registries, and the caches of other tools.  If
    it is not known there, format, name and number of parameters are read from its headers.

    When piped, prints one line for each place that knows it: place, model, version, path and registry; else
    one line with the place `unknown`, the name in its headers and its own path.
    """
    if Path(file).is_dir():
        raise UsageError(
            f"{clean(file)} is a folder",
            hint=f"give a file; `ystore adopt {quoted(file)}` lists the model files of a folder",
        )
    with run.store() as store:
        found = store.identify(file)
    rows: list[tuple[object, ...]] = [
        (item.where, item.model, item.version, item.path, item.registry) for item in found.known
    ]
    rows = rows or [("unknown", found.title, None, found.path, None)]
    run.output.report(found, lambda: _text(found), rows)


def _text(found: IdentifiedFile) -> str:
    lines = [f"{clean(found.path)}: {describe(found)}", f"  {found.sha256}"]
    lines += [f"  {_place(item)}" for item in found.known]
    if not found.known:
        lines.append("  its content is not known here")
    return "\n".join(lines)


def _place(item: KnownFile) -> str:
    where = f"in the registry {item.registry}" if item.registry else _PLACES[item.where]
    path = f": {item.path}" if item.path else ""
    return clean(f"{item.model} {item.version}{path}, {where}")


def describe(found: IdentifiedFile) -> str:
    """Return the size, the format and the parameters of a file, and the name in its headers."""
    from yarnstore.ops.inspecting.figures import format_parameters

    facts = [size(found.size_bytes), found.format or "unknown format"]
    facts += [f"{format_parameters(found.parameters)} parameters"] if found.parameters else []
    facts += [f"“{clean(found.title)}”"] if found.title else []
    return ", ".join(facts)
