"""Scheduled work of a running service: auto-update, retention, sampled checks, notifications.

Each is a job, which the dashboard shows.  A thread sleeps until the next one is due, at most a few minutes,
since the clock may be set, the machine may be suspended, and settings change.
"""

from __future__ import annotations

import random
import sys
import threading
import time
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from yarnstore import Store
from yarnstore.errors import YarnstoreError
from yarnstore.progress import plural
from yarnstore.registry.windows import delay_s
from yarnstore.web.jobs import Jobs
from yarnstore.web.notify import notify
from yarnstore.web.records import Job, JobKind

# The longest sleep, after which the clock and the settings are read again.
LOOK_S = 300.0
_DAY_S = 86_400.0
# The delay after a run that could not check anything.
AGAIN_S = 3600.0
RETENTION_S = _DAY_S
CHECK_S = 7 * _DAY_S
SAMPLE = 0.05
# The delay of less urgent work after the start of the service.
SETTLED_S = 900.0


class Scheduler:
    """The schedule of one service.  `look` starts the work that is due; the thread only calls it.

    `clock` is in seconds since 1970; `draw` is random, 0 to below 1.
    """

    def __init__(
        self,
        store: Callable[[], Store],
        jobs: Jobs,
        *,
        clock: Callable[[], float] = time.time,
        draw: Callable[[], float] = random.random,
        tell: Callable[[str, str], object] = notify,
    ) -> None:
        self._store = store
        self._jobs = jobs
        self._clock = clock
        self._draw = draw
        self._tell = tell
        self._started_s = clock()
        self._round_s: float | None = None  # when the run in the open window begins
        self._wake = threading.Event()
        self._ending = False
        self._thread: threading.Thread | None = None
        jobs.on_scheduled = self._ended

    # --- the thread ----------------------------------------------------------------------------

    def start(self) -> None:
        """Start the thread."""
        self._thread = threading.Thread(target=self._run, name="scheduler", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Check again now, since settings changed."""
        self._wake.set()

    def stop(self) -> None:
        """Stop the thread; running jobs are stopped separately."""
        self._ending = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join(1.0)

    def _run(self) -> None:
        while not self._ending:
            self._wake.clear()
            try:
                sleep_s = self.look()
            except YarnstoreError as error:  # such as unreadable settings
                print(f"scheduled checks are paused: {error.message}", file=sys.stderr)
                sleep_s = LOOK_S
            except Exception:  # noqa: BLE001 - a defect: the service goes on
                traceback.print_exc()
                sleep_s = LOOK_S
            self._wake.wait(sleep_s)

    # --- due work ---------------------------------------------------------------------------

    def look(self) -> float:
        """Start the work that is due; return the seconds until the next check.

        Raises: ConfigError; ConflictError if the store was removed or replaced.
        """
        self._jobs.keeper.check()
        now_s = self._clock()
        self._started_s = min(self._started_s, now_s)  # the clock was put back
        store = self._store()
        times = [self._look_at_rounds(store, now_s), self._look_at_check(now_s)]
        if store.settings.retention.is_set:
            times.append(self._look_at_retention(now_s))
        next_s = min((found for found in times if found is not None), default=now_s + LOOK_S)
        return min(max(next_s - now_s, 1.0), LOOK_S)

    def _look_at_rounds(self, store: Store, now_s: float) -> float | None:
        status = store.auto_update_status()
        due_s = _seconds(status.due)
        if due_s is None or due_s > now_s:
            self._round_s = None
            return due_s
        if self._jobs.pending("auto-update"):
            return None
        last = self._jobs.last_ended("auto-update")
        if last is not None and not (last.result or {}).get("checked"):
            again_s = _ended_s(last, now_s) + AGAIN_S
            if again_s > now_s:
                return again_s
        opened = [rule for rule in status.models if rule.is_open]
        if self._round_s is None:
            left = [ends - now_s for rule in opened if (ends := _seconds(rule.closes)) is not None]
            self._round_s = now_s + delay_s(status.jitter_s, self._draw(), min(left, default=None))
        if self._round_s > now_s:
            return self._round_s
        self._round_s = None
        self._add("auto-update", {"models": [rule.model for rule in opened]})
        return None

    def _look_at_check(self, now_s: float) -> float | None:
        return self._regularly("fsck", CHECK_S, {"sample": SAMPLE}, now_s, _read_contents)

    def _look_at_retention(self, now_s: float) -> float | None:
        return self._regularly("gc", RETENTION_S, {}, now_s)

    def _regularly(
        self,
        kind: JobKind,
        every_s: float,
        given: dict[str, Any],
        now_s: float,
        counts: Callable[[Job], bool] | None = None,
    ) -> float | None:
        """Add a job if the last one of its kind that `counts` is too old; return when the next is due."""
        if self._jobs.pending(kind):
            return None
        last = self._jobs.last_ended(kind, counts=counts)
        due_s = max((_ended_s(last, now_s) if last else 0.0) + every_s, self._started_s + SETTLED_S)
        if due_s > now_s:
            return due_s
        self._add(kind, given)
        return None

    def _add(self, kind: JobKind, given: dict[str, Any]) -> None:
        self._jobs.add(kind, {**given, "scheduled": True})

    def _ended(self, job: Job) -> None:
        """Notify the user of the result of a scheduled job, also of one that an earlier service began.

        Called under the lock of the jobs, so a thread runs the program, which may be slow.
        """
        before = self._jobs.last_ended(job.kind, without=job.id)
        threading.Thread(target=self._tell_of, args=(job, before), daemon=True).start()
        self._wake.set()

    def _tell_of(self, job: Job, before: Job | None) -> None:
        try:
            if self._store().settings.notifications:
                text = news_of(job, before)
                if text:
                    self._tell("ystore", text)
        except YarnstoreError:
            pass  # settings cannot be read


def _read_contents(job: Job) -> bool:
    """Whether a check stands for the weekly one: a quick or cancelled one started by hand does not."""
    return job.scheduled or (job.state == "done" and not (job.result or {}).get("quick"))


def _ended_s(job: Job, now_s: float) -> float:
    """Return when a job ended, in seconds since 1970.

    0 for a time in the future, since the clock was set back.
    """
    ended_s = (job.finished_ms or 0) / 1000
    return ended_s if ended_s <= now_s else 0.0


def _seconds(when: str | None) -> float | None:
    return None if when is None else datetime.fromisoformat(when).astimezone(UTC).timestamp()


def news_of(job: Job, before: Job | None) -> str:
    """Return the notification about a scheduled job, unless the one `before` gave the same news."""
    if job.state == "failed" and job.error is not None:
        told = before is not None and before.error is not None and before.error.detail == job.error.detail
        return "" if told else f"{job.subject}: {job.error.detail}"
    if job.kind == "fsck":
        found = _rows(job, "problems")
        return f"The store has {plural(len(found), 'problem')}: run `ystore fsck --repair`" if found else ""
    known = _outcomes(before)
    fresh = [row for row in _outcomes(job) if row not in known]
    words = {"updated": "was updated to", "available": "has an update:", "failed": "could not be updated to"}
    return "\n".join(f"{model} {words[status]} {version}" for model, status, version in fresh)


def _outcomes(job: Job | None) -> list[tuple[str, str, str]]:
    """Return the outcomes of a run: the model, the outcome, and the version."""
    if job is None or job.kind != "auto-update":
        return []
    rows = _rows(job, "models")
    told = ("updated", "available", "failed")
    return [
        (str(row["model"]), str(row["status"]), str(row.get("version") or row.get("installed") or ""))
        for row in rows
        if row.get("status") in told
    ]


def _rows(job: Job, name: str) -> list[dict[str, Any]]:
    found = (job.result or {}).get(name)
    return [row for row in found if isinstance(row, dict)] if isinstance(found, list) else []
