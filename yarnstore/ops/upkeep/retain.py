"""Retention: delete old versions after an update, as the settings say."""

from __future__ import annotations

import msgspec

from yarnstore.errors import YarnstoreError
from yarnstore.ops.session.session import Session
from yarnstore.ops.upkeep.gc import GcPolicy, gc
from yarnstore.progress import format_size
from yarnstore.registry.policies import Retention

# An update is done when its version is installed: it does not wait for other processes to free space.
_PATIENCE_S = 2.0


def apply_retention(session: Session, retention: Retention) -> int:
    """Do what `gc` would by itself, where a retention is set; the bytes that were freed.

    Where it cannot be done now, a note says so; the next update does it.
    """
    if not retention.is_set:
        return 0
    layout = session.layout
    patience_s = min(layout.lock_timeout_s, _PATIENCE_S)
    brief = msgspec.structs.replace(
        session, layout=msgspec.structs.replace(layout, lock_timeout_s=patience_s, on_wait=None)
    )
    try:
        done = gc(brief, GcPolicy.of(retention))
    except YarnstoreError as error:
        session.note(f"older versions were not deleted this time: {error.message}")
        return 0
    if done.versions:
        session.note(f"deleted {', '.join(done.versions)}, as keep and keep_within say: "
                     f"{format_size(done.freed_bytes)} freed")  # fmt: skip
    return done.freed_bytes
