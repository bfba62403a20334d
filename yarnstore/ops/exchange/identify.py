"""`identify`: what a model file is, by its content where it is known, else by its headers."""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass

from yarnstore.core.digest import Sha256
from yarnstore.core.layouts.gguf import read_texts
from yarnstore.errors import FormatError, UsageError
from yarnstore.ops.exchange.address import ToolFolders
from yarnstore.ops.exchange.knowledge import Knowledge, KnownFile
from yarnstore.ops.inspecting.readers import Content, cut_content, local_contents
from yarnstore.ops.session.session import Session
from yarnstore.progress import Meter
from yarnstore.store.filepath import Path
from yarnstore.store.native import quoted
from yarnstore.store.source_files import open_file

_TITLE = "general.name"


@dataclass(frozen=True)
class IdentifiedFile:
    """A file on this machine, and what it is."""

    path: str  #: The path of the file.
    size_bytes: int  #: The size of the file, in bytes.
    sha256: str
    format: str | None
    title: str | None  #: The name of the model in the file's headers.
    parameters: int
    known: list[KnownFile]  #: Where its content is known; empty if it is not.


def identify(session: Session, path: Path, folders: ToolFolders) -> IdentifiedFile:
    """Return what a file is.  Uses the cached registries, the store, and the caches of other tools.

    Raises: NotFoundError, UsageError for a folder, StorageError.
    """
    if path.is_dir():
        raise UsageError(
            f"{path} is a folder", hint=f"`ystore adopt {quoted(str(path))}` examines all files in it"
        )
    (content,) = local_contents(path)
    cut_content(content, Meter(session.activity.report, "read", path.name, content.size_bytes))
    return describe_file(path, content, Knowledge(session, folders))


def describe_file(path: Path, content: Content, knowledge: Knowledge) -> IdentifiedFile:
    """Return what a file is whose content was hashed."""
    layout, sha256 = content.layout, Sha256.parse(content.sha256 or "")
    return IdentifiedFile(
        path=str(path),
        size_bytes=content.size_bytes,
        sha256=str(sha256),
        format=None if layout is None else layout.format,
        title=_title(path) if layout is not None and layout.format == "gguf" else None,
        parameters=sum(math.prod(tensor.shape) for tensor in layout.tensors) if layout is not None else 0,
        known=knowledge.of(sha256),
    )


def _title(path: Path) -> str | None:
    with contextlib.suppress(FormatError), open_file(path) as source:
        return read_texts(source, frozenset([_TITLE])).get(_TITLE)
    return None
