"""The rules of a registry beyond the types of its fields.

Checks names, digests, file paths, and keys that must agree with other fields. `entries` has the types; `lint`
reports readable but unusual documents.  Pure.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection
from typing import Final, TypeAlias, TypeVar

from yarnstore.core.digest import PackId, Sha256
from yarnstore.core.names import (
    DEFAULT_VARIANT,
    check_file_paths,
    parse_model_id,
    parse_variant,
    parse_version,
)
from yarnstore.errors import FormatError, InvalidNameError
from yarnstore.registry.entries import BasedDeltaEntry, FileEntry, ModelEntry, VersionEntry

# A position in the document: fields and keys alternate, as in (".models", "phi", ".versions", "1.0.0").
Where: TypeAlias = tuple[str, ...]

_Value = TypeVar("_Value")
_Known = TypeVar("_Known", str, tuple[str, ...])

# Values that recur in many models are checked once; a set of all values would take more memory than the
# registry.
_KNOWN_LIMIT: Final = 10_000
_KNOWN_PATHS_LIMIT: Final = 100


class FaultError(ValueError):
    """A value breaks a rule: its JSON path below the root, and the reason.  Caught within the package."""

    def __init__(self, where: Where, field: str, why: str) -> None:
        self.path = format_where(where) + field
        self.why = why
        super().__init__(f"{self.path}: {why}")


def format_key(key: str) -> str:
    """`["phi-3-mini"]`, shortened and with control characters escaped."""
    return f"[{json.dumps(key if len(key) <= 80 else key[:77] + '...')}]"


def format_where(where: Where) -> str:
    """`.models["phi"].versions["1.0.0"]`, for the end of a JSON path."""
    return "".join(format_key(step) if index % 2 else step for index, step in enumerate(where))


def check_models(models: dict[str, ModelEntry]) -> None:
    """Check all models of a registry.  Raises: FaultError."""
    checker = _Checker(_refuse)
    checker.check_twins((), ".models", models)
    for model, entry in models.items():
        checker.check_model((".models", model), model, entry)


def check_model(model: str, entry: ModelEntry) -> None:
    """Check one model by itself.  Raises: FaultError."""
    _Checker(_refuse).check_model((), model, entry)


def find_twins(field: str, names: Collection[str]) -> list[FaultError]:
    """Return names in an object that differ only in case from an earlier one."""
    found: list[FaultError] = []
    _Checker(found.append).check_twins((), field, names)
    return found


def find_faults(where: Where, model: str, entry: ModelEntry) -> list[FaultError]:
    """Find all faults of one model; `check_model` stops at the first."""
    found: list[FaultError] = []
    _Checker(found.append).check_model(where, model, entry)
    return found


def _may_have_twins(names: Collection[str]) -> bool:
    """Whether two names may differ only in case, without copying names in lower case."""
    other = [name for name in names if name != name.lower()]
    return bool(other) and len({name.lower() for name in names}) < len(names)


def _keep(known: set[_Known], item: _Known) -> None:
    """Store a checked value, up to a memory limit."""
    if len(known) < _KNOWN_LIMIT and (isinstance(item, str) or len(item) < _KNOWN_PATHS_LIMIT):
        known.add(item)


def _refuse(fault: FaultError) -> None:
    raise fault


class _Checker:
    """Reports each fault.  Stores checked values, since versions, variants and paths recur in many models."""

    def __init__(self, report: Callable[[FaultError], None]) -> None:
        self._report = report
        self._versions: set[str] = set()
        self._variants: set[str] = set()
        self._paths: set[tuple[str, ...]] = set()

    def _fault(self, where: Where, field: str, why: str) -> None:
        self._report(FaultError(where, field, why))

    def _check(self, where: Where, field: str, parse: Callable[[_Value], object], value: _Value) -> bool:
        try:
            parse(value)
        except (FormatError, InvalidNameError) as error:
            self._fault(where, field, str(error.fields["why"]))
            return False
        return True

    def check_twins(self, where: Where, field: str, names: Collection[str]) -> None:
        """Refuse names that differ only in case: they are the same file on some file systems."""
        if not _may_have_twins(names):
            return
        seen: dict[str, str] = {}
        for name in names:
            first = seen.setdefault(name.lower(), name)
            if first != name:
                self._fault((*where, field, name), "", f"differs only in case from {first[:80]!r}")

    def check_model(self, where: Where, model: str, entry: ModelEntry) -> None:
        self._check(where, "", parse_model_id, model)
        if entry.model_id not in ("", model):
            self._fault(where, ".model_id", f"is {entry.model_id[:80]!r}, but the key is {model!r}")
        self.check_twins(where, ".versions", entry.versions)
        for version, build in entry.versions.items():
            here = (*where, ".versions", version)
            if version not in self._versions and self._check(here, "", parse_version, version):
                _keep(self._versions, version)
            self._check_build(here, model, version, build)
            if build.variants:
                self._check_variants(here, model, version, build)

    def _check_variants(self, where: Where, model: str, version: str, entry: VersionEntry) -> None:
        first = entry.variant or DEFAULT_VARIANT
        if first in entry.variants:
            self._fault((*where, ".variants", first), "", "is also the variant of the version itself")
        self.check_twins(where, ".variants", [first, *entry.variants])
        for name, build in entry.variants.items():
            here = (*where, ".variants", name)
            self._check(here, "", parse_variant, name)
            if build.variant not in (None, name):
                self._fault(here, ".variant", f"is not the key, {name!r}")
            if build.variants:
                self._fault(here, ".variants", "is inside a variant")
            self._check_build(here, model, version, build)

    def _check_build(self, where: Where, model: str, version: str, entry: VersionEntry) -> None:
        if entry.model_id is not None and entry.model_id != model:
            self._fault(where, ".model_id", f"is {entry.model_id[:80]!r}, in the entry of {model!r}")
        if entry.version is not None and entry.version != version:
            self._fault(where, ".version", f"is {entry.version[:80]!r}, in the entry of {version!r}")
        variant = entry.variant
        known = variant is None or variant in self._variants
        if variant is not None and not known and self._check(where, ".variant", parse_variant, variant):
            _keep(self._variants, variant)
        if entry.checksum is not None:
            self._check(where, ".checksum", Sha256.parse, entry.checksum)
        if entry.manifest is not None:
            self._check(where, ".manifest", Sha256.parse, entry.manifest)
        for index, pack in enumerate(entry.packs):
            self._check(where, f".packs[{index}]", PackId.parse, pack)
        for key, deltas in entry.delta_lists:
            for index, delta in enumerate(deltas):
                if isinstance(delta, BasedDeltaEntry):
                    self._check(where, f".{key}[{index}].base_model", parse_model_id, delta.base_model)
                self._check(where, f".{key}[{index}].base", parse_version, delta.base)
                self._check(where, f".{key}[{index}].base_manifest", Sha256.parse, delta.base_manifest)
                self._check(where, f".{key}[{index}].pack", PackId.parse, delta.pack)
        if entry.files:
            self._check_files(where, entry.files)

    def _check_files(self, where: Where, files: tuple[FileEntry, ...]) -> None:
        paths = tuple(file.path for file in files)
        if paths not in self._paths and self._check(where, ".files", check_file_paths, paths):
            _keep(self._paths, paths)
        for index, file in enumerate(files):
            self._check(where, f".files[{index}].sha256", Sha256.parse, file.sha256)


# --- numbers of a document that `json` reads


def refuse_constant(word: str) -> float:
    """Refuse NaN and Infinity, which `json` would accept.  Raises: ValueError."""
    raise ValueError(f"{word} is not a JSON number")


def finite_number(digits: str) -> float:
    """Return a number with a fraction or an exponent.  Raises: ValueError if no float is that large."""
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(f"the number {digits[:40]} is too large")
    return number
