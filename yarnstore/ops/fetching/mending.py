"""Work that reads a stored version, and downloads again what is damaged."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from yarnstore.core.manifest import Manifest
from yarnstore.errors import IntegrityError
from yarnstore.ops.fetching.fetch import ensure_chunks, lost_version, offered_again, repairing
from yarnstore.ops.fetching.ways import PackOffer
from yarnstore.ops.session.lookup import Found, Offered
from yarnstore.ops.session.session import Session
from yarnstore.store.chunks import ChunkStore
from yarnstore.store.drafts import Drafts

_T = TypeVar("_T")


def mended(
    session: Session,
    manifest: Manifest,
    found: Found,
    chunks: ChunkStore,
    work: Callable[[], _T],
    drafts: Drafts | None = None,
) -> _T:
    """Return what `work` returns.  If it meets damaged chunks, they are downloaded, each once, and it is
    called again.

    `found` is the version as it was stored; `drafts` are files into which its chunks are downloaded.

    Raises: IntegrityError, BackendError; as `work`.
    """
    fetched: set[bytes] = set()
    while True:
        try:
            return work()
        except IntegrityError:
            bad = set(chunks.bad)
            if not bad - fetched:
                raise
            # A damaged file is replaced only after a source for it was found.
            offer = _offer_of(session, manifest, found)
            chunks.forget(bad)  # and read the disk again, since it differs from memory
        fetched |= bad
        packs = PackOffer.of(offer.build.entry, offer.entry)
        with repairing(found.name):
            ensure_chunks(session, offer.source, manifest, packs, chunks, drafts)


def _offer_of(session: Session, manifest: Manifest, found: Found) -> Offered:
    """Return a registry's offer of a version that is damaged here.  Raises: IntegrityError, BackendError."""
    session.note(f"{manifest.label}: chunks are corrupt in this store; downloading them again")
    with repairing(found.name):
        offer = found if isinstance(found, Offered) else offered_again(session, found.name)
    if not offer.build.entry.manifest:
        raise lost_version(found.name)
    return offer
