"""LM Studio's models: `PUBLISHER/MODEL/` with the files of a model, which are not versioned there."""

from __future__ import annotations

from yarnstore.core.imported import ImportedFrom
from yarnstore.core.suggestions import close_names
from yarnstore.errors import NotFoundError, UsageError
from yarnstore.ops.exchange.address import Address
from yarnstore.ops.exchange.elsewhere import Found, Target
from yarnstore.ops.local.import_export import Listing
from yarnstore.store import fsread
from yarnstore.store.filepath import Path
from yarnstore.store.source_files import list_sources


def read(models: Path, address: Address) -> list[Found]:
    """Return the folder of a model, or one file of it.  Raises: NotFoundError; as `list_sources`."""
    parts = address.name.split("/")
    if len(parts) not in (2, 3):
        raise _malformed(address)
    path = models / address.name
    if fsread.stat_or_none(path) is None:
        near = close_names(parts[-1], fsread.list_names(path.parent))
        raise NotFoundError("model", address.name, where=str(models), near=near)
    model = "/".join(parts[:2])
    listing = Listing(list_sources(path), str(path), ImportedFrom("lmstudio", model))
    return [Found(model, None, "", listing)]


def write(target: Target, models: Path, address: Address) -> Path:
    """Write the files of a version into the folder of a model; returns that folder.

    Raises: UsageError; ConflictError if a file exists with other content.
    """
    if address.name.count("/") != 1:
        raise _malformed(address)
    folder = models / address.name
    for file in target.manifest.files:
        target.put(file, folder / file.path, replace=False)
    target.flush()
    return folder


def _malformed(address: Address) -> UsageError:
    return UsageError(f"{address} names no model", hint="give lmstudio://PUBLISHER/MODEL")
