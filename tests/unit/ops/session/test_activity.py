"""What a session is doing: progress for one listener at a time, and ends that every thread sees."""

from __future__ import annotations

import threading
import time

import pytest

from yarnstore.errors import CancelledError
from yarnstore.ops.session.activity import Activity
from yarnstore.progress import Progress


def test_a_listener_is_called_by_one_thread_at_a_time() -> None:
    inside, most = 0, 0

    def listen(_: Progress) -> None:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        time.sleep(0.005)
        inside -= 1

    activity = Activity(listen)
    threads = [threading.Thread(target=activity.note, args=("hello",)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1


def test_a_further_check_counts_while_its_context_lasts() -> None:
    activity = Activity()

    def closed() -> None:
        raise CancelledError("the window closed")

    with activity.until(closed):
        activity.note("a note goes on")
        with pytest.raises(CancelledError, match="window"):
            activity.check()
        with pytest.raises(CancelledError, match="window"):
            activity.report(Progress("download", "m", 1, 2))
        activity.report(Progress("write", "m", 1, 2))  # what has come is installed
    activity.check()


def test_the_end_stops_what_reports_and_what_checks() -> None:
    told: list[Progress] = []
    activity = Activity(told.append)
    activity.end()
    with pytest.raises(CancelledError):
        activity.note("too late")
    with pytest.raises(CancelledError):
        activity.check()
    assert told == []


def test_the_clock_is_in_milliseconds_too() -> None:
    assert Activity(clock=lambda: 12.3456).now_ms() == 12345
