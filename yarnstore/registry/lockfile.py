"""`ystore.lock`: the exact versions to which a set of requests resolved, to install the same ones again.

docs/format/lock-file.md governs it.  Owns the file's bytes and its digest.  `select` resolves requests;
`ops/installing/from_lock` reads and writes the file.  Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, Self

import msgspec

from yarnstore.core.canonical import INTEGER_LIMIT, encode_canonical, parse_json_object
from yarnstore.core.digest import Buffer, Sha256
from yarnstore.core.limits import MIB
from yarnstore.core.names import parse_model_id, parse_variant, parse_version
from yarnstore.errors import FormatError, IncompatibleError, InvalidNameError, SpecError
from yarnstore.registry.spec import Exact, Spec

LOCK_FORMAT: Final = "yarnstore-lock/1"
# A build is about 400 bytes: 10 000 models.
LOCK_LIMIT_BYTES: Final = 4 * MIB
_WHAT: Final = "lock file"
_KEYS: Final = frozenset({"requested", "model", "variant", "version", "manifest", "checksum", "size_bytes"})


@dataclass(frozen=True, slots=True)
class Locked:
    """The build of one request.  `manifest` or `checksum`, or both, identify its content."""

    requested: str
    model: str
    variant: str
    version: str
    manifest: Sha256 | None = None
    checksum: Sha256 | None = None
    size_bytes: int | None = None

    @property
    def spec(self) -> Spec:
        """The spec of exactly this build."""
        return Spec(self.model, self.variant, Exact(self.version))

    @property
    def is_as_requested(self) -> bool:
        """Whether the request admits the version, which edits and merges of the file may have changed."""
        return Spec.parse_stored(self.requested).admits(self.variant, self.version)

    def as_json(self) -> dict[str, Any]:
        """Return the build's JSON object without unknown values."""
        value = {
            "requested": self.requested,
            "model": self.model,
            "variant": self.variant,
            "version": self.version,
            "manifest": None if self.manifest is None else str(self.manifest),
            "checksum": None if self.checksum is None else str(self.checksum),
            "size_bytes": self.size_bytes,
        }
        return {key: item for key, item in value.items() if item is not None}


@dataclass(frozen=True, slots=True)
class LockFile:
    """The builds of a lock file, sorted by their requests, which are distinct."""

    builds: tuple[Locked, ...] = ()

    @classmethod
    def of(cls, builds: Iterable[Locked]) -> Self:
        """Make a lock file; of two builds of the same request, the last is used."""
        by_request = {build.requested: build for build in builds}
        return cls(tuple(by_request[key] for key in sorted(by_request)))

    def encode(self) -> bytes:
        """Return the bytes of the file, which depend only on its builds.  Raises: FormatError."""
        value = {"format": LOCK_FORMAT, "models": [build.as_json() for build in self.builds]}
        return msgspec.json.format(encode_canonical(value, _WHAT), indent=2) + b"\n"

    @property
    def digest(self) -> Sha256:
        """The SHA-256 of `encode()`, which identifies the locked builds."""
        return Sha256.of(self.encode())

    @classmethod
    def parse(cls, data: Buffer) -> Self:
        """Parse a lock file in any formatting, since `git` may change line ends.

        Raises: FormatError; IncompatibleError for a newer format.
        """
        if len(data) > LOCK_LIMIT_BYTES:
            raise FormatError(_WHAT, f"is larger than {LOCK_LIMIT_BYTES} bytes")
        value = parse_json_object(data, _WHAT)
        _check_format(value.get("format"))
        items = value.get("models")
        if not isinstance(items, list):
            raise FormatError(_WHAT, "has no list of models")
        unknown = sorted(value.keys() - {"format", "models"})
        if unknown:
            raise FormatError(_WHAT, f"has an unknown key {unknown[0][:40]!r}")
        builds = [_parse_build(item, n) for n, item in enumerate(items)]
        if len({build.requested for build in builds}) < len(builds):
            raise FormatError(_WHAT, "has the same request twice")
        return cls.of(builds)


def _check_format(found: object) -> None:
    if found == LOCK_FORMAT:
        return
    name, _, major = str(found).partition("/")
    if name == LOCK_FORMAT.partition("/")[0] and re.fullmatch("[0-9]{1,4}", major) and int(major) > 1:
        raise IncompatibleError(
            f"the lock file is in format {str(found)[:40]!r}; this release reads {LOCK_FORMAT!r}",
            hint="update yarnstore to read it",
        )
    raise FormatError(_WHAT, f"has format {str(found)[:40]!r}, not {LOCK_FORMAT!r}")


def _parse_build(item: object, n: int) -> Locked:
    what = f"{_WHAT}: models[{n}]"
    if not isinstance(item, dict):
        raise FormatError(what, "is not an object")
    unknown = sorted(item.keys() - _KEYS)
    if unknown:
        raise FormatError(what, f"has an unknown key {unknown[0][:40]!r}")
    texts = {key: item.get(key) for key in ("requested", "model", "variant", "version")}
    for key, text in texts.items():
        if not isinstance(text, str):
            raise FormatError(what, f"has no {key}")
    requested, model, variant, version = map(str, texts.values())
    try:
        spec = Spec.parse_stored(requested)
        parse_model_id(model), parse_variant(variant), parse_version(version)
    except (SpecError, InvalidNameError) as error:
        raise FormatError(what, error.message) from None
    if spec.model != model or spec.variant not in (None, variant):
        raise FormatError(what, f"was requested as {requested!r}, but is {model}:{variant}")
    size = item.get("size_bytes")
    if size is not None and (
        not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= INTEGER_LIMIT
    ):
        raise FormatError(what, "has a size that is not a number of bytes")
    manifest, checksum = _digest(item, "manifest", what), _digest(item, "checksum", what)
    if manifest is None and checksum is None:
        raise FormatError(what, "has neither a manifest nor a checksum")
    return Locked(
        requested=str(spec),
        model=model,
        variant=variant,
        version=version,
        manifest=manifest,
        checksum=checksum,
        size_bytes=size,
    )


def _digest(item: dict[str, Any], key: str, what: str) -> Sha256 | None:
    text = item.get(key)
    if text is None:
        return None
    if not isinstance(text, str):
        raise FormatError(what, f"has a {key} that is not a digest")
    try:
        return Sha256.parse(text)
    except FormatError as error:
        raise FormatError(what, f"has a {key} that {error.fields['why']}") from None
