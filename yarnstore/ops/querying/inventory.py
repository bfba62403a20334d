"""`list`: list the installed models from the store only, without the network or the decoders.

`store/refs` reads refs; `registry/standing` has what registries say about a version.
"""

from __future__ import annotations

from collections.abc import Collection

from yarnstore.core.record import Record
from yarnstore.errors import IntegrityError, NotFoundError
from yarnstore.ops.querying.standing import standing_here
from yarnstore.ops.session.session import Session
from yarnstore.ops.session.stored import pin_rule_of
from yarnstore.registry.standing import Standing
from yarnstore.store.views import last_use, view_path


class InstalledModel(Record, frozen=True):
    """One installed model."""

    model: str
    version: str
    variant: str
    size_bytes: int
    installed_ms: int  #: When it was installed.
    last_used_ms: int  #: When it was last used, 0 if never.
    uses: int  #: How often it was used.
    pinned: bool  #: Whether this version is pinned.
    path: str  #: The path to open.
    manifest: str
    pin: str | None = None  #: The version, range or variant that is pinned.
    standing: Standing | None = None  #: What the cached registries say about the version.
    checksum: str = ""  #: The SHA-256 of the file, or of the manifest if the version has several files.


def list_installed(session: Session, models: Collection[str] = ()) -> list[InstalledModel]:
    """Return the installed models by id, or those of `models` that are installed.

    Raises: IntegrityError if a ref or a manifest is damaged.
    """
    refs, layout = session.refs, session.layout
    rows = []
    for model in sorted(models) or refs.installed_models():
        current = refs.current(model)
        if current is None:
            continue
        try:
            manifest = layout.read_manifest(current.manifest)
        except NotFoundError:
            raise IntegrityError(
                f"the manifest of {model} {current.version}",
                why="is missing from the store",
                hint="`ystore fsck --repair` fetches it again",
            ) from None
        moved = refs.last_move(model)
        uses, used_s = last_use(layout, current.manifest)
        hold = pin_rule_of(session, model, current)
        rows.append(
            InstalledModel(
                model=model,
                version=current.version,
                variant=current.variant,
                size_bytes=manifest.size_bytes,
                installed_ms=moved.time_ms if moved else 0,
                last_used_ms=int(used_s * 1000),
                uses=uses,
                pinned=hold.version is not None,
                path=str(view_path(layout, manifest)),
                manifest=str(current.manifest),
                pin=str(hold) or None,
                standing=standing_here(session, model, current),
                checksum=str(manifest.checksum),
            )
        )
    return rows
