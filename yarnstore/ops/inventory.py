"""`list`, `path`, `status`: what is in the store, without the network."""

from __future__ import annotations

from dataclasses import dataclass

from yarnstore.core.manifest import Manifest
from yarnstore.errors import IntegrityError, NotFoundError
from yarnstore.ops.checkout import ensure_view, not_installed
from yarnstore.ops.fetch import bring
from yarnstore.ops.resolve import local_target
from yarnstore.ops.session import Session
from yarnstore.registry.spec import Exact, Spec
from yarnstore.store import fsread
from yarnstore.store.chunks import load_indexes
from yarnstore.store.files import has_view, hold_view, installed_path, last_use, note_use, version_path
from yarnstore.store.refs import VersionName


@dataclass(frozen=True)
class InstalledModel:
    """One installed model; times are milliseconds since 1970, 0 where never."""

    model: str
    version: str
    variant: str
    size_bytes: int
    installed_ms: int
    last_used_ms: int
    uses: int
    pinned: bool
    path: str
    manifest: str


def list_installed(session: Session) -> list[InstalledModel]:
    """The installed models, by id.

    Raises: IntegrityError where a ref or manifest is damaged.
    """
    refs, layout = session.refs, session.layout
    rows = []
    for model in refs.installed_models():
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
        moves = refs.moves(model)
        uses, used_s = last_use(layout, current.manifest)
        rows.append(
            InstalledModel(
                model,
                current.version,
                current.variant,
                manifest.size_bytes,
                moves[-1].time_ms if moves else 0,
                int(used_s * 1000),
                uses,
                refs.pin(VersionName(model, current.variant, current.version)) is not None,
                str(installed_path(layout, manifest)),
                str(current.manifest),
            )
        )
    return rows


@dataclass(frozen=True)
class VersionPath:
    """Where a version is; `lease` is a descriptor that keeps gc from it while it is open."""

    path: str
    lease: int | None


def find_path(session: Session, spec: Spec, *, lease: bool = False) -> VersionPath:
    """What to open: of a bare model the installed version, of a full spec that version, which is
    materialised, and fetched, if need be.  Notes the use.

    Raises: NotFoundError; as `checkout` where something is to be fetched.
    """
    layout = session.layout
    if spec.selector is None and spec.variant is None:
        current = session.refs.current(spec.model)
        if current is None:
            raise not_installed(session, spec.model)
        manifest = layout.read_manifest(current.manifest)
        if not has_view(layout, manifest.digest):
            with layout.shared():
                ensure_view(session, manifest)
        path = installed_path(layout, manifest)
    else:
        manifest = _whole_version(session, spec)
        path = version_path(layout.view(manifest.digest), manifest)
    note_use(layout, manifest.digest)
    return VersionPath(str(path), hold_view(layout, manifest.digest) if lease else None)


def _whole_version(session: Session, spec: Spec) -> Manifest:
    if spec.selector is None:  # a variant alone: the installed version of it, or the latest
        current = session.refs.current(spec.model)
        if current is not None and current.variant == spec.variant:
            spec = Spec(spec.model, spec.variant, Exact(current.version))
    target = local_target(session, spec)
    if target is not None and target.manifest is not None and has_view(session.layout, target.manifest):
        return session.layout.read_manifest(target.manifest)
    with session.layout.shared():
        target, manifest, _ = bring(session, spec, materialise=True)
        ensure_view(session, manifest, target)
    return manifest


@dataclass(frozen=True)
class StoreStatus:
    """Sizes in bytes.  `raw_bytes` is what all versions weigh as plain files, `unique_bytes` what
    their distinct chunks do, `stored_bytes` the packs, `file_bytes` the materialised files."""

    root: str
    exists: bool
    models: int
    versions: int
    installed: int
    pinned: int
    packs: int
    chunks: int
    raw_bytes: int
    unique_bytes: int
    stored_bytes: int
    file_bytes: int
    free_bytes: int
    reserve_bytes: int

    @property
    def dedupe_ratio(self) -> float:
        """How many times smaller the distinct chunks are than all versions; 1 where there are none."""
        return self.raw_bytes / self.unique_bytes if self.unique_bytes else 1.0

    @property
    def compression_ratio(self) -> float:
        """How many times smaller the packs are than their chunks; 1 where there are none."""
        return self.unique_bytes / self.stored_bytes if self.stored_bytes else 1.0


def status(session: Session) -> StoreStatus:
    """What the store holds.  Raises: StorageError."""
    refs, layout = session.refs, session.layout
    versions = refs.versions()
    raw = 0
    for name in versions:
        digest = refs.version(name)
        if digest is not None:
            raw += layout.read_manifest(digest).size_bytes
    indexes = load_indexes(layout.pack_folder, rebuild=False).indexes
    free, reserve = fsread.free_bytes(layout.root)
    return StoreStatus(
        str(layout.root),
        layout.exists(),
        len({name.model for name in versions} | set(refs.installed_models())),
        len(versions),
        len(refs.installed_models()),
        len(refs.pins()),
        len(indexes),
        sum(len(index) for index in indexes),
        raw,
        sum(int(index.plain.sum()) for index in indexes),
        sum(index.pack_bytes for index in indexes),
        fsread.sum_sizes([layout.files / name for name in fsread.list_names(layout.files)]),
        free,
        reserve,
    )
