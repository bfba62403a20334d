"""`import --from-local-state`: import and install the models of an older tool.

Each file is hashed while it is imported.  A model whose checksum differs from the list is refused, and the
others are imported; `gc` deletes its stored chunks.  docs/migrating.md describes the list.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import Any, Literal

from yarnstore.core.digest import Sha256
from yarnstore.core.names import DEFAULT_VARIANT, parse_model_id, read_version
from yarnstore.errors import FormatError, IntegrityError, NotFoundError, YarnstoreError
from yarnstore.ops.installing.activate import activate
from yarnstore.ops.installing.checkout import make_whole
from yarnstore.ops.local.import_export import import_source
from yarnstore.ops.session.session import Session
from yarnstore.ops.session.stored import Stored, model_entry
from yarnstore.registry.select import iter_builds
from yarnstore.registry.spec import Exact, Spec
from yarnstore.store import fsread
from yarnstore.store.chunks import ChunkStore
from yarnstore.store.filepath import Path
from yarnstore.store.refs import VersionName
from yarnstore.store.state import STATE_LIMIT_BYTES, parse_state


@dataclass(frozen=True)
class TakenModel:
    """The result of importing one model of a `local-state.json`."""

    model: str
    version: str
    #: `stored`: imported, but another version stays installed.
    status: Literal["installed", "stored", "failed"]
    source: str  #: The file or folder that was imported.
    size_bytes: int
    path: str | None = None  #: The path to open, if it was installed.
    error: dict[str, object] | None = None


@dataclass(frozen=True)
class TakeoverResult:
    """The result of importing a `local-state.json`."""

    source: str  #: The path of the `local-state.json`.
    models: list[TakenModel]  #: The result for each model.

    @property
    def failed(self) -> int:
        """How many models failed."""
        return sum(item.status == "failed" for item in self.models)


def take_over(session: Session, source: Path) -> TakeoverResult:
    """Import and install every model that a `local-state.json` lists.

    A relative path in it is looked for beside the file and in the folders above it, since the older tools
    wrote `./models/NAME`, relative to the project's folder.  If another version of a model is installed here,
    it stays installed.

    Raises: NotFoundError, FormatError if the list itself cannot be read.
    """
    state = parse_state(fsread.read_bytes(source, STATE_LIMIT_BYTES), source=str(source))
    done = []
    for model, entry in state["installed_models"].items():
        try:
            done.append(_take(session, source.parent, model, entry))
        except YarnstoreError as error:
            done.append(
                TakenModel(
                    model,
                    str(entry.get("version", "")),
                    "failed",
                    str(entry.get("file_path", "")),
                    0,
                    error=error.as_dict(),
                )
            )
    return TakeoverResult(str(source), done)


def _take(session: Session, folder: Path, model: str, entry: dict[str, Any]) -> TakenModel:
    started = time.perf_counter()
    model = parse_model_id(model)
    version = read_version(_text(entry, model, "version"))
    named = _text(entry, model, "file_path")
    checksum = _checksum(entry, model)
    size = entry.get("size_bytes")
    place = _find(folder, named, size)
    if place is None:
        above = "" if os.path.isabs(named) else f"; nor does {named} in a folder above it"
        raise NotFoundError(
            "file", str(folder / named), hint=f"it is listed for {model}, but does not exist{above}"
        )
    if place.is_file() and isinstance(size, int) and size != place.stat().st_size:
        raise IntegrityError(
            f"{model} {version}",
            expected=f"{size} bytes",
            got=f"{place.stat().st_size} bytes",
            source=str(place),
            hint=f"`ystore checkout {model}@{version}` downloads it again",
        )
    spec = Spec(model, _variant(session, model, version, checksum), Exact(version))
    # The lock is held until the version is installed, so that gc does not delete it.
    with session.layout.shared(), ChunkStore(session.layout) as chunks:
        imported = import_source(session, place, spec, expected=checksum, all_files=True, chunks=chunks)
        manifest = session.layout.read_manifest(Sha256.parse(imported.manifest))
        current = session.refs.current(model)
        if current is not None and current.manifest != manifest.digest:
            return TakenModel(model, version, "stored", str(place), manifest.size_bytes)
        name = VersionName(manifest.model, manifest.variant, manifest.version)
        make_whole(session, manifest, Stored(name, manifest), chunks)
        done = activate(session, manifest, "import", started)
    return TakenModel(
        model=model,
        version=version,
        status="installed",
        source=str(place),
        size_bytes=manifest.size_bytes,
        path=done.path,
    )


def _find(folder: Path, named: str, size: object) -> Path | None:
    """Return the file that a list in `folder` names: the nearest one of the right size, else the nearest.

    Its checksum is compared afterwards.
    """
    real = folder.resolve()
    places = [above / named for above in (folder, *folder.parents, real, *real.parents)]
    there = [place for place in dict.fromkeys(places) if fsread.stat_or_none(place) is not None]
    right = [place for place in there if place.is_file() and place.stat().st_size == size]
    return next(iter([*right, *there]), None)


def _text(entry: dict[str, Any], model: str, key: str) -> str:
    value = entry.get(key)
    if not isinstance(value, str) or not value:
        raise FormatError(f'installed_models["{model}"].{key}', "is not text")
    if "\0" in value:
        raise FormatError(
            f'installed_models["{model}"].{key}', "contains a NUL character, which paths cannot contain"
        )
    return value


def _checksum(entry: dict[str, Any], model: str) -> Sha256:
    return Sha256.parse(_text(entry, model, "checksum").strip().lower())


def _variant(session: Session, model: str, version: str, checksum: Sha256) -> str:
    """Return the variant that a cached registry has under this checksum, so that updates keep to it."""
    found = model_entry(session, model)
    for build in iter_builds(found[1]) if found else ():
        promised = build.entry.checksum
        if build.version == version and promised and Sha256.parse(promised) == checksum:
            return build.variant or DEFAULT_VARIANT
    return DEFAULT_VARIANT
