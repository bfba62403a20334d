"""The cached models of split registries: what `models/<model>.json` said last, one file for each.

`registries/<name>/models/<model>.fetched` is one line of JSON, which says where the rest came from and
what it hashes to, and then the bytes as the registry sent them.  It is a cache: one that cannot be
read is one that is not there.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from yarnstore.core.digest import Sha256
from yarnstore.core.limits import MIB, REGISTRY_MODEL_LIMIT_BYTES
from yarnstore.core.names import model_dirname
from yarnstore.errors import FormatError, NotFoundError
from yarnstore.store import fsio, fsread
from yarnstore.store.layout import StoreLayout


class _Header(msgspec.Struct, frozen=True):
    """The first line; `sha256` is of what follows it, `fetched_ms` 0 where an older release wrote it."""

    url: str
    etag: str
    sha256: str
    fetched_ms: int = 0


class CachedModel(msgspec.Struct, frozen=True):
    """The bytes of a `models/<model>.json`, and the ETag they came with.

    `fetched_ms` is when they were last known to be right, in milliseconds since 1970, or 0.
    """

    data: bytes
    etag: str
    fetched_ms: int = 0


def read_cached_model(layout: StoreLayout, registry: str, url: str, model: str) -> CachedModel | None:
    """What the registry at `url` said of a model last; None where that is not known, or damaged."""
    try:
        data = fsread.read_bytes(_path(layout, registry, model), REGISTRY_MODEL_LIMIT_BYTES + MIB)
        line, _, body = data.partition(b"\n")
        header = msgspec.json.decode(line, type=_Header)
    except (NotFoundError, FormatError, msgspec.MsgspecError, UnicodeDecodeError):
        return None
    if header.url != url or Sha256.of(body).hex != header.sha256:
        return None
    return CachedModel(body, header.etag, header.fetched_ms)


def write_cached_model(layout: StoreLayout, registry: str, url: str, model: str, cached: CachedModel) -> None:
    """Keep what a registry said of a model."""
    header = msgspec.json.encode(_Header(url, cached.etag, Sha256.of(cached.data).hex, cached.fetched_ms))
    path = _path(layout, registry, model)
    fsio.write_atomic(path, header + b"\n" + cached.data, tmp_dir=layout.tmp)


def remove_cached_model(layout: StoreLayout, registry: str, model: str) -> None:
    """Forget a model that a registry has no more."""
    path = _path(layout, registry, model)
    if fsread.stat_or_none(path) is not None:
        fsio.remove(path)


def _path(layout: StoreLayout, registry: str, model: str) -> Path:
    return layout.registry(registry) / "models" / f"{model_dirname(model)}.fetched"
