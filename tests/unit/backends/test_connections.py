"""Bodies of a known length, which are read past h11: their ends, and what becomes of the connection."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import pairwise
from pathlib import Path

import httpcore
import msgspec
import pytest

from tests.support.servers import Reply, Script, ScriptedServer, chunked, ranged, self_signed
from yarnstore.backends.base import Timeouts
from yarnstore.backends.connections import Connector, DirectConnection
from yarnstore.backends.http import HttpBackend
from yarnstore.errors import BackendError, TransientError

# More than comes with the headers, and than a socket holds.
SIZE = 5_000_000
CONTENT = bytes(range(251)) * (SIZE // 251 + 1)
BODY = CONTENT[:SIZE]
# The most that one record of TLS contains.
RECORD = 16 * 1024
FORGED = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged"
FAST = Timeouts(connect_s=2.0, stall_s=1.0, window_s=1.0, floor_bytes_per_s=1024.0, get_s=5.0)


@contextmanager
def backend_for(
    script: Script, tls: Path | None = None, timeouts: Timeouts = FAST
) -> Iterator[tuple[HttpBackend, ScriptedServer]]:
    serving, trusting = self_signed(tls) if tls is not None else (None, None)
    with (
        ScriptedServer(script, tls=serving) as server,
        closing(HttpBackend(server.url, timeouts=timeouts, ssl_context=trusting)) as backend,
    ):
        yield backend, server


def read(backend: HttpBackend, start: int = 0, length: int | None = None) -> bytes:
    with backend.open("x", start=start, length=length) as body:
        return b"".join(body)


def connections(server: ScriptedServer) -> list[int]:
    return [seen.connection for seen in server.seen]


def raw(head: str, body: bytes) -> Reply:
    return Reply(raw=[head.replace("\n", "\r\n").encode() + b"\r\n\r\n", body])


@pytest.mark.parametrize("over", ["http", "https"])
def test_all_ranges_come_over_one_connection(over: str, tmp_path: Path) -> None:
    with backend_for(lambda seen: ranged(BODY, seen), tmp_path / "tls" if over == "https" else None) as (
        backend,
        server,
    ):
        ends = [*range(0, SIZE, 1_300_000), SIZE]
        assert b"".join(read(backend, start, end - start) for start, end in pairwise(ends)) == BODY
        assert read(backend, SIZE - 10) == BODY[-10:]  # one that comes with its headers
        assert read(backend) == BODY
    assert set(connections(server)) == {0}


def test_threads_that_read_at_once_have_a_connection_each() -> None:
    with backend_for(lambda seen: ranged(BODY, seen), timeouts=Timeouts()) as (backend, server):
        failed = []
        together = threading.Barrier(4)

        def work(number: int) -> None:
            for n in range(6):
                start = number * 7919 + n * 104_729
                with backend.open("x", start=start, length=1_000_000) as body:
                    blocks = iter(body)
                    first = next(blocks)
                    if n == 0:
                        together.wait(timeout=30)
                    if first + b"".join(blocks) != BODY[start : start + 1_000_000]:
                        failed.append(start)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failed
    assert len(set(connections(server))) == 4


@pytest.mark.parametrize("why", ["Connection: close", "connection: Keep-Alive, Close"])
def test_a_connection_that_the_server_closes_is_not_used_again(why: str) -> None:
    replies = [raw(f"HTTP/1.1 200 OK\n{why}\nContent-Length: {SIZE}", BODY), Reply(body=b"next")]
    with backend_for(replies) as (backend, server):
        assert read(backend) == BODY
        assert read(backend) == b"next"
    assert connections(server) == [0, 1]


def test_a_server_that_closes_an_idle_connection_is_asked_over_another() -> None:
    with backend_for([Reply(body=BODY, close=True), Reply(body=BODY)]) as (backend, server):
        assert read(backend) == BODY
        server.wait_until_closed()  # else the request may meet the close
        assert read(backend) == BODY
    assert connections(server) == [0, 1]


def test_a_server_of_http_1_0_is_believed_about_the_length_and_not_asked_again() -> None:
    replies = [raw(f"HTTP/1.0 200 OK\nContent-Length: {SIZE}", BODY), Reply(body=b"next")]
    with backend_for(replies) as (backend, server):
        assert read(backend) == BODY
        assert read(backend) == b"next"
    assert connections(server) == [0, 1]


def test_a_body_that_is_left_early_takes_its_connection_along() -> None:
    with backend_for([Reply(body=BODY), Reply(body=b"next")]) as (backend, server):
        with backend.open("x") as body:
            for n, _ in enumerate(body):
                if n == 3:
                    break
        assert read(backend) == b"next"
    assert connections(server) == [0, 1]


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("cut_at", [200_000, SIZE - 1])
def test_a_body_that_ends_early_is_transient_and_takes_its_connection_along(
    cut_at: int, *, reset: bool
) -> None:
    with backend_for([Reply(body=BODY, cut_at=cut_at, reset=reset), Reply(body=b"next")]) as (
        backend,
        server,
    ):
        with pytest.raises(TransientError, match="connection was lost"):
            read(backend)
        assert read(backend) == b"next"
    assert connections(server) == [0, 1]


@pytest.mark.parametrize("over", ["http", "https"])
def test_what_follows_a_long_body_is_never_the_next_answer(over: str, tmp_path: Path) -> None:
    long = Reply(raw=f"HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n".encode() + BODY + FORGED)
    with backend_for([long, Reply(body=b"next")], tmp_path / "tls" if over == "https" else None) as (
        backend,
        server,
    ):
        assert read(backend) == BODY
        assert read(backend) == b"next"
    assert connections(server) == [0, 1]


@pytest.mark.parametrize("surplus", [FORGED, b"HTTP/1.1 404 Not Found\r\nX-Rest: ", b"HTTP"])
@pytest.mark.parametrize(
    "first",
    [
        b"Content-Length: 5\r\n\r\nfirst",
        b"Transfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n0\r\n\r\n",
    ],
)
def test_what_follows_a_short_body_is_never_part_of_the_next_answer(first: bytes, surplus: bytes) -> None:
    short = Reply(raw=b"HTTP/1.1 200 OK\r\n" + first + surplus)
    with backend_for([short, Reply(body=b"next")]) as (backend, server):
        assert read(backend) == b"first"
        assert read(backend) == b"next"
    assert connections(server) == [0, 1]


def test_two_lengths_are_refused() -> None:
    both = raw(f"HTTP/1.1 200 OK\nContent-Length: {SIZE}\nContent-Length: 4", BODY)
    with (
        backend_for([both]) as (backend, _),
        pytest.raises(TransientError, match="not valid HTTP"),
    ):
        read(backend)


def test_a_chunked_body_has_no_other_length() -> None:
    pieces = chunked([BODY[:2_000_000], BODY[2_000_000:]])
    both = raw("HTTP/1.1 200 OK\nTransfer-Encoding: chunked\nContent-Length: 7", b"".join(pieces))
    with (
        backend_for([both]) as (backend, _),
        pytest.raises(BackendError, match="more than the 7 bytes"),
    ):
        read(backend)
    plain = raw("HTTP/1.1 200 OK\nTransfer-Encoding: chunked", b"".join(pieces))
    with backend_for([plain, Reply(body=b"next")]) as (backend, server):
        assert read(backend) == BODY
        assert read(backend) == b"next"
    assert connections(server) == [0, 0]


@pytest.mark.parametrize("over", ["http", "https"])
def test_a_body_that_drips_is_given_up_by_its_pace(over: str, tmp_path: Path) -> None:
    drip = Reply(body=[BODY[:200_000], *[b"x"] * 200], pause_s=0.1)
    tls = tmp_path / "tls" if over == "https" else None
    with (
        backend_for([drip], tls, msgspec.structs.replace(FAST, window_s=0.6)) as (backend, _),
        pytest.raises(TransientError, match="stalled"),
    ):
        read(backend)


@pytest.mark.parametrize("over", ["http", "https"])
def test_a_body_in_single_bytes_comes_whole(over: str, tmp_path: Path) -> None:
    tls = tmp_path / "tls" if over == "https" else None
    content = BODY[:20_000]
    drip = Reply(body=[content[n : n + 1] for n in range(len(content))])
    with backend_for([drip], tls, Timeouts()) as (backend, _):
        assert read(backend) == content


def test_a_read_over_tls_brings_all_records_that_have_arrived(tmp_path: Path) -> None:
    with (
        backend_for([Reply(body=BODY)], tmp_path / "tls") as (backend, _),
        backend.open("x") as body,
    ):
        blocks = []
        for block in body:
            blocks.append(block)
            time.sleep(0.01)  # meanwhile more than a record arrives
    assert b"".join(blocks) == BODY
    assert max(map(len, blocks)) > 4 * RECORD


def test_a_silent_server_is_given_up_within_a_long_body() -> None:
    silent = Reply(body=[BODY[:400_000], BODY[400_000:]], pause_s=20.0)
    waiting = msgspec.structs.replace(FAST, stall_s=0.5, window_s=30.0)
    with backend_for([silent, Reply(body=b"next")], timeouts=waiting) as (backend, server):
        with pytest.raises(TransientError, match="stalled: no byte"):
            read(backend)
        assert read(backend) == b"next"
    assert connections(server) == [0, 1]


def test_a_connection_that_the_pool_closes_begins_no_request_meanwhile() -> None:
    """The pool gives an idle one to a thread while another finds that its server has closed it."""
    with ScriptedServer([Reply(body=b"first")]) as server:
        url = httpcore.URL(server.url)
        request = httpcore.Request("GET", url, headers=[(b"Host", url.host)])
        connection = DirectConnection(url.origin, Connector(check_peer=False), None)
        response = connection.handle_request(request)
        assert response.read() == b"first"
        response.close()
        assert connection.is_idle()
    ends = time.monotonic() + 30
    while not connection.has_expired():  # until the server's close has arrived
        assert time.monotonic() < ends
        time.sleep(0.01)
    with pytest.raises(httpcore.ConnectionNotAvailable):
        connection.handle_request(request)
    connection.close()
