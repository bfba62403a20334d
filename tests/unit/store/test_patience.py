"""Waiting for programs that hold a file."""

from __future__ import annotations

import errno
import time

import pytest

from yarnstore.store.patience import HELD, hurried, patiently


class _Held:
    def __init__(self, times: int, code: int) -> None:
        self.times = times
        self.error = OSError(errno.EACCES, "denied")
        self.error.winerror = code  # type: ignore[attr-defined] - Windows sets it

    def __call__(self) -> str:
        self.times -= 1
        if self.times >= 0:
            raise self.error
        return "done"


@pytest.mark.parametrize("code", [5, 32, 33])
def test_what_another_program_holds_is_tried_again(code: int) -> None:
    held = _Held(5, code)
    assert patiently(held) == "done"
    assert held.times == -1


def test_other_errors_are_raised_at_once() -> None:
    held = _Held(5, 2)
    with pytest.raises(OSError, match="denied"):
        patiently(held)
    assert held.times == 4


def test_what_may_be_denied_for_good_is_tried_again_only_if_a_program_holds_it() -> None:
    denied = _Held(5, 5)
    with pytest.raises(OSError, match="denied"):
        patiently(denied, busy=HELD)
    assert denied.times == 4
    assert patiently(_Held(5, 32), busy=HELD) == "done"


def test_what_can_be_done_later_waits_for_a_second() -> None:
    began = time.monotonic()
    with pytest.raises(OSError, match="denied"), hurried():
        patiently(_Held(10**9, 32))
    assert 1.0 <= time.monotonic() - began < 10
