"""Rules that a readable registry can break, for one model at a time.

Checks `current_version`, aliases, URLs, times, ranges and sizes.  Yields `(severity, path below the model,
message)`, from which the package makes findings.  Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime
from typing import Final, Literal, TypeAlias
from urllib.parse import urlsplit

from yarnstore.core.digest import Sha256
from yarnstore.core.names import is_version
from yarnstore.errors import FormatError, SpecError
from yarnstore.registry.check import format_key
from yarnstore.registry.entries import BasedDeltaEntry, DeltaEntry, ModelEntry, VersionEntry
from yarnstore.registry.ranges import Range
from yarnstore.registry.select import builds_of
from yarnstore.registry.spec import LATEST, Alias, Exact, Spec, is_alias
from yarnstore.registry.versions import is_prerelease, meant_version, precedence

Rule: TypeAlias = tuple[Literal["error", "warning"], str, str]

# RFC 3339 §5.6; `datetime` refuses invalid dates, such as 31 February, that the expression accepts; that of
# Python 3.14 accepts 24:00, which the expression refuses.
_TIME: Final = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt ]((?:[01]\d|2[0-3]):[0-5]\d):([0-5]\d|60)(\.\d+)?"
    r"([Zz]|[+-]([01]\d|2[0-3]):[0-5]\d)",
    re.ASCII,
)


def time_fault(text: str | None) -> str | None:
    """Return why a text is not an RFC 3339 time; None if it is one, or is missing."""
    if text is None:
        return None
    match = _TIME.fullmatch(text)
    if match:
        try:
            datetime.fromisoformat(f"{match[1]}T{match[2]}:00")
        except ValueError:
            match = None
    return None if match else f"is not an RFC 3339 time, such as 2024-01-01T00:00:00Z: {text[:60]!r}"


def url_fault(text: str, *, relative: bool) -> str | None:
    """Return why a text is neither an http(s) URL nor, with `relative`, a path of the registry.

    None if it is.
    """
    what = f"is not a URL: {text[:120]!r}"
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError:
        return what
    if not text.isprintable() or " " in text:
        return what
    if parts.username is not None or parts.password is not None:
        return "has a user name or password, which every reader of the registry can see"
    if parts.scheme.lower() in ("http", "https"):
        return None if parts.hostname else what
    if parts.scheme or not relative:
        return f"{what}; use http:// or https://"
    inside = text and not text.startswith("/") and not {"", ".", ".."} & set(parts.path.split("/"))
    return None if inside else f"points outside the registry: {text[:120]!r}"


def model_findings(model: ModelEntry) -> Iterator[Rule]:
    """Find the problems of a model whose types are valid.  Invalid versions are skipped."""
    versions = [version for version in model.versions if is_version(version)]
    if not model.versions:
        yield "warning", ".versions", "is empty"
    if model.homepage and (why := url_fault(model.homepage, relative=False)):
        yield "warning", ".homepage", why
    yield from _order(versions)
    yield from _current(model)
    yield from _aliases(model)
    for version in versions:
        entry = model.versions[version]
        here = f".versions{format_key(version)}"
        yield from _version(model, version, entry, here)
        builds = dict(zip(["", *entry.variants], builds_of(model, version), strict=True))
        for variant, build in builds.items():
            at = f"{here}.variants{format_key(variant)}" if variant else here
            own = entry.variants[variant] if variant else entry
            yield from _build(model, build.entry, at)
            yield from _own(own, at)


def _order(versions: list[str]) -> Iterator[Rule]:
    places = [precedence(version) for version in versions]
    if places not in (sorted(places), sorted(places, reverse=True)):
        yield "warning", ".versions", "are not sorted by version"
    for index, version in enumerate(versions):
        first = places.index(places[index])
        if first < index:
            yield (
                "error",
                f".versions{format_key(version)}",
                f"counts as the same version as {versions[first]}: the part after '+' is ignored in "
                "comparisons",
            )


def _current(model: ModelEntry) -> Iterator[Rule]:
    current = model.current_version
    if current is None:
        if model.versions:
            yield "warning", ".current_version", "is missing, so `latest` means the newest release"
        return
    entry = model.versions.get(current)
    if entry is None:
        yield "error", ".current_version", f"is {current[:80]!r}, which does not exist"
        return
    if entry.yanked or (entry.variants and all(b.entry.yanked for b in builds_of(model, current))):
        yield "error", ".current_version", f"is {current}, which is withdrawn"
    elif entry.deprecated:
        yield "error", ".current_version", f"is {current}, which is deprecated"
    if is_version(current) and is_prerelease(current):
        yield "warning", ".current_version", f"is {current}, a prerelease"


def _aliases(model: ModelEntry) -> Iterator[Rule]:
    for word, version in model.aliases.items():
        here = f".aliases{format_key(word)}"
        if word == LATEST or not is_alias(word):
            why = "is reserved for current_version" if word == LATEST else "is a version or a range"
            yield "warning", here, f"cannot be used: it {why}"
        entry = model.versions.get(version)
        if entry is None:
            yield "error", here, f"points to {version[:80]!r}, which does not exist"
        elif entry.yanked or entry.deprecated:
            yield "warning", here, f"points to {version}, which is {_fate(entry)}"


def _fate(entry: VersionEntry) -> str:
    return "withdrawn" if entry.yanked else "deprecated"


def _version(model: ModelEntry, version: str, entry: VersionEntry, here: str) -> Iterator[Rule]:
    if not (entry.changelog or "").strip():
        yield "warning", f"{here}.changelog", "is missing; users read it before they update"
    if entry.release_date is None:
        yield "warning", f"{here}.release_date", "is missing"
    if entry.deprecated and not entry.deprecated_reason and not entry.replaced_by:
        yield "warning", f"{here}.deprecated", "has neither deprecated_reason nor replaced_by"
    if entry.replaced_by is not None:
        yield from _replacement(model, version, entry, f"{here}.replaced_by")


def _replacement(model: ModelEntry, version: str, entry: VersionEntry, here: str) -> Iterator[Rule]:
    by = entry.replaced_by or ""
    target = _replacing(model, by)
    if target is None:
        yield "error", here, f"is {by[:80]!r}, which does not exist"
    elif target == version:
        yield "error", here, "is the version itself"
    elif target and (model.versions[target].yanked or model.versions[target].deprecated):
        yield "warning", here, f"is {target}, which is {_fate(model.versions[target])}"
    if not entry.deprecated and not entry.yanked:
        yield "warning", here, "is set, but the version is neither deprecated nor withdrawn"


def _replacing(model: ModelEntry, by: str) -> str | None:
    """Return the version that `replaced_by` names.

    Empty for one of another model, None if it does not exist.
    """
    if is_version(by):
        return meant_version(by, model.versions)
    try:
        spec = Spec.parse(by)
    except SpecError:
        return None
    if spec.model != model.model_id:
        return ""
    if isinstance(spec.selector, Exact):
        return meant_version(spec.selector.version, model.versions)
    return None


def _own(entry: VersionEntry, here: str) -> Iterator[Rule]:
    """Return the fields that a build sets itself and does not inherit from its version."""
    if why := time_fault(entry.release_date):
        yield "error", f"{here}.release_date", why
    for index, text in enumerate(entry.compatibility):
        try:
            Range.parse(text)
        except SpecError as error:
            yield "error", f"{here}.compatibility[{index}]", f"is not a range: {error.fields['why']}"
    for index, text in enumerate(entry.requires):
        try:
            needed = Spec.parse(text)
        except SpecError as error:
            yield "error", f"{here}.requires[{index}]", f"is not a spec: {error.fields['why']}"
            continue
        if isinstance(needed.selector, Alias):
            why = f"is an alias, which any version meets; name a range, such as {needed.model}@^1.0"
            yield "warning", f"{here}.requires[{index}]", why
    if entry.download_url is not None and (why := url_fault(entry.download_url, relative=True)):
        yield "error", f"{here}.download_url", why
    for index, url in enumerate(entry.mirrors):
        if why := url_fault(url, relative=True):
            yield "error", f"{here}.mirrors[{index}]", why


def _build(model: ModelEntry, entry: VersionEntry, here: str) -> Iterator[Rule]:
    if entry.manifest is None and (entry.download_url is None or entry.checksum is None):
        yield (
            "error",
            here,
            "cannot be installed: it has neither a manifest nor a download_url with a checksum",
        )
    elif entry.manifest is not None and not entry.packs and entry.size_bytes:
        yield "error", f"{here}.packs", "is missing; the manifest's chunks cannot be located"
    if entry.checksum is None and entry.manifest is not None:
        yield "warning", f"{here}.checksum", "is missing"
    if entry.size_bytes is None:
        yield "warning", f"{here}.size_bytes", "is missing; the download size is unknown"
    low, high = entry.minimum_ram_gb, entry.recommended_ram_gb
    if low is not None and high is not None and low > high:
        yield "error", f"{here}.minimum_ram_gb", f"is {low:g}, more than recommended_ram_gb ({high:g})"
    if entry.files:
        yield from _files(entry, here)
    yield from _deltas(model, entry, here)


def _files(entry: VersionEntry, here: str) -> Iterator[Rule]:
    total = sum(file.size_bytes for file in entry.files)
    if entry.size_bytes is not None and entry.size_bytes != total:
        yield "error", f"{here}.size_bytes", f"is {entry.size_bytes}, but the files have {total} bytes"
    promised = entry.files[0].sha256 if len(entry.files) == 1 else entry.manifest
    if entry.checksum is not None and promised is not None and not _same(entry.checksum, promised):
        what = "its one file's sha256" if len(entry.files) == 1 else "manifest, since it has several files"
        yield "error", f"{here}.checksum", f"is not {what}"


def _deltas(model: ModelEntry, entry: VersionEntry, here: str) -> Iterator[Rule]:
    for at, delta in iter_deltas(entry, here):
        if isinstance(delta, BasedDeltaEntry):
            if delta.base_model == model.model_id:
                yield "error", f"{at}.base_model", "is the model itself"
        elif delta.base not in model.versions:
            yield "error", f"{at}.base", f"is {delta.base[:80]!r}, which does not exist"
        elif not any(
            build.entry.manifest and _same(build.entry.manifest, delta.base_manifest)
            for build in builds_of(model, delta.base)
        ):
            yield "error", f"{at}.base_manifest", f"does not belong to {delta.base}"


def iter_deltas(entry: VersionEntry, here: str) -> Iterator[tuple[str, DeltaEntry]]:
    """Yield the path of each delta of a build, whose own path is `here`, and the delta."""
    for key, deltas in entry.delta_lists:
        for n, delta in enumerate(deltas):
            yield f"{here}.{key}[{n}]", delta


def _same(one: str, other: str) -> bool:
    """Whether two texts are the same digest; an invalid one has been reported already."""
    try:
        return Sha256.parse(one) == Sha256.parse(other)
    except FormatError:
        return True
