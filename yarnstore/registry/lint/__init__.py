"""Find every problem of a registry, for its publisher.

`schema` stops at the first error; this module reports all problems with their JSON paths, also entries that
are readable but wrong or unusual.  `entries` has the types, `check` the rules for names,
`ops/publishing/lint` checks manifests and packs, and callers read the bytes. Pure.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Literal, TypeAlias, get_args, get_origin

import msgspec
from msgspec.structs import fields

from yarnstore.core.limits import REGISTRY_LIMIT_BYTES, REGISTRY_MODEL_LIMIT_BYTES
from yarnstore.errors import FormatError
from yarnstore.registry.check import (
    find_faults,
    find_twins,
    finite_number,
    format_key,
    format_where,
    refuse_constant,
)
from yarnstore.registry.entries import ModelEntry, RegistryDoc
from yarnstore.registry.lint.rules import model_findings, time_fault, url_fault
from yarnstore.registry.memory import check_untyped
from yarnstore.registry.schema import check_major
from yarnstore.registry.timestamps import parse_timestamp

Severity: TypeAlias = Literal["error", "warning"]
_ROOT: Final = "$"
# More than the clocks of two machines should differ.
_CLOCK_LEEWAY: Final = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Finding:
    """One problem in a registry."""

    severity: Severity  #: `error`: a reader or an update fails or is misled; `warning`: unusual.
    path: str  #: The JSON path, after the file's name if that is not `registry.json`.
    message: str  #: What is wrong.


@dataclass(frozen=True)
class Linted:
    """The findings in one document, and its usable models by id."""

    findings: list[Finding]
    models: dict[str, ModelEntry]
    split: bool = False


def lint_registry(data: bytes, *, now: datetime | None = None) -> Linted:
    """Find all problems of a `registry.json`; its time is compared with `now`."""
    raw, found = _decode(data, REGISTRY_LIMIT_BYTES)
    if raw is None:
        return Linted(found, {})
    try:
        check_major(raw.get("registry_version"), "registry.json", "")
    except FormatError as error:
        fault = Finding("error", "$.registry_version", str(error.fields["why"]))
        return Linted([*found, fault], {})
    raw_models = raw.get("models")
    typed = _typed({key: value for key, value in raw.items() if key != "models"}, RegistryDoc, _ROOT, found)
    found += _top(typed, now)
    if not isinstance(raw_models, dict):
        why = f"expected object, got {_kind(raw_models)}" if "models" in raw else "is missing"
        return Linted([*found, Finding("error", "$.models", why)], {})
    models: dict[str, ModelEntry] = {}
    found += [Finding("error", _ROOT + fault.path, fault.why) for fault in find_twins(".models", raw_models)]
    if typed.get("split") and raw_models:
        found.append(Finding("error", "$.models", "is not empty, but the registry is split"))
    for model, raw_model in raw_models.items():
        entry, faults = _lint_model(raw_model, model, f"$.models{format_key(model)}", (".models", model))
        found += faults
        if entry is not None:
            models[model] = entry
    return Linted(found, models, bool(typed.get("split")))


def lint_model(data: bytes, *, model: str = "") -> Linted:
    """Find all problems of the `models/<model>.json` of `model`."""
    raw, found = _decode(data, REGISTRY_MODEL_LIMIT_BYTES)
    if raw is None:
        return Linted(found, {})
    model = model or str(raw.get("model_id") or "")
    if not model:
        return Linted([*found, Finding("error", "$.model_id", "is missing")], {})
    entry, faults = _lint_model(raw, model, _ROOT, ())
    return Linted(found + faults, {model: entry} if entry is not None else {})


def is_model_document(data: bytes) -> bool:
    """Whether JSON is a model, as in `models/<model>.json`, and not a registry."""
    try:
        keys = msgspec.json.decode(data.removeprefix(b"\xef\xbb\xbf"), type=_Keys)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False
    return keys.versions is not msgspec.UNSET and keys.models is msgspec.UNSET


class _Keys(msgspec.Struct):
    """Records which of these keys an object has; their values are not decoded."""

    versions: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    models: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


def _lint_model(
    raw: object, model: str, path: str, where: tuple[str, ...]
) -> tuple[ModelEntry | None, list[Finding]]:
    found: list[Finding] = []
    try:
        entry = msgspec.convert(raw, ModelEntry)
    except msgspec.ValidationError:
        cleaned = _typed(raw, ModelEntry, path, found)
        if not isinstance(cleaned, dict):
            return None, found
        entry = msgspec.convert({"versions": {}, **cleaned}, ModelEntry)
    faults = find_faults(where, model, entry)
    found += [Finding("error", _ROOT + fault.path, fault.why) for fault in faults]
    entry = msgspec.structs.replace(entry, model_id=model)
    prefix = _ROOT + format_where(where)
    known = {item.path for item in found}  # a field of the wrong type is not also missing
    rules = [Finding(kind, prefix + below, why) for kind, below, why in model_findings(entry)]
    found += [item for item in rules if item.path not in known]
    return entry, found


def _top(doc: Mapping[str, Any], now: datetime | None) -> Iterator[Finding]:
    if not doc.get("registry_version"):
        yield Finding("warning", "$.registry_version", "is missing; this format is 1.0.0")
    if why := time_fault(doc.get("last_updated")):
        yield Finding("error", "$.last_updated", why)
    at = parse_timestamp(doc.get("last_updated"))
    if at is not None and now is not None and at > now + _CLOCK_LEEWAY:
        why = "is in the future, so clients cannot recognise an older index"
        yield Finding("warning", "$.last_updated", why)
    for index, url in enumerate(doc.get("mirrors", ())):
        if why := url_fault(url, relative=False):
            yield Finding("error", f"$.mirrors[{index}]", why)


# --- from bytes to values of the right types ---------------------------------------------------


def _decode(data: bytes, limit_bytes: int) -> tuple[dict[str, Any] | None, list[Finding]]:
    """Return the document, and each duplicate key of an object."""
    twice: dict[int, list[str]] = {}
    kept: list[dict[str, Any]] = []  # so that no id() is reused

    def object_of(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) < len(pairs):
            keys = [key for key, _ in pairs]
            twice[id(made)] = [key for key in made if keys.count(key) > 1]
            kept.append(made)
        return made

    if len(data) > limit_bytes:
        return None, [Finding("error", _ROOT, f"is larger than {limit_bytes} bytes")]
    try:
        check_untyped(data, "registry.json")
    except FormatError as error:
        return None, [Finding("error", _ROOT, f"{error.fields['why']}: {error.hint}")]
    try:
        raw = json.loads(
            data.decode("utf-8-sig"),
            object_pairs_hook=object_of,
            parse_constant=refuse_constant,
            parse_float=finite_number,
        )
    except RecursionError:
        return None, [Finding("error", _ROOT, "is nested too deeply")]
    except ValueError as error:
        page = " (it looks like a web page)" if data.lstrip()[:1] == b"<" else ""
        return None, [Finding("error", _ROOT, f"is not JSON{page}: {error}")]
    if not isinstance(raw, dict):
        return None, [Finding("error", _ROOT, f"expected object, got {_kind(raw)}")]
    found = [
        Finding("error", path + _step(path, key), "occurs twice in one object; readers use the last one")
        for path, value in _walk(raw, _ROOT, twice)
        for key in twice[id(value)]
    ]
    return raw, found


def _walk(value: object, path: str, wanted: Mapping[int, object]) -> Iterator[tuple[str, object]]:
    """Yield the objects in a document whose id() is in `wanted`, with their paths."""
    if not wanted:
        return
    if isinstance(value, dict):
        if id(value) in wanted:
            yield path, value
        for key, item in value.items():
            yield from _walk(item, path + _step(path, key), wanted)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _walk(item, f"{path}[{index}]", wanted)


def _step(path: str, key: str) -> str:
    """Return a key of the object at a path: in brackets if it is a name that a user chose."""
    chosen = path.endswith((".models", ".versions", ".variants", ".aliases"))
    return f".{key}" if key.isidentifier() and not chosen else format_key(key)


def _typed(raw: object, kind: type[msgspec.Struct], path: str, found: list[Finding]) -> Any:  # noqa: ANN401
    """Return the fields of `raw` that have the types of a struct; findings for the others are added to
    `found`.

    None if `raw` is not an object.
    """
    if not isinstance(raw, dict):
        found.append(Finding("error", path, f"expected object, got {_kind(raw)}"))
        return None
    good: dict[str, Any] = {}
    for each in fields(kind):
        if each.name not in raw:
            if each.required and kind is not RegistryDoc:  # whose models the caller checks separately
                found.append(Finding("error", f"{path}.{each.name}", "is missing"))
            continue
        value, here = raw[each.name], f"{path}.{each.name}"
        nested = _nested(each.type)
        if nested is not None and isinstance(value, dict):
            typed = {key: _typed(item, nested, here + format_key(key), found) for key, item in value.items()}
            good[each.name] = {key: item for key, item in typed.items() if item is not None}
        elif (why := _type_fault(value, each.type, here)) is not None:
            found.append(why)
        else:
            good[each.name] = value
    return good


def _nested(kind: Any) -> type[msgspec.Struct] | None:  # noqa: ANN401 - a type hint
    """Return the struct type of the values of an object such as `versions`."""
    inner = get_args(kind)[-1] if get_origin(kind) is dict else None
    return inner if isinstance(inner, type) and issubclass(inner, msgspec.Struct) else None


def _type_fault(value: object, kind: Any, path: str) -> Finding | None:  # noqa: ANN401 - a type hint
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        why, _, below = str(error).partition(" - at ")
        why = why.replace(" | null", "").replace("`", "")
        return Finding("error", path + below.strip("`").removeprefix("$"), why[:1].lower() + why[1:])
    return None


def _kind(value: object) -> str:
    names = {dict: "object", list: "array", str: "str", bool: "bool", int: "int", float: "float"}
    return names.get(type(value), "null")
