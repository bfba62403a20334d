"""Several addresses of one registry, asked in order, each request on its own.

Owns the order: a mirror that lies, stalls or cannot be reached is put behind the others for as long as
this object lives.  Leaves to its caller what only a hash can tell, that bytes are wrong: `report_bad_bytes`,
and `avoid`, which passes a mirror over in one request.

What no hash covers, `registry.json` and `models/`, is asked of trusted mirrors alone: the registry's
own address, and those that this machine's user has named.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Final, Literal, Protocol, TypeVar

import msgspec

from yarnstore.backends.base import Backend, Body, Fetched, oversize_error
from yarnstore.backends.retry import RetryPolicy, Sleep, Tries
from yarnstore.core.digest import Buffer
from yarnstore.errors import (
    BackendError,
    CancelledError,
    FormatError,
    IntegrityError,
    MissingKeyError,
    OfflineError,
    TransientError,
    UsageError,
)

T = TypeVar("T")

# A mirror gets so many tries at one thing before the next is asked (ollama#8105 never stopped).
TRIES_PER_MIRROR: Final = 2
# Answers broken off in a row until a mirror is put last.
_STRIKES: Final = 2

# So often a wait asks whether it is stopped, in seconds.
_STOP_POLL_S: Final = 0.05
_UNSATISFIABLE: Final = 416

Kind = Literal["lied", "stalled", "unreachable"]


class Fault(msgspec.Struct, frozen=True):
    """Why a mirror was put last."""

    url: str
    kind: Kind
    why: str


# Told once for each mirror that is put last.
OnFault = Callable[[Fault], None]
# (the failure, seconds until the next try)
OnWait = Callable[[TransientError, float], None]


class Mirror(msgspec.Struct, frozen=True):
    """One address: `url` is its name here, without credentials; `connect` makes its backend when needed.

    `trusted` mirrors may say what no hash covers.
    """

    url: str
    connect: Callable[[], Backend]
    trusted: bool = False


class _Member(msgspec.Struct):
    mirror: Mirror
    backend: Backend | None = None
    fault: Fault | None = None
    put_last_at: int = 0
    strikes: int = 0
    served: bool = False
    lock: threading.Lock = msgspec.field(default_factory=threading.Lock)


class SourceSet:
    """A `Backend` over several, which hold the same files; the first is the registry's own address.

    Whatever one does not give, for whichever reason, the next is asked for.  With one mirror alone it
    tries as often as `policy` says, with several each gets two tries.  `put_last` are the names of mirrors
    that failed before, the first of them first.
    """

    def __init__(
        self,
        mirrors: Sequence[Mirror],
        *,
        policy: RetryPolicy | None = None,
        sleep: Sleep = time.sleep,
        on_fault: OnFault | None = None,
        on_wait: OnWait | None = None,
        put_last: Sequence[str] = (),
    ) -> None:
        if not mirrors:
            raise ValueError("no mirror")
        # One that is named twice is asked once, and is trusted if its first name is.
        distinct = {mirror.url: mirror for mirror in reversed(mirrors)}
        self._members = [_Member(distinct[url]) for url in dict.fromkeys(mirror.url for mirror in mirrors)]
        self.policy = policy or RetryPolicy()
        self._sleep = sleep
        self._on_fault = on_fault
        self._on_wait = on_wait
        self._lock = threading.Lock()
        self._count_last = len(put_last)
        for member in self._members:
            if member.mirror.url in put_last:
                member.put_last_at = 1 + put_last.index(member.mirror.url)
        self._put_last_before = tuple(put_last)
        self.url = self._backend_of(self._members[0]).url

    def add(self, mirror: Mirror) -> None:
        """Ask one more, after those there are; one that is there already changes nothing."""
        with self._lock:
            if all(member.mirror.url != mirror.url for member in self._members):
                before = self._put_last_before
                place = 1 + before.index(mirror.url) if mirror.url in before else 0
                self._members.append(_Member(mirror, put_last_at=place))

    @property
    def sources(self) -> tuple[str, ...]:
        """The names of the mirrors, in the order they were given."""
        with self._lock:
            return tuple(member.mirror.url for member in self._members)

    @property
    def faults(self) -> tuple[Fault, ...]:
        """What was found wrong so far, a mirror once."""
        with self._lock:
            return tuple(member.fault for member in self._members if member.fault is not None)

    @property
    def served(self) -> tuple[str, ...]:
        """The mirrors that gave something, and were not put last."""
        with self._lock:
            return tuple(m.mirror.url for m in self._members if m.served and m.fault is None)

    def get(
        self, key: str, *, limit_bytes: int, etag: str = "", avoid: Collection[str] = ()
    ) -> Fetched | None:
        """See `Backend.get`.  Of an ETag only the registry's own address knows the meaning."""

        def ask(backend: Backend, member: _Member) -> Fetched | None:
            own = member is self._members[0]
            fetched = backend.get(key, limit_bytes=limit_bytes, etag=etag if own else "")
            if fetched is None:
                return None
            return Fetched(fetched.data, fetched.etag if own else "", member.mirror.url)

        return self._ask(key, avoid, ask, self.tries())[0]

    @contextmanager
    def open(
        self,
        key: str,
        *,
        start: int = 0,
        length: int | None = None,
        avoid: Collection[str] = (),
        tries: Tries | None = None,
    ) -> Iterator[Body]:
        """See `Backend.open`.  A body that breaks off stays broken; the next request may go elsewhere.

        With the `tries` of a download, this request is one of them: see `resume`.  Where the ranges that
        come are wrong, the whole file is asked for.
        """
        tries = tries or self.tries()
        with ExitStack() as stack:

            def ask(backend: Backend, _: _Member) -> Body:
                if tries.ranges:
                    return stack.enter_context(backend.open(key, start=start, length=length))
                return stack.enter_context(backend.open(key))

            body, member = self._ask(key, avoid, ask, tries)
            answer = body.passing(self._watched(member, body), member.mirror.url)
            answer.ignores_ranges |= not tries.ranges
            yield answer

    def tries(self, *, attempts: int | None = None, is_stopped: Callable[[], bool] | None = None) -> Tries:
        """The tries at one download, for `open` and `resume`."""
        return Tries(self.policy, attempts=attempts, is_stopped=is_stopped)

    def resume(self, tries: Tries, error: TransientError, gained_bytes: int) -> None:
        """Wait until a download that failed with `error` may go on with another `open`.

        Raises: TransientError, saying how often each source was asked, if none may be asked again;
        CancelledError if the wait was stopped.
        """
        source, tries.source = tries.source, None
        if source is None:
            raise error  # no answer was opened: `open` has tried as often as it may
        delay_s = tries.failed(source, error, gained_bytes)
        if all(map(tries.is_spent, tries.asked)):
            others = [url for url in tries.asked if url != source]
            raise combined_error([tries.error(url) for url in (source, *others)]) from error
        if not tries.is_spent(source):
            self._wait(tries, error, delay_s)

    def close(self) -> None:
        """Close the backends of all mirrors that were asked."""
        for member in self._members:
            with member.lock:
                if member.backend is not None:
                    member.backend.close()

    def report_bad_bytes(self, source: str, why: str) -> None:
        """Put the source that sent wrong bytes last."""
        for member in self._members:
            if member.mirror.url == source:
                self._put_last(member, "lied", why)

    # --- within --------------------------------------------------------------------------------

    def _wait(self, tries: Tries, error: TransientError, delay_s: float) -> None:
        if self._on_wait is not None:
            self._on_wait(error, delay_s)
        piece_s = delay_s if tries.is_stopped is None else _STOP_POLL_S
        while True:
            if self._sleep(min(delay_s, piece_s)) or (tries.is_stopped is not None and tries.is_stopped()):
                raise CancelledError("stopped while waiting to try again")
            delay_s -= piece_s
            if delay_s <= 0:
                return

    def _ask(
        self, key: str, avoid: Collection[str], ask: Callable[[Backend, _Member], T], tries: Tries
    ) -> tuple[T, _Member]:
        order = self._order(key, avoid)
        tries.asked = tuple(member.mirror.url for member in order)
        tries.source = None
        failures: list[BackendError] = []
        for member in order:
            url = member.mirror.url
            # One that has just failed as often as it may is not given as much time again.
            alone = len(order) == 1 and member.fault is None
            tries.allow(url, self.policy.attempts if alone else min(self.policy.attempts, TRIES_PER_MIRROR))
            if tries.is_spent(url):
                failures.append(tries.error(url))
                continue
            try:
                answer = self._ask_one(member, ask, tries)
            except TransientError as error:
                failures.append(error)
                kind: Kind = "stalled" if error.reason == "stalled" else "unreachable"
                self._put_last(member, kind, _why(error))
            except BackendError as error:
                failures.append(error)
            else:
                tries.source = url
                member.served = True
                if len(self._members) == 1:
                    member.fault = None
                return answer, member
        if not failures:
            raise BackendError(self.url, f"no mirror is left to try for {key[:200]}")
        if tries.give_up_ranges():
            return self._ask(key, avoid, ask, tries)
        raise combined_error(failures)

    def _ask_one(self, member: _Member, ask: Callable[[Backend, _Member], T], tries: Tries) -> T:
        """The only loop over tries.  Raises: TransientError, once this source has failed too often."""
        url = member.mirror.url
        while True:
            if tries.is_stopped is not None and tries.is_stopped():
                raise CancelledError("stopped")
            tries.begin()
            try:
                return ask(self._backend_of(member), member)
            except TransientError as error:
                delay_s = tries.failed(url, error)
                if tries.is_spent(url):
                    raise tries.error(url) from error
                self._wait(tries, error, delay_s)

    def _order(self, key: str, avoid: Collection[str]) -> list[_Member]:
        with self._lock:
            members = list(self._members)
        if "://" in key:
            members = members[:1]  # an address of its own, which no mirror has under that name
        elif not _is_hashed(key):
            members = [member for member in members if member.mirror.trusted or member is members[0]]
        members = [member for member in members if member.mirror.url not in avoid]
        return sorted(members, key=lambda member: member.put_last_at)

    def _backend_of(self, member: _Member) -> Backend:
        with member.lock:
            if member.backend is None:
                try:
                    member.backend = member.mirror.connect()
                except UsageError as error:
                    if member is self._members[0]:
                        raise
                    raise BackendError(member.mirror.url, error.message) from None
            return member.backend

    def _watched(self, member: _Member, body: Body) -> Iterator[bytes]:
        try:
            yield from body
        except TransientError as error:
            member.strikes += 1
            if error.reason == "stalled":
                self._put_last(member, "stalled", _why(error))
            elif member.strikes >= _STRIKES:
                self._put_last(member, "unreachable", _why(error))
            raise
        except BackendError as error:  # more than was announced
            self._put_last(member, "lied", _why(error))
            raise
        member.strikes = 0

    def _put_last(self, member: _Member, kind: Kind, why: str) -> None:
        with self._lock:
            known = member.fault
            self._count_last += 1
            member.put_last_at = self._count_last
            if known is None or (kind == "lied" and known.kind != "lied"):
                member.fault = Fault(member.mirror.url, kind, why)
            told = member.fault if known is None and len(self._members) > 1 else None
        if told is not None and self._on_fault is not None:
            self._on_fault(told)


def _is_hashed(key: str) -> bool:
    """Whether what is under `key` is named by its hash, or checked against one."""
    return key.startswith(("packs/", "deltas/", "manifests/"))


def _why(error: BackendError) -> str:
    return str(error.fields["why"])


def combined_error(failures: Sequence[BackendError]) -> BackendError:
    """One error for what several mirrors answered."""
    first = failures[0]
    if len(failures) == 1:
        return first
    for error in failures:
        if isinstance(error, OfflineError):
            return error
    if all(isinstance(error, MissingKeyError) for error in failures):
        return MissingKeyError(
            first.url, f"no such file, nor on {len(failures) - 1} other mirrors", status=first.status
        )
    telling = [error for error in failures if not isinstance(error, MissingKeyError)]
    # That a range lies outside of the file is about the question, and no other try helps.
    final = [error for error in telling if error.status == 416]
    main = next((error for error in (*final, *telling) if _is_telling(error)), telling[0])
    others = "; ".join(f"{error.url}: {_why(error)}" for error in failures if error is not main)
    why = f"{_why(main)}\n  also asked: {others}"
    if isinstance(main, TransientError):
        return TransientError(
            main.url,
            why,
            hint=main.hint,
            status=main.status,
            retry_after_s=main.retry_after_s,
            reason=main.reason,
        )
    return BackendError(main.url, why, hint=main.hint, status=main.status)


def _is_telling(error: BackendError) -> bool:
    return isinstance(error, TransientError) or error.status == 416


class Kept(Protocol):
    """Where the beginning of a file is kept, for the next run."""

    def read(self) -> bytes:
        """What is kept."""

    def keep(self, came: Buffer) -> None:
        """Keep the beginning of the file; what is kept already is a beginning of it."""

    def drop(self) -> None:
        """Forget it."""


def get_checked(
    backend: SourceSet,
    key: str,
    check: Callable[[bytes], T],
    *,
    limit_bytes: int,
    avoid: Collection[str] = (),
    kept: Kept | None = None,
) -> tuple[T, str]:
    """What `check` makes of a small file that a hash covers, and the mirror that it came from.

    An answer that breaks off is gone on with, in another run too where `kept` keeps what came.

    Each mirror has two tries to give what `check` takes; one that does not is reported when another does.

    Raises: the first IntegrityError of `check`, naming all that were asked, if none gives it; BackendError.
    """
    passed_over = set(avoid)
    wrong: dict[str, int] = {}
    faults: dict[str, IntegrityError] = {}
    forgiven = False
    while True:
        try:
            data, source, pieced = _read_through(backend, key, limit_bytes, passed_over, kept)
        except TransientError:
            if faults:
                raise with_sources(next(iter(faults.values())), tuple(faults)) from None
            raise
        except BackendError:
            _drop(kept)
            if faults:
                raise with_sources(next(iter(faults.values())), tuple(faults)) from None
            raise
        _drop(kept)
        try:
            value = check(data)
        except IntegrityError as error:
            if pieced and not forgiven:
                # Of several runs or mirrors: nobody knows whose part is wrong.
                forgiven = True
                continue
            faults.setdefault(source, error)
            wrong[source] = wrong.get(source, 0) + 1
            if wrong[source] >= TRIES_PER_MIRROR:
                passed_over.add(source)
            if passed_over.issuperset(backend.sources):
                raise with_sources(next(iter(faults.values())), tuple(faults)) from None
        else:
            for wrong_source, fault in faults.items():
                if wrong_source != source:
                    why = f"{key} {fault.fields.get('why') or 'is altered'}"
                    backend.report_bad_bytes(wrong_source, why)
            return value, source


def _drop(kept: Kept | None) -> None:
    if kept is not None:
        kept.drop()


def _read_through(
    backend: SourceSet, key: str, limit_bytes: int, avoid: Collection[str], kept: Kept | None
) -> tuple[bytes, str, bool]:
    """A file, the mirror that sent its end, and whether parts of it are another's or an earlier run's.

    Raises: BackendError; TransientError, where what came is kept.
    """
    data = bytearray(kept.read() if kept is not None else b"")
    sources = {""} if data else set()
    tries = backend.tries()
    while True:
        before = len(data)
        try:
            with backend.open(key, start=before, avoid=avoid, tries=tries) as body:
                if body.start < before:  # ranges are ignored
                    data.clear()
                    sources.clear()
                if body.total is not None and body.total > limit_bytes:
                    raise oversize_error(body.source or backend.url, limit_bytes)
                source = body.source or backend.url
                sources.add(source)
                for block in body:
                    data += block
                    if len(data) > limit_bytes:
                        raise oversize_error(source, limit_bytes)
                    if kept is not None and (body.total is None or len(data) < body.total):
                        kept.keep(data)
                return bytes(data), source, len(sources) > 1
        except TransientError as error:
            backend.resume(tries, error, len(data) - before)
        except BackendError as error:
            if not before or error.status != _UNSATISFIABLE:
                raise
            data.clear()  # what was kept is longer than the file
            sources.clear()
            _drop(kept)


def with_sources(error: IntegrityError, sources: Sequence[str]) -> IntegrityError:
    """The same error, naming every mirror that was asked, each twice."""
    facts = {name: str(error.fields.get(name, "")) for name in ("why", "expected", "got")}
    source = ", ".join(f"{source} (twice)" for source in sources)
    what = str(error.fields.get("what", ""))
    if isinstance(error, FormatError):
        return FormatError(what, facts["why"], source=source, hint=error.hint)
    return IntegrityError(what, **facts, source=source, hint=error.hint)
