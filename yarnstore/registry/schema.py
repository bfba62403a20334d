"""Parser of `registry.json`, and of `models/<model>.json` with one of its models.

Decodes and checks entries; every error has a JSON path.  docs/registry.md governs the format.  Unknown keys
are ignored; `edit` works on the raw document and keeps them. `entries` has the types, `check` their rules,
`select` resolves specs; `lint` reports what is readable but wrong, such as a `current_version` that does not
exist or an invalid range.  Pure.
"""

from __future__ import annotations

import contextlib
import re
from typing import Any, Final, TypeVar

import msgspec

from yarnstore.core.limits import REGISTRY_LIMIT_BYTES, REGISTRY_MODEL_LIMIT_BYTES
from yarnstore.core.names import model_dirname
from yarnstore.errors import FormatError
from yarnstore.registry.check import FaultError, check_model, check_models, format_key
from yarnstore.registry.entries import DeltaEntry, FileEntry, ModelEntry, RegistryDoc, VersionEntry
from yarnstore.registry.memory import check_memory, fits_untyped

__all__ = [
    "DeltaEntry",
    "FileEntry",
    "ModelEntry",
    "RegistryDoc",
    "VersionEntry",
    "check_major",
    "check_raw_model",
    "parse_model",
    "parse_registry",
]

# The newest major format that this release reads.
REGISTRY_MAJOR: Final = 1

_Root = TypeVar("_Root", RegistryDoc, ModelEntry)


class _Head(msgspec.Struct):
    """Only the field with the format; a document of another format may differ in everything else."""

    registry_version: str | None = None


_HEAD = msgspec.json.Decoder(_Head)
_REGISTRY = msgspec.json.Decoder(RegistryDoc)
_MODEL = msgspec.json.Decoder(ModelEntry)
# The fields whose objects have names as keys, for `_name_keys`.
_KEYED: Final[dict[str, Any]] = {
    ".models": ModelEntry,
    ".versions": VersionEntry,
    ".variants": VersionEntry,
    ".aliases": str,
}
_PATH_STEP = r"\.\w+|\[[^\]]*\]"


def parse_registry(data: bytes, *, source: str = "", measured: bool = False) -> RegistryDoc:
    """Parse and check a `registry.json`; `source` is its origin, for errors.

    `measured` skips the memory check, which takes longer than decoding, for bytes that have passed it before.
    Of duplicate keys the last is used, as in most JSON readers.

    Raises: FormatError, with the JSON path of the bad field.
    """
    what = "registry.json"
    if not measured:
        check_memory(data, what, source=source)
    doc = _decode(data, _REGISTRY, what, limit_bytes=REGISTRY_LIMIT_BYTES, source=source)
    check_major(doc.registry_version, what, source)
    if doc.split and doc.models:
        raise _format_error(what, "$.models", "is not empty, but the registry is split", source)
    try:
        check_models(doc.models)
    except FaultError as fault:
        raise _format_error(what, "$" + fault.path, fault.why, source) from None
    for model, entry in doc.models.items():
        if not entry.model_id:
            doc.models[model] = msgspec.structs.replace(entry, model_id=model)
    return doc


def parse_model(data: bytes, *, model: str = "", source: str = "") -> ModelEntry:
    """Parse and check a `models/<model>.json`, which must be of `model` if that is given.

    Raises: FormatError, with the JSON path of the bad field; InvalidNameError for `model`.
    """
    what = f"models/{model_dirname(model)}.json" if model else "the model's JSON"
    check_memory(data, what, source=source)
    entry = _decode(data, _MODEL, what, limit_bytes=REGISTRY_MODEL_LIMIT_BYTES, source=source)
    return _checked_model(entry, model, what, "$", source)


def check_raw_model(raw: object, model: str) -> ModelEntry:
    """Return the entry of a decoded but untyped `models["…"]` object.

    Raises: FormatError.
    """
    what, path = "registry.json", f"$.models{format_key(model)}"
    try:
        entry = msgspec.convert(raw, ModelEntry)
    except msgspec.ValidationError as error:
        inner, why = _explain(error)
        raise _format_error(what, path + _name_keys(raw, inner)[1:], why, "") from None
    return _checked_model(entry, model, what, path, "")


def _checked_model(entry: ModelEntry, model: str, what: str, path: str, source: str) -> ModelEntry:
    model = model or entry.model_id
    if not model:
        raise _format_error(what, f"{path}.model_id", "is missing", source)
    try:
        check_model(model, entry)
    except FaultError as fault:
        raise _format_error(what, path + fault.path, fault.why, source) from None
    return entry if entry.model_id else msgspec.structs.replace(entry, model_id=model)


def _decode(
    data: bytes, decoder: msgspec.json.Decoder[_Root], what: str, *, limit_bytes: int, source: str
) -> _Root:
    if len(data) > limit_bytes:
        raise FormatError(what, f"is larger than {limit_bytes} bytes", source=source)
    # Windows editors write a byte order mark before UTF-8; skipped without a copy.
    text = memoryview(data)[3:] if data.startswith(b"\xef\xbb\xbf") else data
    try:
        return decoder.decode(text)
    except msgspec.ValidationError as error:
        path, why = _explain(error)
    except RecursionError:
        raise FormatError(what, "is nested too deeply", source=source) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        page = " (it looks like a web page)" if bytes(text[:1024]).lstrip()[:1] == b"<" else ""
        raise FormatError(what, f"is not JSON{page}: {error}", source=source) from None
    with contextlib.suppress(msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        check_major(_HEAD.decode(text).registry_version, what, source)
    raw = _decode_untyped(text) if fits_untyped(data) else None
    raise _format_error(what, _name_keys(raw, path), why, source)


def _decode_untyped(data: bytes | memoryview) -> object:
    try:
        return msgspec.json.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None  # the typed reader stopped before this fault


def check_major(version: object, what: str, source: str) -> None:
    """Refuse a format that a newer release wrote.  Raises: FormatError."""
    match = re.match(r"[0-9]{1,9}(?![0-9])", version) if isinstance(version, str) else None
    if match and int(match[0]) > REGISTRY_MAJOR:
        raise FormatError(
            what,
            f"has format {match[0]}; this yarnstore reads up to {REGISTRY_MAJOR}",
            source=source,
            hint="update yarnstore to read it",
        )


def _format_error(what: str, path: str, why: str, source: str) -> FormatError:
    return FormatError(f"{what}: {path}:", why, source=source)


def _explain(error: msgspec.ValidationError) -> tuple[str, str]:
    """Convert msgspec's message to (JSON path, reason)."""
    why, _, path = str(error).partition(" - at ")
    why = why.replace(" | null", "").replace("`", "")
    return path.strip("`") or "$", why[:1].lower() + why[1:]


def _name_keys(raw: object, path: str) -> str:
    """Replace each `[...]` in `path`, msgspec's placeholder for an object's key, by the key."""
    named, kind = "$", None
    value: Any = raw
    try:
        for step in re.findall(_PATH_STEP, path):
            if step == "[...]":
                bad = next(key for key in value if not _converts(value[key], kind))
                named, value = named + format_key(bad), value[bad]
            else:
                value = value[int(step[1:-1]) if step[0] == "[" else step[1:]]
                named, kind = named + step, _KEYED.get(step)
    except (LookupError, TypeError, ValueError, StopIteration):
        return path
    return named


def _converts(value: object, kind: object) -> bool:
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError:
        return False
    return True
