"""Why a request failed for now is a word for programs, not the words of its message."""

from __future__ import annotations

import socket

import pytest

from tests.support.servers import PATIENCE_S, Reply, ScriptedServer
from yarnstore.backends import RetryPolicy, Timeouts
from yarnstore.backends.connect import connect
from yarnstore.errors import TransientError

SHORT = Timeouts(connect_s=2.0, stall_s=0.2, window_s=0.4)
ONE_TRY = RetryPolicy(attempts=1)


def reason_at(url: str) -> str:
    backend = connect(url, policy=ONE_TRY, timeouts=SHORT)
    with pytest.raises(TransientError) as caught:
        backend.get("registry.json", limit_bytes=100)
    backend.close()
    return caught.value.reason


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (Reply(delay_s=PATIENCE_S), "stalled"),
        (Reply(body=b"{}" * 20, cut_at=10), "broken"),
        (Reply(status=500), "broken"),
        (Reply(status=503), "busy"),
        (Reply(status=429), "busy"),
        (Reply(status=500, headers={"Retry-After": "1"}), "busy"),
    ],
)
def test_the_reason_of_an_answer(reply: Reply, reason: str) -> None:
    with ScriptedServer(lambda _: reply) as server:
        assert reason_at(server.url) == reason


def test_a_port_where_nothing_listens_is_unreachable() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        assert reason_at(f"http://127.0.0.1:{taken.getsockname()[1]}/") == "unreachable"


def test_tries_and_sources_keep_the_reason() -> None:
    with ScriptedServer(lambda _: Reply(status=503)) as server:
        backend = connect(server.url, policy=RetryPolicy(attempts=2, base_s=0.0), timeouts=SHORT)
        with pytest.raises(TransientError, match="tried 2 times") as caught:
            backend.get("registry.json", limit_bytes=100)
        backend.close()
    assert caught.value.reason == "busy"
