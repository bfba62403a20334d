"""A file system of fsspec over a store, read-only: `ystore://MODEL[:VARIANT]@VERSION/FILE`.

    import fsspec
    with fsspec.open("ystore://phi-3-mini@1.1.0/config.json") as file: ...

A version that is not stored is downloaded when a file of it is opened.  Without `@VERSION` it is the
installed one.  Every chunk is hashed before its bytes are returned.
"""

from __future__ import annotations

import errno
import io
import os
from typing import Any

from fsspec import AbstractFileSystem

from yarnstore import Store
from yarnstore.errors import NotFoundError
from yarnstore.plugins.addresses import folder_entries, split_address, stored_specs
from yarnstore.results import VersionFiles

_BUFFER_BYTES = 1 << 20


class YstoreFileSystem(AbstractFileSystem):
    """The versions of a store as folders of files; `home` is the store, else the usual one."""

    protocol = "ystore"
    root_marker = ""

    def __init__(self, home: str | None = None, **options: Any) -> None:  # noqa: ANN401 - those of fsspec
        super().__init__(**options)
        self._store = Store.open(home)

    def ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:  # noqa: ANN401
        """See fsspec; the root has the stored versions."""
        path = self._strip_protocol(path)
        if not path:
            rows = [_folder(name) for name in stored_specs(self._store)]
        else:
            spec, inner = split_address(self._store, path)
            rows = _rows(self._listed(spec, path), spec, inner)
        return rows if detail else [row["name"] for row in rows]

    def info(self, path: str, **_: Any) -> dict[str, Any]:  # noqa: ANN401 - those of fsspec
        """See fsspec; a file has its `sha256`."""
        path = self._strip_protocol(path)
        if not path:
            return _folder("")
        spec, inner = split_address(self._store, path)
        found = self._listed(spec, path)
        if not inner:
            return _folder(spec)
        for file in found.files:
            if file.path == inner:
                return _file(spec, file.path, file.size_bytes, file.sha256)
            if file.path.startswith(f"{inner}/"):
                return _folder(f"{spec}/{inner}")
        raise _missing(path, _no_file(found, inner))

    def checksum(self, path: str) -> int:
        """See fsspec: from the SHA-256 of the file."""
        return int(self.info(path).get("sha256", "0"), 16)

    def ukey(self, path: str) -> str:
        """See fsspec: the SHA-256 of the file."""
        return str(self.info(path).get("sha256", ""))

    def _open(self, path: str, mode: str = "rb", **_: Any) -> io.BufferedReader:  # noqa: ANN401
        if mode != "rb":
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), path)
        spec, inner = split_address(self._store, self._strip_protocol(path))
        try:
            return io.BufferedReader(self._store.open_file(spec, inner), _BUFFER_BYTES)
        except NotFoundError as error:
            raise _missing(path, error) from error

    def _listed(self, spec: str, path: str) -> VersionFiles:
        try:
            return self._store.list_files(spec, online=True)
        except NotFoundError as error:
            raise _missing(path, error) from error


def _rows(found: VersionFiles, spec: str, inner: str) -> list[dict[str, Any]]:
    """Return the entries of a folder of a version, or the one of a file."""
    for file in found.files:
        if file.path == inner:
            return [_file(spec, file.path, file.size_bytes, file.sha256)]
    entries = folder_entries(found.files, inner)
    if inner and not entries:
        raise _missing(f"{spec}/{inner}", _no_file(found, inner))
    start = f"{inner}/" if inner else ""
    return [
        _folder(f"{spec}/{start}{name}")
        if file is None
        else _file(spec, file.path, file.size_bytes, file.sha256)
        for name, file in entries.items()
    ]


def _folder(name: str) -> dict[str, Any]:
    return {"name": name, "size": 0, "type": "directory"}


def _file(spec: str, path: str, size_bytes: int, sha256: str) -> dict[str, Any]:
    return {"name": f"{spec}/{path}", "size": size_bytes, "type": "file", "sha256": sha256}


def _no_file(found: VersionFiles, inner: str) -> NotFoundError:
    return NotFoundError("file", inner[:120], where=f"{found.model} {found.version}")


def _missing(path: str, error: NotFoundError) -> FileNotFoundError:
    """Return the error of a file system for one of a store, with what that says."""
    why = f"{error.message} ({error.hint})" if error.hint else error.message
    return FileNotFoundError(errno.ENOENT, why, path)
