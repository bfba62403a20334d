"""Manifests: one version of one model, its files and their chunks.

docs/format/manifest.md governs it.  A manifest is named by the SHA-256 of its bytes.  Unknown fields are
kept; a newer major format is refused.  Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import msgspec

from yarnstore.core.canonical import encode_canonical, parse_canonical
from yarnstore.core.digest import DIGEST_BYTES, Buffer, Sha256
from yarnstore.core.limits import CHUNK_LIMIT_BYTES, MANIFEST_LIMIT_BYTES, MANIFEST_LIMIT_FILES
from yarnstore.core.names import check_file_paths, parse_model_id, parse_variant, parse_version
from yarnstore.errors import FormatError, IncompatibleError, IntegrityError, InvalidNameError

if TYPE_CHECKING:
    from numpy.typing import NDArray

MANIFEST_FORMAT = "yarnstore-manifest/1"
_LENGTH_BYTES = 4
_ONE_CHUNK_CHARS = (DIGEST_BYTES + _LENGTH_BYTES) // 3 * 4
_WHAT = "manifest"


def pack_chunk_list(chunks: Sequence[tuple[bytes, int]]) -> str:
    """`(id, length)` pairs as text: base64 of all 32-byte ids, then all lengths as u32 LE."""
    import binascii

    ids = b"".join(chunk_id for chunk_id, _ in chunks)
    lengths = b"".join(length.to_bytes(_LENGTH_BYTES, "little") for _, length in chunks)
    return binascii.b2a_base64(ids + lengths, newline=False).decode("ascii")


class ManifestFile(msgspec.Struct, frozen=True, eq=False):
    """One file of a version.  `chunks` is the encoded list, read with `chunk_list`.

    Equality ignores `extra`.
    """

    path: str
    size_bytes: int
    sha256: Sha256
    chunks: str
    extra: dict[str, Any] = {}

    def _key(self) -> tuple[object, ...]:
        return self.path, self.size_bytes, self.sha256, self.chunks

    def __eq__(self, other: object) -> bool:
        return self._key() == other._key() if isinstance(other, ManifestFile) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._key())

    @property
    def executable(self) -> bool:
        """Whether the file is executable when materialised."""
        return "executable" in self.extra

    @property
    def is_one_chunk(self) -> bool:
        """Whether `chunks` has the length of a list of one chunk."""
        return len(self.chunks) == _ONE_CHUNK_CHARS

    def chunk_list(self) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return the file's chunks in order: ids as `S32` of shape (n,), lengths in bytes as `int64` of shape
        (n,).

        Raises: FormatError if the list is malformed or its lengths do not add up to the file's size.
        """
        import binascii

        import numpy as np

        what = f"{_WHAT}: chunks of {self.path!r}"
        try:
            data = binascii.a2b_base64(self.chunks, strict_mode=True)
        except ValueError:
            raise FormatError(what, "are not base64") from None
        count, rest = divmod(len(data), DIGEST_BYTES + _LENGTH_BYTES)
        if rest:
            raise FormatError(what, "have an odd length")
        ids = np.frombuffer(data, "S32", count)
        lengths = np.frombuffer(data, "<u4", count, count * DIGEST_BYTES).astype(np.int64)
        if count == 1:  # the usual case in versions of many files, for which numpy calls would dominate
            least = most = total = int(lengths[0])
        else:
            least, most = (int(lengths.min()), int(lengths.max())) if count else (1, 1)
            total = int(lengths.sum())
        if least < 1 or most > CHUNK_LIMIT_BYTES:
            raise FormatError(what, f"are not each of 1 to {CHUNK_LIMIT_BYTES} bytes")
        if total != self.size_bytes:
            raise FormatError(what, "do not add up to the file's size")
        return ids, lengths

    def as_json(self) -> dict[str, Any]:
        return {
            **self.extra,
            "path": self.path,
            "size_bytes": self.size_bytes,
            "sha256": self.sha256.hex,
            "chunks": self.chunks,
        }


class Manifest(msgspec.Struct, frozen=True):
    """One version.  `digest` names it; `data` are its canonical bytes."""

    model: str
    version: str
    variant: str
    files: tuple[ManifestFile, ...]
    digest: Sha256
    data: bytes
    extra: dict[str, Any] = {}

    @classmethod
    def make(
        cls,
        model: str,
        version: str,
        variant: str,
        files: Iterable[ManifestFile],
        empty_folders: Iterable[str] = (),
        *,
        more: Mapping[str, Any] | None = None,
    ) -> Self:
        """Make a manifest, with its files sorted by path; `more` are optional fields.

        Raises: FormatError, InvalidNameError.
        """
        folders = sorted(empty_folders)
        value = {
            "format": MANIFEST_FORMAT,
            "model": model,
            "version": version,
            "variant": variant,
            "files": [f.as_json() for f in sorted(files, key=lambda f: f.path)],
            **({"empty_folders": folders} if folders else {}),
            **(more or {}),
        }
        return cls.parse(encode_canonical(value, _WHAT))

    @classmethod
    def parse(cls, data: Buffer, *, expected: Sha256 | None = None) -> Self:
        """Parse the bytes of a manifest.

        Raises: IntegrityError if they do not have the expected digest, FormatError if they are malformed,
        IncompatibleError for a newer major format.
        """
        if len(data) > MANIFEST_LIMIT_BYTES:
            raise FormatError(_WHAT, f"is larger than {MANIFEST_LIMIT_BYTES} bytes")
        digest = Sha256.of(data)
        if expected is not None and digest != expected:
            raise IntegrityError(_WHAT, expected=str(expected), got=str(digest))
        value = parse_canonical(data, _WHAT)
        _check_format(value.pop("format", None))
        names: list[str] = []
        for key, check in (("model", parse_model_id), ("version", parse_version), ("variant", parse_variant)):
            try:
                names.append(check(_take(value, key, str)))
            except InvalidNameError as error:
                raise FormatError(_WHAT, str(error)) from None
        raw_files = _take(value, "files", list)
        if not 1 <= len(raw_files) <= MANIFEST_LIMIT_FILES:
            raise FormatError(_WHAT, f"has {len(raw_files)} files; 1 to {MANIFEST_LIMIT_FILES} are allowed")
        files = tuple(_parse_file(item) for item in raw_files)
        paths = [f.path for f in files]
        if paths != sorted(paths):
            raise FormatError(_WHAT, "lists its files out of order")
        check_file_paths([*paths, *_empty_folders(value)])
        return cls(names[0], names[1], names[2], files, digest, bytes(data), value)

    @property
    def empty_folders(self) -> tuple[str, ...]:
        """The paths of empty folders; folders with files are not listed."""
        return tuple(self.extra.get("empty_folders", ()))

    @property
    def size_bytes(self) -> int:
        return sum(f.size_bytes for f in self.files)

    @property
    def checksum(self) -> Sha256:
        """The registry's `checksum`: of the file if there is only one, else of the manifest."""
        return self.files[0].sha256 if len(self.files) == 1 else self.digest

    @property
    def label(self) -> str:
        """`model version (variant)`, for messages."""
        return f"{self.model} {self.version}"


def _check_format(found: object) -> None:
    if found == MANIFEST_FORMAT:
        return
    name, _, major = str(found).partition("/")
    # At most four digits: int() raises a different error for thousands of them.
    if name == MANIFEST_FORMAT.partition("/")[0] and re.fullmatch("[0-9]{1,4}", major) and int(major) > 1:
        raise IncompatibleError(
            f"the manifest is in format {str(found)[:40]!r}; this release reads {MANIFEST_FORMAT!r}",
            hint="update yarnstore to read it",
            format=str(found)[:40],
        )
    raise FormatError(_WHAT, f"has format {str(found)[:40]!r}, not {MANIFEST_FORMAT!r}")


def _take(value: dict[str, Any], key: str, kind: type) -> Any:  # noqa: ANN401 - as the caller's kind says
    item = value.pop(key, None)
    if not isinstance(item, kind) or isinstance(item, bool):
        raise FormatError(_WHAT, f"field {key!r} is missing or not of type {kind.__name__}")
    return item


def _empty_folders(value: dict[str, Any]) -> list[str]:
    folders = value.get("empty_folders", [])
    if not isinstance(folders, list) or not all(isinstance(item, str) for item in folders):
        raise FormatError(_WHAT, "field 'empty_folders' is not a list of paths")
    if len(folders) > MANIFEST_LIMIT_FILES:
        raise FormatError(_WHAT, f"has {len(folders)} empty folders; {MANIFEST_LIMIT_FILES} are allowed")
    if folders != sorted(folders):
        raise FormatError(_WHAT, "lists its empty folders out of order")
    return folders


def _parse_file(item: object) -> ManifestFile:
    if not isinstance(item, dict):
        raise FormatError(_WHAT, "has a file that is not an object")
    value = dict(item)
    path = _take(value, "path", str)
    size = _take(value, "size_bytes", int)
    if size < 0:
        raise FormatError(_WHAT, f"gives {path[:120]!r} a negative size")
    sha256 = Sha256.parse(_take(value, "sha256", str))
    if value.get("executable", True) is not True:
        raise FormatError(_WHAT, f"gives {path[:120]!r} an 'executable' that is not true")
    return ManifestFile(path, size, sha256, _take(value, "chunks", str), value)
