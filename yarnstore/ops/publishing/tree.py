"""The registry folder of a publisher: its paths, its lock, and rewriting its JSON.

docs/registry.md governs what is written.  Each change goes through `edit`, which reads the JSON again under
the lock, so that two publishers at once do not lose each other's change.  `registry/edit` makes the changes.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from yarnstore.core.digest import Sha256
from yarnstore.core.limits import MANIFEST_LIMIT_BYTES, REGISTRY_LIMIT_BYTES, REGISTRY_MODEL_LIMIT_BYTES
from yarnstore.core.manifest import Manifest
from yarnstore.core.names import model_dirname, model_from_dirname
from yarnstore.errors import FormatError, InvalidNameError, NotFoundError, StorageError, UsageError
from yarnstore.registry.edit import (
    RawDoc,
    decode_model,
    decode_registry,
    encode_registry,
    new_registry,
    raw_models,
    refuse_other_case,
)
from yarnstore.registry.entries import ModelEntry
from yarnstore.registry.schema import check_raw_model, parse_registry
from yarnstore.registry.timestamps import next_timestamp
from yarnstore.store import fsio, fsread, lock
from yarnstore.store.filepath import Path
from yarnstore.store.kernel import wait_lock
from yarnstore.store.layout import PackFolder, is_store
from yarnstore.store.registry_cache import REGISTRY_FILE

_FOLDER_MODE = 0o755


def timestamp(now: datetime) -> str:
    """Return the time as RFC 3339, in UTC, to the second."""
    return now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass(frozen=True)
class RegistryFolder:
    """A registry folder to publish to."""

    root: Path

    @property
    def packs(self) -> PackFolder:
        return PackFolder(self.root / "packs", self.tmp)

    @property
    def deltas(self) -> PackFolder:
        return PackFolder(self.root / "deltas", self.tmp)

    @property
    def tmp(self) -> Path:
        return self.root / ".tmp"

    def model_file(self, model: str) -> Path:
        """Return the path of the model's own file."""
        return self.root / "models" / f"{model_dirname(model)}.json"

    def refuse_other_kinds(self) -> None:
        """Raise UsageError if the path is a file, is below one, or is a store."""
        place = next((path for path in (self.root, *self.root.parents) if os.path.lexists(path)), self.root)
        if os.path.exists(place) and not os.path.isdir(place):
            what = f"{place} is not a folder"
        elif is_store(self.root):
            what = f"{self.root} is a store"
        else:
            return
        raise UsageError(what, hint="give the folder of a registry")

    def read(self) -> RawDoc | None:
        """Return the raw `registry.json`, or None if it does not exist.  Raises: FormatError."""
        try:
            data = fsread.read_bytes(self.root / REGISTRY_FILE, REGISTRY_LIMIT_BYTES)
        except NotFoundError:
            return None
        parse_registry(data, source=str(self.root))
        return decode_registry(data)

    def models(self) -> list[str]:
        """Return the ids of the models that have a file of their own."""
        found = []
        for name in fsread.list_names(self.root / "models"):
            with contextlib.suppress(InvalidNameError):
                if name.endswith(".json"):
                    found.append(model_from_dirname(name.removesuffix(".json")))
        return sorted(found)

    def entry(self, model: str) -> ModelEntry | None:
        """Return the registry's entry of a model, split or not; None if it does not list it.

        Raises: FormatError.
        """
        raw = self.read()
        if raw is None:
            return None
        found = self._own(model) if raw.get("split") else raw["models"].get(model)
        return None if found is None else check_raw_model(found, model)

    def entries(self) -> Iterator[ModelEntry]:
        """Yield the entries of all models, split or not.  Raises: FormatError."""
        raw = self.read()
        if raw is None:
            return
        split = bool(raw.get("split"))
        for model in self.models() if split else raw_models(raw):
            found = self._own(model) if split else raw_models(raw)[model]
            if found is not None:
                yield check_raw_model(found, model)

    def manifest(self, digest: Sha256) -> Manifest:
        """Return a manifest of the registry.  Raises: NotFoundError, IntegrityError, FormatError."""
        path = self.root / "manifests" / f"{digest.hex}.json"
        return Manifest.parse(fsread.read_bytes(path, MANIFEST_LIMIT_BYTES), expected=digest)

    def _own(self, model: str) -> RawDoc | None:
        """Return the model's own file, raw, or None.  Raises: FormatError."""
        path = self.model_file(model)
        try:
            data = fsread.read_bytes(path, REGISTRY_MODEL_LIMIT_BYTES)
        except NotFoundError:
            return None
        return decode_model(data, f"models/{path.name}")

    @contextlib.contextmanager
    def editing(self) -> Iterator[None]:
        """Lock the registry's JSON, for milliseconds only."""
        fd = lock.open_folder(self.root, stand_in=self.tmp / "lock")
        try:
            wait_lock(fd)
            self._even_modes()
            yield
            self._even_modes()
        finally:
            os.close(fd)

    def make(self) -> None:
        """Create the registry's folder if necessary, readable by all regardless of the umask."""
        if not self.root.exists():
            fsio.ensure_dir(self.root)
            fsio.set_mode(self.root, _FOLDER_MODE)

    def _even_modes(self) -> None:
        """Give each folder the mode of the registry's folder, regardless of the umask when it was made."""
        mode = stat.S_IMODE(self.root.stat().st_mode)
        for name in ("packs", "deltas", "manifests", "models"):
            found = fsread.stat_or_none(self.root / name)
            if found is not None and stat.S_ISDIR(found.st_mode) and stat.S_IMODE(found.st_mode) != mode:
                with contextlib.suppress(StorageError):  # another user's folder
                    fsio.set_mode(self.root / name, mode)

    def edit(self, model: str, change: Callable[[RawDoc], bool], *, now: str, split: bool = False) -> bool:
        """Change one model by `change`, which gets a raw registry with that model and returns whether it
        changed.

        The registry is read again under its lock.  If it is split, `change` gets only this model; `split`
        makes any registry split.  The model's own file is written before `registry.json`.

        Raises: as `change`, in which case nothing is written; ConflictError, FormatError, StorageError.
        """
        with self.editing():
            raw = self.read() or new_registry(now)
            was_split = bool(raw.get("split"))
            whole = raw
            if was_split:
                whole = {**raw, "models": self._alone(model)}
            changed = change(whole)
            if split and not was_split:
                self._split(whole, now)
                return True
            if changed:
                self._write(self.model_file(model), raw_models(whole)[model])
                self._write(self.root / REGISTRY_FILE, {**whole, "models": {}} if was_split else whole)
            return changed

    def _alone(self, model: str) -> RawDoc:
        own = self._own(model)
        if own is None:
            refuse_other_case(self.models(), model)
            return {}
        return {model: own}

    def _split(self, raw: RawDoc, now: str) -> None:
        """Give every model a file of its own, and then remove all of them from `registry.json`."""
        for model, entry in raw_models(raw).items():
            check_raw_model(entry, model)
            if self._own_or_none(model) != entry:
                self._write(self.model_file(model), entry)
        rest = {key: value for key, value in raw.items() if key not in ("models", "split")}
        at = next_timestamp(now, raw.get("last_updated"))
        self._write(self.root / REGISTRY_FILE, {**rest, "last_updated": at, "split": True, "models": {}})

    def _own_or_none(self, model: str) -> RawDoc | None:
        with contextlib.suppress(FormatError):
            return self._own(model)
        return None

    def _write(self, path: Path, raw: dict[str, Any]) -> None:
        fsio.write_atomic(path, encode_registry(raw), tmp_dir=self.tmp)
