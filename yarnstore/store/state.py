"""`local-state.json`: a list for other programs of installed versions, with the times of installation and
last use.

docs/format/store.md governs it.  The refs, the reflogs, the records of use and `config.toml` are
authoritative; this file is made from them whenever they change, within `Refs.moving`.  Keys of other programs
are kept.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from yarnstore.core.canonical import parse_json_object
from yarnstore.core.digest import Sha256
from yarnstore.core.limits import MIB
from yarnstore.core.manifest import Manifest
from yarnstore.errors import FormatError, IntegrityError, NotFoundError, StorageError, YarnstoreError
from yarnstore.store import fsio, fsread, trash
from yarnstore.store.filepath import Path
from yarnstore.store.layout import StoreLayout
from yarnstore.store.refs import Refs
from yarnstore.store.views import last_use, linked_path, version_path

STATE_FILE = "local-state.json"
STATE_LIMIT_BYTES = 64 * MIB


def state_path(layout: StoreLayout) -> Path:
    """Return the path of the file."""
    return layout.root / STATE_FILE


def format_iso(time_ms: int) -> str | None:
    """Return a time in UTC as `2024-05-03T14:02:00Z`; None for 0, and for a time outside of the calendar."""
    if not time_ms:
        return None
    try:
        return datetime.fromtimestamp(time_ms // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (OverflowError, OSError, ValueError):
        return None


def parse_state(data: bytes, *, source: str = STATE_FILE) -> dict[str, Any]:
    """Return the object in the file, with an object in `installed_models`.  Raises: FormatError."""
    found = parse_json_object(data.removeprefix(b"\xef\xbb\xbf"), source)
    models = found.get("installed_models")
    if not isinstance(models, dict) or not all(isinstance(item, dict) for item in models.values()):
        raise FormatError(source, "has no valid installed_models")
    return found


def read_state(layout: StoreLayout) -> dict[str, Any] | None:
    """Return the content of the file; None if it does not exist.  Raises: FormatError, StorageError."""
    try:
        return parse_state(fsread.read_bytes(state_path(layout), STATE_LIMIT_BYTES))
    except NotFoundError:
        return None


def write_state(
    layout: StoreLayout,
    *,
    changed: Manifest | None = None,
    last_check_ms: int = 0,
    auto_update: bool | None = None,
    anew: bool = False,
) -> bool:
    """Update the file, within `Refs.moving`; return whether it had to be written.

    `changed` is the model that was just installed; `last_check_ms` and `auto_update` replace the old values.
    With `anew`, all entries are made again if possible.

    Raises: StorageError.
    """
    damaged = False
    try:
        before = read_state(layout) or {}
    except (FormatError, StorageError):
        before, damaged = {}, True
        with contextlib.suppress(StorageError):
            if fsread.is_file(state_path(layout)):
                trash.keep_copy(state_path(layout), layout.trash)  # it may have keys of other programs
    entries = before.get("installed_models", {})
    after = {
        "installed_models": {
            model: entry
            for model in Refs(layout).installed_models()
            if (entry := _entry(layout, model, entries.get(model), changed, anew=anew)) is not None
        },
        "last_check": format_iso(last_check_ms) or _time_or_none(before.get("last_check")),
        "auto_update_enabled": auto_update
        if auto_update is not None
        else before.get("auto_update_enabled") is True,
    }
    document = {**before, **after}
    if not damaged:
        if document == before:
            return False
        if not before and not after["installed_models"] and not last_check_ms and not auto_update:
            return False  # no installed model yet
    data = msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n"
    fsio.write_atomic(state_path(layout), data, tmp_dir=layout.tmp)
    return True


def _entry(
    layout: StoreLayout, model: str, old: Mapping[str, Any] | None, changed: Manifest | None, *, anew: bool
) -> dict[str, Any] | None:
    """Return the entry of a model.

    A model that did not change keeps its entry, with a new last use unless another model `changed`.
    """
    of_another = changed is not None and changed.model != model and not anew
    if of_another and old is not None and _is_below(old.get("file_path"), layout.root):
        return dict(old)  # so that a move is fast with any number of models
    refs = Refs(layout)
    try:
        digest = refs.installed(model)
        if digest is None:
            return None
        if changed is not None and changed.digest == digest:
            return {**(old or {}), **installed_entry(layout, model, digest, changed)}
        moved = refs.last_move(model)
        if anew or old is None or moved is None or moved.new is None:
            return {**(old or {}), **installed_entry(layout, model, digest)}
        same = (old.get("version"), old.get("installed_at")) == (moved.new.version, format_iso(moved.time_ms))
        if not same or not _is_below(old.get("file_path"), layout.root):  # the store may have been moved
            return {**old, **installed_entry(layout, model, digest)}
        return {**old, "last_used": format_iso(int(last_use(layout, digest)[1] * 1000))}
    except (IntegrityError, NotFoundError):
        return dict(old) if old is not None else None  # fsck repairs the ref or its manifest


def installed_entry(
    layout: StoreLayout, model: str, digest: Sha256, manifest: Manifest | None = None
) -> dict[str, Any]:
    """Make the entry of an installed model from the refs and the records of use.

    Raises: NotFoundError, IntegrityError if these or the manifest cannot be read.
    """
    manifest = manifest or layout.read_manifest(digest)
    moved = Refs(layout).last_move(model)
    return {
        "model_id": model,
        "version": manifest.version,
        "installed_at": format_iso(moved.time_ms if moved else 0),
        "last_used": format_iso(int(last_use(layout, digest)[1] * 1000)),
        "file_path": str(linked_path(layout, manifest)),
        "checksum": str(manifest.checksum),
        "size_bytes": manifest.size_bytes,
    }


def state_fault(layout: StoreLayout) -> str:
    """Return how the file differs from the refs, within `Refs.moving`; empty if it is equal or does not
    exist.

    A store of an earlier release has no such file; the next change writes it.  Models with unreadable refs,
    logs or manifests are ignored, since `fsck` reports these.
    """
    try:
        found = read_state(layout)
    except YarnstoreError as error:
        return str(error.fields.get("why") or error.message)
    if found is None:
        return ""
    refs = Refs(layout)
    entries = found["installed_models"]
    fault = ""
    for model in refs.installed_models():
        try:
            digest = refs.installed(model)
            manifest = layout.read_manifest(digest) if digest is not None else None
            if digest is None or manifest is None or refs.log_fault(model):
                continue
            wanted = installed_entry(layout, model, digest, manifest)
        except YarnstoreError:
            continue
        if model not in entries:
            fault = fault or f"does not list {model}, which is installed"
            continue
        wrong = _wrong_keys(layout, entries[model], wanted, manifest)
        if wrong:
            fault = fault or f"has wrong values for {model}: {', '.join(wrong)}"
    extra = sorted(set(entries) - set(refs.installed_models()) - set(refs.logged_models()))
    gone = [model for model in sorted(set(entries) - set(extra)) if _is_removed(refs, model)]
    if extra or gone:
        fault = fault or f"lists {(extra or gone)[0]}, which is not installed"
    return fault or _odd_settings(found)


def _is_below(path: object, root: Path) -> bool:
    return isinstance(path, str) and path.startswith(f"{root}{os.sep}")


def _is_removed(refs: Refs, model: str) -> bool:
    """Whether a model was removed according to its log."""
    with contextlib.suppress(YarnstoreError):
        return refs.installed(model) is None and not refs.log_fault(model)
    return False


def _wrong_keys(
    layout: StoreLayout, entry: Mapping[str, Any], wanted: Mapping[str, Any], manifest: Manifest
) -> list[str]:
    wrong = [key for key in wanted if key not in ("last_used", "file_path") and entry.get(key) != wanted[key]]
    paths = (
        version_path(layout.model_link(manifest.model), manifest),  # a wrong link is reported separately
        version_path(layout.view(manifest.digest), manifest),
    )
    # After a move of the whole store, the next change corrects the paths.
    ends = tuple(f"{os.sep}{path.relative_to(layout.root)}" for path in paths)
    if not str(entry.get("file_path")).endswith(ends):
        wrong.append("file_path")
    if "last_used" not in entry or not _is_time(entry["last_used"]):
        wrong.append("last_used")
    return wrong


def _odd_settings(found: Mapping[str, Any]) -> str:
    if "last_check" not in found or not _is_time(found["last_check"]):
        return "has a last_check that is not a time"
    if not isinstance(found.get("auto_update_enabled"), bool):
        return "has an auto_update_enabled that is not true or false"
    return ""


def _time_or_none(value: object) -> object:
    return value if _is_time(value) else None


def _is_time(value: object) -> bool:
    if value is None:
        return True
    try:
        return isinstance(value, str) and datetime.fromisoformat(value).tzinfo is not None
    except ValueError:
        return False
