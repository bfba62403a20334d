"""Several addresses of one registry, or of one file: the only loop over sources and tries.

Owns the order of the sources, the number of tries, the pauses, resuming, and when ranges or an index are no
longer used.  A source that stalls, cannot be reached, or sends wrong bytes is tried last as long as this
object exists; `faults` decides which source is wrong.

Files that no hash covers, `registry.json` and `models/`, are requested from trusted mirrors only: the
registry's own address, and mirrors in this machine's settings.
"""

from __future__ import annotations

import random as _random
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Final, TypeVar

from yarnstore.backends.base import Backend, Body, Fetched
from yarnstore.backends.sources.faults import (
    TRIES_PER_SOURCE,
    UNSATISFIABLE,
    SourceFaults,
    combined_error,
    reason_of,
)
from yarnstore.backends.sources.mirrors import Kind, Mirror, Mirrors, MirrorState, OnFault
from yarnstore.backends.sources.tries import RetryPolicy, Sleep, Tries
from yarnstore.backends.sources.wanted import Kept, SmallFile, Wanted
from yarnstore.backends.wrappers import OneFile
from yarnstore.errors import BackendError, CancelledError, IntegrityError, TransientError

T = TypeVar("T")


# The interval in seconds at which a wait checks whether it is stopped.
_STOP_POLL_S: Final = 0.05

# Called once for each mirror that failed to send a file that another is now requested to send.
OnPass = Callable[[str], None]
# (the failure, seconds until the next try)
OnWait = Callable[[TransientError, float], None]


class SourceSet(Mirrors):
    """A `Backend` over several backends with the same files; the first is the registry's own address.

    If one fails for any reason, the next is tried.  A single source is tried as often as `policy` says; of
    several, each is tried twice.  `put_last` are the names of mirrors that failed before, in the order of
    their failures.
    """

    def __init__(
        self,
        mirrors: Sequence[Mirror],
        *,
        policy: RetryPolicy | None = None,
        sleep: Sleep = time.sleep,
        random: Callable[[], float] = _random.random,
        on_fault: OnFault | None = None,
        on_pass: OnPass | None = None,
        on_wait: OnWait | None = None,
        put_last: Sequence[str] = (),
    ) -> None:
        super().__init__(mirrors, on_fault=on_fault, put_last=put_last)
        self.policy = policy or RetryPolicy()
        self._sleep = sleep
        self._random = random
        self._on_pass = on_pass
        self._passed: set[str] = set()
        self._on_wait = on_wait

    def of_file(self, key: str, name: str) -> list[Mirror]:
        """Return the mirrors that may serve a file, as mirrors of only that file; they share connections.

        `name` is shown for a `key` that is a whole address.
        """
        return [
            Mirror(
                name if "://" in key else f"{member.mirror.url.rstrip('/')}/{key}",
                partial(self._file_of, member, key),
                trusted=True,
            )
            for member in self._order(key, ())
        ]

    def get(
        self, key: str, *, limit_bytes: int, etag: str = "", avoid: Collection[str] = ()
    ) -> Fetched | None:
        """See `Backend.get`.  An ETag is sent only to the registry's own address."""

        def ask(backend: Backend, member: MirrorState) -> Fetched | None:
            own = member is self._members[0]
            fetched = backend.get(key, limit_bytes=limit_bytes, etag=etag if own else "")
            if fetched is None:
                return None
            return Fetched(fetched.data, fetched.etag if own else "", member.mirror.url)

        return self._ask(key, avoid, ask, self._tries())[0]

    @contextmanager
    def open(
        self, key: str, *, start: int = 0, length: int | None = None, avoid: Collection[str] = ()
    ) -> Iterator[Body]:
        """See `Backend.open`.  A body that ends early is not resumed; the next request may use another
        source.

        If a source sends wrong ranges, the whole file is requested.
        """
        with self._open(key, start, length, avoid, self._tries()) as body:
            yield body

    def call(self, what: str, ask: Callable[[], T]) -> T:
        """Return the result of a request that is not one for a file; it is tried as often as one.

        `what` names it in errors.  Raises: what `ask` raises; TransientError with the number of tries.
        """
        return self._ask(what, (), lambda _, __: ask(), self._tries())[0]

    def get_checked(
        self, key: str, check: Callable[[bytes], T], *, limit_bytes: int, kept: Kept | None = None
    ) -> tuple[T, str]:
        """Return the result of `check` for a small file that a hash covers, and the mirror that sent it.

        A response that ends early is resumed, also in another run if `kept` keeps its beginning.  A mirror
        whose file `check` refuses twice is tried last once another sends one that `check` accepts.

        Raises: the first IntegrityError of `check`, naming all sources, if none sends the right file;
        BackendError.
        """
        return self._get_checked(key, SmallFile(check, limit_bytes, kept), SourceFaults())

    def compare(
        self,
        key: str,
        check: Callable[[bytes], T],
        take: Callable[[T], int],
        *,
        missing: int,
        limit_bytes: int,
        source: str,
    ) -> str:
        """Request a small file from other mirrors if the copy from `source` is valid but incomplete.

        `take` is called with each copy and returns how many things are still missing; before, `missing` were.
        Mirrors whose copies lacked something that another has are tried last.  Returns the mirror with the
        most complete copy.
        """
        asked = {source}
        while missing and not asked.issuperset(self.sources):
            file = SmallFile(check, limit_bytes, None)
            try:
                copy, other = self._get_checked(key, file, SourceFaults(asked))
            except (BackendError, IntegrityError):
                break
            left = take(copy)
            if left < missing:
                for lacking in asked:
                    self._blame(lacking, f"{key} lacks entries that {other} has")
                source, missing = other, left
            asked.add(other)
        return source

    def stream(
        self,
        key: str,
        wanted: Wanted,
        *,
        without_index: Callable[[], Wanted] | None = None,
        index_source: str = "",
        is_stopped: Callable[[], bool] | None = None,
    ) -> None:
        """Request the ranges of a file that are `wanted`, until all have arrived or `is_stopped`.

        A mirror that sends a wrong part twice is no longer used, and is tried last once another has sent the
        right one.  If the bytes of all mirrors are wrong, the index that the ranges are from may be wrong:
        then the whole file is read as `without_index` says, and if that succeeds, the mirror `index_source`
        that sent the index is tried last.

        Raises: IntegrityError, naming all sources, if all of them send wrong bytes; BackendError or
        TransientError, with the number of tries of each; CancelledError.
        """
        faults = SourceFaults()
        try:
            self._stream(key, wanted, faults, is_stopped)
        except IntegrityError as error:
            if without_index is None or not (len(self.sources) > 1 or faults.misplaced):
                raise
            try:
                self._stream(key, without_index(), SourceFaults(), is_stopped)
            except (BackendError, IntegrityError):
                raise error from None
            if wanted.next_range() is not None:
                raise
            self._blame(index_source, f"{key}: its index gives wrong offsets")

    # --- within --------------------------------------------------------------------------------

    def _get_checked(self, key: str, file: SmallFile[T], faults: SourceFaults) -> tuple[T, str]:
        try:
            self._stream(key, file, faults, None)
        except TransientError:
            raise  # what came is kept
        except BackendError:
            file.restart()
            raise
        if file.accepted is None:
            raise AssertionError("a stream ends when all has come")
        return file.accepted

    def _stream(
        self, key: str, wanted: Wanted, faults: SourceFaults, is_stopped: Callable[[], bool] | None
    ) -> None:
        tries = self._tries(is_stopped)
        while (part := wanted.next_range()) is not None:
            if is_stopped is not None and is_stopped():
                return
            start, length = part
            before = wanted.came_bytes
            faults.source = ""
            try:
                with self._open(key, start, length, faults.avoid, tries) as body:
                    faults.source = body.source
                    for bad in wanted.receive(body):
                        faults.add(bad)
            except TransientError as error:
                if not faults.avoid.issuperset(self.sources):
                    self._resume(tries, error, wanted.came_bytes - before, faults)
            except BackendError as error:
                if faults.source:
                    faults.refuse(error)
                elif not (
                    start and error.status == UNSATISFIABLE and faults.forgive(None) and wanted.restart()
                ):
                    raise faults.verdict(error) from None
            if faults.avoid.issuperset(self.sources):
                raise faults.verdict()
            for source in faults.avoid:
                self._pass_over(source)
        for source, fault in faults.blamed().items():
            self._blame(source, f"{key} {reason_of(fault) or 'does not match its hashes'}")

    @contextmanager
    def _open(
        self, key: str, start: int, length: int | None, avoid: Collection[str], tries: Tries
    ) -> Iterator[Body]:
        with ExitStack() as stack:

            def ask(backend: Backend, _: MirrorState) -> Body:
                if tries.ranges:
                    return stack.enter_context(backend.open(key, start=start, length=length))
                return stack.enter_context(backend.open(key))

            body, member = self._ask(key, avoid, ask, tries)
            answer = body.passing(self._watched(member, body), member.mirror.url)
            answer.ignores_ranges |= not tries.ranges
            yield answer

    def _tries(self, is_stopped: Callable[[], bool] | None = None) -> Tries:
        return Tries(self.policy, is_stopped=is_stopped, random=self._random)

    def _resume(self, tries: Tries, error: TransientError, gained_bytes: int, faults: SourceFaults) -> None:
        """Wait until a download that failed with `error` may continue with another request.

        Raises: the final error, with the number of tries of each source, if none may be tried again;
        CancelledError if the wait was stopped.
        """
        source, tries.source = tries.source, None
        if source is None:
            raise faults.verdict(error) from None  # `_ask` has tried as often as it may
        delay_s = tries.failed(source, error, gained_bytes)
        if all(tries.is_spent(url) or url in tries.refused for url in tries.asked):
            others = [url for url in tries.asked if url != source]
            failures = [tries.refused.get(url) or tries.error(url) for url in (source, *others)]
            raise faults.verdict(combined_error(failures)) from error
        if not tries.is_spent(source):
            self._wait(tries, error, delay_s)

    def _pass_over(self, source: str) -> None:
        if source not in self._passed and self._on_pass is not None:
            self._passed.add(source)
            self._on_pass(source)

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
        self, key: str, avoid: Collection[str], ask: Callable[[Backend, MirrorState], T], tries: Tries
    ) -> tuple[T, MirrorState]:
        order = self._order(key, avoid)
        tries.asked = tuple(member.mirror.url for member in order)
        tries.source = None
        failures: list[BackendError] = []
        for member in order:
            url = member.mirror.url
            # One that has just failed as often as it may is not given as much time again.
            alone = len(order) == 1 and member.fault is None
            tries.allow(url, self.policy.attempts if alone else min(self.policy.attempts, TRIES_PER_SOURCE))
            if url in tries.refused or tries.is_spent(url):
                failures.append(tries.refused.get(url) or tries.error(url))
                continue
            try:
                answer = self._ask_one(member, ask, tries)
            except TransientError as error:
                failures.append(error)
                kind: Kind = "stalled" if error.reason == "stalled" else "unreachable"
                self._put_last(member, kind, reason_of(error))
            except BackendError as error:
                failures.append(error)
                if error.status != UNSATISFIABLE:  # which is about the range
                    tries.refused[url] = error
            else:
                tries.source = url
                member.served = True
                if len(self._members) == 1:
                    member.fault = None
                return answer, member
            if member is not order[-1]:
                self._pass_over(url)
        if not failures:
            raise BackendError(self._members[0].mirror.url, f"no mirror is left to try for {key[:200]}")
        if tries.give_up_ranges():
            return self._ask(key, avoid, ask, tries)
        raise combined_error(failures)

    def _ask_one(self, member: MirrorState, ask: Callable[[Backend, MirrorState], T], tries: Tries) -> T:
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

    def _file_of(self, member: MirrorState, key: str) -> Backend:
        return OneFile(self._backend_of(member), key)


class Retrying(SourceSet):
    """A single backend, with the retries of `policy`."""

    def __init__(
        self,
        backend: Backend,
        policy: RetryPolicy | None = None,
        *,
        sleep: Sleep = time.sleep,
        random: Callable[[], float] = _random.random,
        on_wait: OnWait | None = None,
    ) -> None:
        only = Mirror(backend.url, lambda: backend, trusted=True)
        super().__init__([only], policy=policy, sleep=sleep, random=random, on_wait=on_wait)
