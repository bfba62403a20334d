"""What uvicorn says about clients does not fill the log."""

from __future__ import annotations

import logging

from yarnstore.web.log import Seldom


def test_a_warning_is_printed_once_a_minute_and_an_error_always() -> None:
    now = [0.0]
    seldom = Seldom(lambda: now[0])
    passed: list[str] = []

    def say(level: int, text: str) -> None:
        record = logging.LogRecord("uvicorn.error", level, "", 0, text, (), None)
        if seldom.filter(record):
            passed.append(record.getMessage())

    for _ in range(3):
        say(logging.WARNING, "too many")
    say(logging.WARNING, "invalid")
    say(logging.ERROR, "broken")
    say(logging.ERROR, "broken")
    assert passed == ["too many", "invalid", "broken", "broken"]
    now[0] = 60.0
    say(logging.WARNING, "too many")
    assert passed[-1] == "too many (2 more times before)"
