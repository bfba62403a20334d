"""Records of the registry that each model of this store came from.

A stored model is updated only from its registry: another registry with the same id, by chance or with bad
intent ("dependency confusion"), is ignored.  docs/format/store.md governs `logs/origins/`.
"""

from __future__ import annotations

from yarnstore.core.names import model_dirname, parse_registry_name
from yarnstore.errors import FormatError, InvalidNameError, NotFoundError
from yarnstore.store import fsio, fsread
from yarnstore.store.filepath import Path
from yarnstore.store.layout import StoreLayout

_LIMIT_BYTES = 1024


def _path(layout: StoreLayout, model: str) -> Path:
    return layout.origins / model_dirname(model)


def read_origin(layout: StoreLayout, model: str) -> str | None:
    """Return the name of the registry that a model last came from; None if unknown."""
    try:
        return parse_origin(_path(layout, model))
    except (NotFoundError, FormatError):
        return None


def parse_origin(path: Path) -> str:
    """Return the name of the registry in the record at `path`.

    Raises: NotFoundError, StorageError, FormatError if it is damaged.
    """
    try:
        return parse_registry_name(fsread.read_bytes(path, _LIMIT_BYTES).decode().removesuffix("\n"))
    except (InvalidNameError, UnicodeDecodeError):
        raise FormatError(
            str(path), "does not name a registry", hint="move it elsewhere, then run this again"
        ) from None


def write_origin(layout: StoreLayout, model: str, registry: str) -> None:
    """Record the registry that a model came from.  Raises: StorageError."""
    if read_origin(layout, model) != registry:
        fsio.write_atomic(_path(layout, model), f"{registry}\n".encode(), tmp_dir=layout.tmp)
