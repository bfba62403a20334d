"""The mirrors of one registry or one file: their order, their connections, and their failures."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Final, Literal

import msgspec

from yarnstore.backends.base import Backend, Body
from yarnstore.backends.sources.faults import reason_of
from yarnstore.errors import BackendError, TransientError, UsageError

# Answers broken off in a row until a mirror is put last.
_STRIKES: Final = 2

Kind = Literal["lied", "stalled", "unreachable"]


class Fault(msgspec.Struct, frozen=True):
    """Why a mirror is tried last."""

    url: str
    kind: Kind
    why: str


# Told once for each mirror that is put last.
OnFault = Callable[[Fault], None]


class Mirror(msgspec.Struct, frozen=True):
    """One address: `url` is its name without credentials; `connect` makes its backend when needed.

    Only `trusted` mirrors are used for files that no hash covers.
    """

    url: str
    connect: Callable[[], Backend]
    trusted: bool = False


class MirrorState(msgspec.Struct):
    """A mirror and its failures so far."""

    mirror: Mirror
    backend: Backend | None = None
    fault: Fault | None = None
    put_last_at: int = 0
    strikes: int = 0
    served: bool = False
    lock: threading.Lock = msgspec.field(default_factory=threading.Lock)


class Mirrors:
    """Several mirrors; the first is the registry's own address.

    `put_last` are the names of mirrors that failed before, in the order of their failures.
    """

    def __init__(
        self, mirrors: Sequence[Mirror], *, on_fault: OnFault | None = None, put_last: Sequence[str] = ()
    ) -> None:
        if not mirrors:
            raise ValueError("no mirror")
        # One that is named twice is asked once, and is trusted if its first name is.
        distinct = {mirror.url: mirror for mirror in reversed(mirrors)}
        self._members = [
            MirrorState(distinct[url]) for url in dict.fromkeys(mirror.url for mirror in mirrors)
        ]
        self._on_fault = on_fault
        self._lock = threading.Lock()
        self._count_last = len(put_last)
        for member in self._members:
            if member.mirror.url in put_last:
                member.put_last_at = 1 + put_last.index(member.mirror.url)
        self._put_last_before = tuple(put_last)

    @property
    def url(self) -> str:
        """See `Backend.url`.  Raises: UsageError, ConfigError if the first address is not valid."""
        return self._backend_of(self._members[0]).url

    def add(self, mirror: Mirror) -> None:
        """Add a mirror at the end; one that is already there changes nothing."""
        with self._lock:
            if all(member.mirror.url != mirror.url for member in self._members):
                before = self._put_last_before
                place = 1 + before.index(mirror.url) if mirror.url in before else 0
                self._members.append(MirrorState(mirror, put_last_at=place))

    @property
    def sources(self) -> tuple[str, ...]:
        """Return the names of the mirrors, in the order in which they were given."""
        with self._lock:
            return tuple(member.mirror.url for member in self._members)

    @property
    def faults(self) -> tuple[Fault, ...]:
        """Return the failures so far, one for each mirror."""
        with self._lock:
            return tuple(member.fault for member in self._members if member.fault is not None)

    @property
    def served(self) -> tuple[str, ...]:
        """Return the mirrors that sent something and are not tried last."""
        with self._lock:
            return tuple(m.mirror.url for m in self._members if m.served and m.fault is None)

    def close(self) -> None:
        """Close the backends of all mirrors that were used."""
        for member in self._members:
            with member.lock:
                if member.backend is not None:
                    member.backend.close()

    # --- for the loop --------------------------------------------------------------------------

    def _order(self, key: str, avoid: Collection[str]) -> list[MirrorState]:
        with self._lock:
            members = list(self._members)
        if "://" in key:
            members = members[:1]  # an address of its own, which no mirror has under that name
        elif not _is_hashed(key):
            members = [member for member in members if member.mirror.trusted or member is members[0]]
        members = [member for member in members if member.mirror.url not in avoid]
        return sorted(members, key=lambda member: member.put_last_at)

    def _backend_of(self, member: MirrorState) -> Backend:
        with member.lock:
            if member.backend is None:
                try:
                    member.backend = member.mirror.connect()
                except UsageError as error:
                    if member is self._members[0]:
                        raise
                    raise BackendError(member.mirror.url, error.message) from None
            return member.backend

    def _watched(self, member: MirrorState, body: Body) -> Iterator[bytes]:
        try:
            yield from body
        except TransientError as error:
            member.strikes += 1
            if error.reason == "stalled":
                self._put_last(member, "stalled", reason_of(error))
            elif member.strikes >= _STRIKES:
                self._put_last(member, "unreachable", reason_of(error))
            raise
        except BackendError as error:  # more than was announced
            self._put_last(member, "lied", reason_of(error))
            raise
        member.strikes = 0

    def _put_last(self, member: MirrorState, kind: Kind, why: str) -> None:
        with self._lock:
            known = member.fault
            self._count_last += 1
            member.put_last_at = self._count_last
            if known is None or (kind == "lied" and known.kind != "lied"):
                member.fault = Fault(member.mirror.url, kind, why)
            told = member.fault if known is None else None
        if told is not None and self._on_fault is not None:
            self._on_fault(told)

    def _blame(self, source: str, why: str) -> None:
        """Put the source that sent wrong bytes last."""
        for member in self._members:
            if member.mirror.url == source:
                self._put_last(member, "lied", why)


def _is_hashed(key: str) -> bool:
    """Whether the file under `key` is named by its hash, or compared with one."""
    return key.startswith(("packs/", "deltas/", "manifests/"))
