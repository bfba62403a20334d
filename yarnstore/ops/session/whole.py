"""The check before a view is used: it matches its manifest, and no file changed since it was hashed.

Costs one `lstat` per file if nothing changed.  Imports nothing that decodes, so that `ystore path` and
`ystore rollback` start fast; a view that does not match is made again by `ops/installing/checkout`.
"""

from __future__ import annotations

from yarnstore.core.manifest import Manifest
from yarnstore.ops.session.session import Session
from yarnstore.progress import Meter
from yarnstore.store import hashed
from yarnstore.store.views import seal_view, unknown_files, view_files


def is_whole(session: Session, manifest: Manifest, *, verify: bool = True) -> bool:
    """Whether a version's view matches its manifest; files that changed since they were hashed are hashed.

    Without `verify` no file is hashed, so that other bytes of the same size are not noticed.

    Raises: StorageError.
    """
    layout = session.layout
    if not verify:
        return view_files(layout, manifest) is not None
    unknown = unknown_files(layout, manifest)
    if unknown:
        with hashed.locked(layout):  # it may be the store itself that is changing them
            unknown = unknown_files(layout, manifest)
    if unknown is None:
        return False
    meter = Meter(session.activity.report, "check", manifest.label, sum(file.size_bytes for file in unknown))
    view = layout.view(manifest.digest)
    if not all(hashed.hashes_to(layout, view / file.path, file.sha256, meter.add) for file in unknown):
        return False
    seal_view(layout, manifest)
    return True
