"""The decision which source sent wrong bytes, and the error if all sources are wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from typing import Final

import msgspec

from yarnstore.errors import (
    BackendError,
    FormatError,
    IntegrityError,
    MissingKeyError,
    OfflineError,
    TransientError,
    YarnstoreError,
)
from yarnstore.progress import plural

# The tries of a source for one part before the next source is used (ollama#8105 never stopped).
TRIES_PER_SOURCE: Final = 2
# The source of data that an earlier run kept.
EARLIER: Final = ""
UNSATISFIABLE: Final = 416


class BadPart(msgspec.Struct, frozen=True):
    """A part of a file whose bytes do not match their hash.

    `part` distinguishes it from other parts of the download; empty if the file has one hash.  `sources` are
    those that sent bytes of it, with `EARLIER` if an earlier run received some; empty if all bytes are from
    this response.  `misplaced` is true if the bytes are another part, as with a wrong index; `is_final` if
    another try at the same source would bring the same bytes.
    """

    error: IntegrityError
    part: bytes = b""
    sources: frozenset[str] = frozenset()
    misplaced: bool = False
    is_final: bool = False


class SourceFaults:
    """Wrong parts that sources sent in one download, while it is not known which source is right.

    A source that sent a part wrong twice is no longer used.  It is blamed once another source has sent the
    right part, and never if all sources sent the same bytes.  If several sources or runs sent bytes of a
    wrong part, the part is requested once more and no source is blamed.
    """

    def __init__(self, avoid: Collection[str] = ()) -> None:
        # The source of the answer that is being read; empty if no answer was opened.
        self.source = ""
        self.avoid = set(avoid)
        self.misplaced = False
        self._times: Counter[tuple[str, bytes]] = Counter()
        self._wrong: dict[str, IntegrityError] = {}
        self._refused: list[BackendError] = []
        self._forgiven: set[bytes | None] = set()

    def add(self, bad: BadPart) -> None:
        """Note that the current response brought a wrong part."""
        if bad.sources - {self.source} and self.forgive(bad.part):
            return
        self.misplaced |= bad.misplaced
        self._times[self.source, bad.part] += 1
        self._wrong.setdefault(self.source, bad.error)
        if bad.is_final or self._times[self.source, bad.part] >= TRIES_PER_SOURCE:
            self.avoid.add(self.source)

    def refuse(self, error: BackendError) -> None:
        """Note that the current response is invalid: its source is no longer used, and not blamed."""
        self._refused.append(error)
        self.avoid.add(self.source)

    def forgive(self, part: bytes | None) -> bool:
        """Whether a part (None: the size of the file) may be wrong once without blaming a source."""
        first = part not in self._forgiven
        self._forgiven.add(part)
        return first

    def blamed(self) -> dict[str, IntegrityError]:
        """Return the sources that are no longer used because of wrong bytes, and what was wrong."""
        return {source: error for source, error in self._wrong.items() if source in self.avoid}

    def verdict(self, error: BackendError | None = None) -> YarnstoreError:
        """Return the error of a download that failed at all sources; `error` is that of the last request."""
        if self.blamed():
            times = {source: max(self._count(source)) for source in self._wrong}
            return with_sources(next(iter(self._wrong.values())), times)
        failures = [*self._refused, *([error] if error is not None else [])]
        return combined_error(failures)

    def _count(self, source: str) -> list[int]:
        return [times for (other, _), times in self._times.items() if other == source]


def combined_error(failures: Sequence[BackendError]) -> BackendError:
    """Return one error for the answers of several sources."""
    first = failures[0]
    if len(failures) == 1:
        return first
    for error in failures:
        if isinstance(error, OfflineError):
            return error
    if all(isinstance(error, MissingKeyError) for error in failures):
        return MissingKeyError(
            first.url,
            f"no such file, neither here nor on {plural(len(failures) - 1, 'other mirror')}",
            status=first.status,
        )
    telling = [error for error in failures if not isinstance(error, MissingKeyError)]
    # A range outside of the file is a wrong request, and another try does not help.
    final = [error for error in telling if error.status == UNSATISFIABLE]
    main = next((error for error in (*final, *telling) if _is_telling(error)), telling[0])
    others = "; ".join(f"{error.url}: {reason_of(error)}" for error in failures if error is not main)
    why = f"{reason_of(main)}\n  also tried: {others}"
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


def reason_of(error: YarnstoreError) -> str:
    """Return the reason of an error, without its subject and address."""
    return str(error.fields.get("why", ""))


def _is_telling(error: BackendError) -> bool:
    return isinstance(error, TransientError) or error.status == UNSATISFIABLE


def with_sources(error: IntegrityError, times: dict[str, int]) -> IntegrityError:
    """Return the same error with the name of every source and its number of tries."""
    facts = {name: str(error.fields.get(name, "")) for name in ("why", "expected", "got")}
    source = ", ".join(f"{name} (twice)" if count > 1 else name for name, count in times.items())
    what = str(error.fields.get("what", ""))
    if isinstance(error, FormatError):
        return FormatError(what, facts["why"], source=source, hint=error.hint)
    return IntegrityError(what, **facts, source=source, hint=error.hint)
