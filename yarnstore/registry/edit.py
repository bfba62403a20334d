"""Edits the raw document of a registry and keeps everything else in it.

Owns what `publish` writes into `registry.json`, and changes to deprecations, yanks, aliases and the current
version.  Works on the decoded JSON and not on `schema`'s entries, so that unknown keys are kept, in their
order.  Callers read and write the files and give the time.  Pure.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import msgspec

from yarnstore.core.digest import Sha256
from yarnstore.core.limits import REGISTRY_LIMIT_BYTES, REGISTRY_MODEL_LIMIT_BYTES
from yarnstore.core.names import DEFAULT_VARIANT, parse_model_id, parse_variant, parse_version
from yarnstore.core.suggestions import close_names
from yarnstore.errors import ConflictError, FormatError, NotFoundError, UsageError
from yarnstore.registry.check import finite_number, refuse_constant
from yarnstore.registry.entries import ModelEntry
from yarnstore.registry.memory import check_untyped
from yarnstore.registry.schema import check_raw_model
from yarnstore.registry.select import builds_of, latest_version
from yarnstore.registry.spec import LATEST, is_alias
from yarnstore.registry.timestamps import next_timestamp
from yarnstore.registry.versions import is_prerelease, meant_version, precedence, sort_versions

RawDoc: TypeAlias = dict[str, Any]

REGISTRY_VERSION: Final = "1.0.0"
_WHAT: Final = "registry.json"
# Two builds have the same content if these fields are equal, as far as both have them.
_CONTENT: Final = ("manifest", "checksum")
# The time of the first publication, which publishing again does not change.
_KEPT: Final = "release_date"
# Changes the raw entry of a model in place, and returns notes for the user.
Edit = Callable[[RawDoc, ModelEntry], list[str]]


def new_registry(now: str) -> RawDoc:
    """Return an empty registry; `now` is an RFC 3339 time."""
    return {"registry_version": REGISTRY_VERSION, "last_updated": now, "models": {}}


def decode_registry(data: bytes) -> RawDoc:
    """Decode the raw document for editing.  Only its outermost structure is checked.

    Duplicate keys are refused, since writing the document would drop one of them.

    Raises: FormatError.
    """
    raw = _decode(data, _WHAT, REGISTRY_LIMIT_BYTES)
    raw_models(raw)
    return raw


def decode_model(data: bytes, what: str) -> RawDoc:
    """Decode a raw `models/<model>.json` for editing; `what` is its name.  Raises: FormatError."""
    return _decode(data, what, REGISTRY_MODEL_LIMIT_BYTES)


def _decode(data: bytes, what: str, limit_bytes: int) -> RawDoc:
    if len(data) > limit_bytes:
        raise FormatError(what, f"is larger than {limit_bytes} bytes")
    check_untyped(data, what)
    try:
        text = data.decode("utf-8-sig")
        raw = json.loads(
            text, object_pairs_hook=_unique, parse_constant=refuse_constant, parse_float=finite_number
        )
    except RecursionError:
        raise FormatError(what, "is nested too deeply") from None
    except ValueError as error:
        raise FormatError(what, f"is not JSON: {error}") from None
    if not isinstance(raw, dict):
        raise FormatError(f"{what}: $:", "expected object")
    return raw


def encode_registry(raw: Mapping[str, Any]) -> bytes:
    """Return two-space JSON in UTF-8, keys in their order, with a newline at the end.

    Raises: FormatError if the document has values that JSON cannot represent.
    """
    try:
        return msgspec.json.format(msgspec.json.encode(raw), indent=2) + b"\n"
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise FormatError(_WHAT, f"cannot be written: {error}") from None


def add_version(
    raw: RawDoc,
    *,
    model: str,
    version: str,
    entry: Mapping[str, Any],
    now: str,
    variant: str | None = None,
    name: str | None = None,
    description: str | None = None,
    tags: Sequence[str] | None = None,
    category: str | None = None,
) -> bool:
    """Add a build to `raw`, and return whether anything changed.

    `entry` has the build's own keys; `model_id`, `version` and `variant` are added.  If the build already
    exists with the same content, only keys of `entry` that differ are changed, except its `release_date`.
    The model's texts are set if given, and have defaults in a new model.  After an error `raw` is unchanged.

    Raises: ConflictError if the build exists with different content, the id in another case, or the
    version with other build metadata; InvalidNameError; FormatError if the entry does not follow the
    schema.
    """
    parse_model_id(model)
    parse_version(version)
    own: RawDoc = msgspec.to_builtins(dict(entry))
    variant = parse_variant(variant or str(own.pop("variant", None) or DEFAULT_VARIANT))
    if "variants" in own:
        raise FormatError(
            f"{_WHAT}: the entry of {model} {version}:", "contains variants; add them one by one"
        )
    models = raw_models(raw)
    refuse_other_case(models, model)
    old = models.get(model)
    if old is not None:
        check_raw_model(old, model)  # so that the code below can rely on the types
    new = dict(old or _new_model(model))
    given = {"name": name, "description": description, "category": category}
    new.update((key, value) for key, value in given.items() if value is not None)
    if tags is not None:
        new["tags"] = list(tags)
    versions = new["versions"]
    refuse_other_build_metadata(model, versions, version)
    new["versions"] = _placed(
        versions, version, _with_build(versions.get(version), model, version, variant, own)
    )
    checked = check_raw_model(new, model)
    if version not in versions:
        new["current_version"] = _current(checked, version)
    if new == old:
        return False
    models[model] = new
    raw["last_updated"] = next_timestamp(now, raw.get("last_updated"))
    return True


def _placed(versions: RawDoc, version: str, build: RawDoc) -> RawDoc:
    """Return the versions with one more; if they are sorted by number, they stay sorted."""
    if version in versions or list(versions) != sort_versions(versions):
        return {**versions, version: build}
    return {each: versions.get(each, build) for each in sort_versions([*versions, version])}


def _new_model(model: str) -> RawDoc:
    return {
        "model_id": model,
        "name": model,
        "description": "",
        "current_version": None,
        "tags": [],
        "category": "",
        "versions": {},
    }


def _with_build(old: RawDoc | None, model: str, version: str, variant: str, own: RawDoc) -> RawDoc:
    """Return the version's entry with the build in it; `old` is not changed."""
    build = {"model_id": model, "version": version, **own}
    first = variant if old is None else str(old.get("variant") or DEFAULT_VARIANT)
    if variant != DEFAULT_VARIANT or variant != first:
        build["variant"] = variant
    if old is None:
        return build
    what = f"{model} {version} ({variant})"
    if variant == first:
        return _updated(old, own, what)
    variants = old.get("variants", {})
    there = variants.get(variant)
    return {**old, "variants": {**variants, variant: _updated(there, own, what) if there else build}}


def _updated(old: Mapping[str, Any], new: Mapping[str, Any], what: str) -> RawDoc:
    pairs = [(key, old[key], new[key]) for key in _CONTENT if old.get(key) and new.get(key)]
    for key, before, after in pairs:
        if Sha256.parse(str(before)) != Sha256.parse(str(after)):
            raise ConflictError(
                f"{what} is already published with different content: its {key} is {before}, not {after}",
                hint="a published version never changes; publish this as a new version",
                build=what,
                key=key,
                published=before,
                offered=after,
            )
    if not pairs:
        raise ConflictError(
            f"{what} is already published, without a checksum or manifest to compare with",
            hint="publish this as a new version",
            build=what,
        )
    return {**old, **{key: value for key, value in new.items() if key != _KEPT or key not in old}}


def _current(model: ModelEntry, version: str) -> str:
    """Return the `current_version` after adding `version`."""
    current = model.current_version
    if current not in model.versions:
        return latest_version(msgspec.structs.replace(model, current_version=None)) or version
    if is_prerelease(version) or model.versions[version].yanked:
        return current
    return max(current, version, key=precedence)


def raw_models(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Return the models of a raw document, by id.  Raises: FormatError."""
    models = raw.get("models")
    if not isinstance(models, dict):
        raise FormatError(f"{_WHAT}: $.models:", "expected object")
    return models


def refuse_other_case(models: Collection[str], model: str) -> None:
    """Refuse an id that differs only in case from one of `models`.  Raises: ConflictError."""
    if model in models:
        return
    lower = model.lower()
    for other in models:
        if other.lower() == lower:
            raise ConflictError(
                f'model id "{model}" differs only in case from "{other}", which already exists',
                hint=f"publish it as {other}, or under another name",
                model=model,
                existing=other,
            )


def refuse_other_build_metadata(model: str, versions: Collection[str], version: str) -> None:
    """Refuse a version that differs only in build metadata from one of `versions`.

    Both have the same SemVer precedence, so ranges and updates could not distinguish them.

    Raises: ConflictError.
    """
    for other in versions:
        if other != version and precedence(other) == precedence(version):
            variant = version.partition("+")[2] or other.partition("+")[2]
            raise ConflictError(
                f"{model} {other} is already published, and {version} differs from it only in build metadata",
                hint=f"publish this as a new version, or as a variant: "
                f"{model}:{variant.replace('.', '-').lower()}@{other}",
                model=model,
                version=version,
                existing=other,
            )


def _unique(pairs: list[tuple[str, Any]]) -> RawDoc:
    unique = dict(pairs)
    if len(unique) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in unique if keys.count(key) > 1)
        raise ValueError(f"the key {twice[:80]!r} occurs twice in one object")
    return unique


# --- status of published versions: deprecated, yanked, aliases, the current one
# Nothing below changes the content of a build.


@dataclass(frozen=True)
class Amended:
    """The result of a change to a model: whether anything changed, the current version, notes."""

    changed: bool
    current_version: str | None
    notes: list[str] = field(default_factory=list)


def amend(raw: RawDoc, model: str, change: Edit, *, now: str) -> Amended:
    """Apply a change to a registry.  After an error `raw` is unchanged.

    Raises: NotFoundError if the model, or a version that the change names, does not exist; UsageError,
    FormatError.
    """
    models = raw_models(raw)
    if model not in models:
        raise NotFoundError("model", model, near=close_names(model, models))
    old = models[model]
    new = copy.deepcopy(old)
    notes = change(new, check_raw_model(old, model))
    entry = check_raw_model(new, model)
    if new != old:
        models[model] = new
        raw["last_updated"] = next_timestamp(now, raw.get("last_updated"))
    return Amended(new != old, entry.current_version, notes)


def deprecate(
    named: str, variant: str | None = None, *, reason: str | None = None, replaced_by: str | None = None
) -> Edit:
    """Deprecate a version, or one variant of it.  Fields that are not given keep their values.

    If it was the current version and its replacement is another version, that becomes the current one.
    """

    def change(raw: RawDoc, model: ModelEntry) -> list[str]:
        version = _meant(model, named)
        build = _build(raw, model, version, variant, "deprecate")
        by = None if replaced_by is None else _meant(model, replaced_by)
        if by is not None:
            if by == version:
                raise UsageError(f"{version} cannot be its own replacement")
            if model.versions[by].yanked:
                raise UsageError(f"{by} is withdrawn and cannot be the replacement of {version}")
        build["deprecated"] = True
        if reason is not None:
            build["deprecated_reason"] = reason
        if by is not None:
            build["replaced_by"] = by
        if build is not raw["versions"][version]:
            return []
        if model.current_version == version and by is not None:
            raw["current_version"] = by
            return [f"current_version is now {by}", *_aliased(model, version, "deprecated")]
        current = (
            [f"{version} is still the current version; `ystore registry set-current` changes it"]
            if latest_version(model) == version
            else []
        )
        return current + _aliased(model, version, "deprecated")

    return change


def undeprecate(named: str, variant: str | None = None) -> Edit:
    """Remove a deprecation, its reason and its replacement."""

    def change(raw: RawDoc, model: ModelEntry) -> list[str]:
        build = _build(raw, model, _meant(model, named), variant, "deprecate")
        if build.get("deprecated"):
            build["deprecated"] = False
        for key in ("deprecated_reason", "replaced_by"):
            build.pop(key, None)
        return []

    return change


def yank(named: str, variant: str | None = None) -> Edit:
    """Withdraw a version, or one variant of it: only a spec with its exact number still selects it.

    If it was the current version, the newest usable release before it becomes the current one.
    """

    def change(raw: RawDoc, model: ModelEntry) -> list[str]:
        version = _meant(model, named)
        build = _build(raw, model, version, variant, "withdraw")
        build["yanked"] = True
        after = check_raw_model(raw, model.model_id)
        notes = _aliased(model, version, "withdrawn") if build is raw["versions"][version] else []
        latest = latest_version(after)
        if model.current_version == version and latest != version:
            if latest is None:
                return [*notes, f"{version} was the current version, and no other version is usable"]
            raw["current_version"] = latest
            return [f"current_version is now {latest}", *notes]
        return notes

    return change


def unyank(named: str, variant: str | None = None) -> Edit:
    """Undo a withdrawal.  `current_version` is not changed."""

    def change(raw: RawDoc, model: ModelEntry) -> list[str]:
        _build(raw, model, _meant(model, named), variant, "withdraw").pop("yanked", None)
        return []

    return change


def set_alias(name: str, named: str) -> Edit:
    """Set an alias such as `stable` to a version.  Raises: UsageError if it is not a valid alias."""
    if name == LATEST:
        hint = "change the current version: `ystore registry set-current MODEL VERSION --registry DIR`"
        raise UsageError("the alias latest cannot be set: it always means the current version", hint=hint)
    if not is_alias(name):
        raise UsageError(
            f"{name[:80]!r} cannot be an alias: it is a version, a range or not a word",
            hint="use a word such as stable, beta or lts-2024",
        )

    def change(raw: RawDoc, model: ModelEntry) -> list[str]:
        version = _meant(model, named)
        raw.setdefault("aliases", {})[name] = version
        entry = model.versions[version]
        fate = "withdrawn" if entry.yanked else "deprecated" if entry.deprecated else ""
        return [f"{version} is {fate}"] if fate else []

    return change


def remove_alias(name: str) -> Edit:
    """Remove an alias."""

    def change(raw: RawDoc, model: ModelEntry) -> list[str]:
        if name not in model.aliases:
            raise NotFoundError("alias", name, where=model.model_id, near=close_names(name, model.aliases))
        del raw["aliases"][name]
        return []

    return change


def set_current(named: str) -> Edit:
    """Make a version the current one, which `latest` selects.

    Raises: UsageError if it is deprecated or withdrawn.
    """

    def change(raw: RawDoc, model: ModelEntry) -> list[str]:
        version = _meant(model, named)
        entry = model.versions[version]
        if all(build.entry.yanked for build in builds_of(model, version)) or entry.deprecated:
            fate = "deprecated" if entry.deprecated and not entry.yanked else "withdrawn"
            verb = "deprecate" if fate == "deprecated" else "yank"
            raise UsageError(
                f"{version} is {fate}, and cannot be the current version",
                hint="undo that first: "
                f"`ystore registry {verb} {model.model_id}@{version} --undo --registry DIR`",
            )
        raw["current_version"] = version
        return []

    return change


def _meant(model: ModelEntry, named: str) -> str:
    """Return the version of a given name.  Raises: NotFoundError, with the existing versions."""
    version = meant_version(named, model.versions) or named
    builds_of(model, version)
    return version


def _build(raw: RawDoc, model: ModelEntry, version: str, variant: str | None, verb: str) -> RawDoc:
    """Return the raw entry to change for a version, or for one variant of it."""
    builds = [build.variant for build in builds_of(model, version)]
    entry: RawDoc = raw["versions"][version]
    if variant is None:
        return entry
    if variant not in builds:
        raise NotFoundError(
            "variant",
            variant,
            where=f"{model.model_id} {version}",
            near=close_names(variant, builds),
            hint=f"it has {', '.join(builds)}",
        )
    if variant != builds[0]:
        build: RawDoc = entry["variants"][variant]
        return build
    if len(builds) > 1:
        raise UsageError(
            f"{variant} is the default variant; to {verb} it would also {verb} {', '.join(builds[1:])}",
            hint=f"{verb} the whole version, {model.model_id}@{version}, or its other variants",
        )
    return entry


def _aliased(model: ModelEntry, version: str, fate: str) -> list[str]:
    words = [word for word, target in model.aliases.items() if target == version]
    return [f"{', '.join(words)} points to {version}, which is now {fate}"] if words else []
