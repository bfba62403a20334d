"""Hostile and broken servers: the right bytes or a typed error, and never late.

Every server is a real one on loopback.  Timeouts are small so that the file takes seconds.
"""

from __future__ import annotations

import os
import random
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import pytest

from tests.support.servers import Reply, Script, ScriptedServer, Seen, chunked, files, ranged, self_signed
from yarnstore.backends import Retrying, RetryPolicy, Timeouts
from yarnstore.backends.http import HttpBackend
from yarnstore.backends.requests import REDIRECTS_LIMIT
from yarnstore.errors import BackendError, MissingKeyError, TransientError, UsageError, YarnstoreError

DATA = random.Random(1).randbytes(1000)
START, LENGTH = 100, 200
WANT = DATA[START : START + LENGTH]
FAST = Timeouts(connect_s=2.0, stall_s=0.25, window_s=0.5, floor_bytes_per_s=2000.0, get_s=0.6)
DEADLINE_S = 3.0
TOKEN = "s3cret-token"


@contextmanager
def backend_for(script: Script, *, token: str | None = None) -> Iterator[tuple[HttpBackend, ScriptedServer]]:
    with ScriptedServer(script) as server:
        backend = HttpBackend(server.url, token=token, timeouts=FAST)
        try:
            yield backend, server
        finally:
            backend.close()


@contextmanager
def bounded() -> Iterator[None]:
    began_s = time.monotonic()
    yield
    took_s = time.monotonic() - began_s
    assert took_s < DEADLINE_S, f"took {took_s:.1f} s"


def read(
    backend: HttpBackend | Retrying, start: int = START, length: int | None = LENGTH
) -> tuple[int, bytes]:
    with backend.open("x", start=start, length=length) as body:
        return body.start, b"".join(body)


def partial(
    content_range: str | None = "bytes 100-299/1000",
    body: bytes | list[bytes] = WANT,
    *,
    headers: dict[str, str] | None = None,
    **more: object,
) -> Reply:
    named = {} if content_range is None else {"Content-Range": content_range}
    return Reply(status=206, body=body, headers=named | (headers or {}), **more)  # type: ignore[arg-type]


def raw(text: str, body: bytes = b"") -> Reply:
    return Reply(raw=text.replace("\n", "\r\n").encode("latin-1") + b"\r\n" + body, close=True)


CHUNKED = {"Transfer-Encoding": "chunked"}
FLOOD = b"HTTP/1.1 103 Early Hints\r\n\r\n" * 2000
DRIP = [b"x"] * 400

Expected = type[BackendError] | tuple[int, bytes]


@dataclass(frozen=True)
class Case:
    """A reply to "bytes 100-299 of 1000", and what must come of it; `says` is part of the message."""

    reply: Reply
    expected: Expected
    says: str = ""
    get: Expected | None = None  # what `get` of the whole makes of it, where that is of interest


GOOD = START, WANT
MATRIX: dict[str, Case] = {
    # Row 7: ranges.
    "exact 206": Case(partial(), GOOD),
    "206 of unknown total": Case(partial("bytes 100-299/*"), GOOD),
    "206 chunked": Case(partial(body=chunked([WANT[:7], WANT[7:]]), headers=CHUNKED), GOOD),
    "206 in single bytes": Case(partial(body=[bytes([b]) for b in WANT]), GOOD),
    "206 late": Case(partial(delay_s=0.1), GOOD),
    "206 cut by the end of the file": Case(partial("bytes 100-149/150", WANT[:50]), (START, WANT[:50])),
    "200 whole": Case(Reply(body=DATA), (0, DATA), get=(0, DATA)),
    "200 empty": Case(Reply(), (0, b""), get=(0, b"")),
    "206 from 0": Case(partial("bytes 0-199/1000"), TransientError, "begins at byte 0", get=BackendError),
    "206 one byte on": Case(partial("bytes 101-300/1000"), TransientError, "begins at byte 101"),
    "206 one byte back": Case(partial("bytes 99-298/1000"), TransientError, "begins at byte 99"),
    "206 too long": Case(partial("bytes 100-300/1000", WANT + b"x"), TransientError, "beyond 299"),
    "206 too short": Case(partial("bytes 100-298/1000", WANT[:-1]), TransientError, "ends at byte 298"),
    "206 too short of unknown total": Case(partial("bytes 100-298/*", WANT[:-1]), TransientError, "298"),
    "206 without Content-Range": Case(partial(None), TransientError, "no Content-Range", get=BackendError),
    "206 of items": Case(partial("items 100-299/1000"), TransientError, "Content-Range is"),
    "206 of nonsense": Case(partial("bytes a-b/c"), TransientError, "Content-Range is"),
    "206 of negative bytes": Case(partial("bytes -100-299/1000"), TransientError, "Content-Range is"),
    "206 backwards": Case(partial("bytes 299-100/1000"), TransientError, "Content-Range is"),
    "206 beyond its own total": Case(partial("bytes 100-299/250"), TransientError, "Content-Range is"),
    "206 in Arabic digits": Case(
        raw("HTTP/1.1 206 OK\nContent-Range: bytes \xd9\xa1-299/1000\nContent-Length: 200\n", WANT),
        TransientError,
        "Content-Range is",
    ),
    "206 with a number of 5000 digits": Case(
        partial(f"bytes 100-{'9' * 5000}/*"), TransientError, "Content-Range is"
    ),
    "206 with two Content-Ranges": Case(
        raw(
            "HTTP/1.1 206 OK\nContent-Range: bytes 100-299/1000\nContent-Range: bytes 0-199/1000\n"
            "Content-Length: 200\n",
            WANT,
        ),
        TransientError,
        "Content-Range is",
    ),
    "206 multipart": Case(
        partial(headers={"Content-Type": "multipart/byteranges; boundary=x"}), TransientError, "several parts"
    ),
    "206 longer by Content-Length": Case(partial(body=WANT + b"x"), TransientError, "Content-Length is 201"),
    "206 shorter by Content-Length": Case(partial(body=WANT[1:]), TransientError, "Content-Length is 199"),
    "416 of another size": Case(
        Reply(status=416, headers={"Content-Range": "bytes */50"}), BackendError, "HTTP 416"
    ),
    "416 without a size": Case(Reply(status=416), BackendError, "HTTP 416"),
    "416 at the end": Case(Reply(status=416, headers={"Content-Range": "bytes */100"}), (START, b"")),
    # Row 8: short, long and broken bodies.
    "cut at once": Case(partial(cut_at=0), TransientError, "connection was lost"),
    "cut inside": Case(partial(cut_at=77), TransientError, "connection was lost"),
    "cut before the last byte": Case(partial(cut_at=199), TransientError, "connection was lost"),
    "reset inside": Case(partial(cut_at=77, reset=True), TransientError, "connection was lost"),
    "206 short without a length": Case(
        partial(body=WANT[:60], length=False, close=True), TransientError, "after 60 of 200"
    ),
    "206 long without a length": Case(
        partial(body=WANT + b"more", length=False, close=True), BackendError, "more than the 200"
    ),
    "206 chunked, short": Case(
        partial(body=chunked([WANT[:60]]), headers=CHUNKED), TransientError, "60 of 200"
    ),
    "206 chunked, long": Case(
        partial(body=chunked([WANT, b"x"]), headers=CHUNKED), BackendError, "more than the 200"
    ),
    "chunks without an end": Case(
        Reply(body=chunked([DATA])[:1], headers=CHUNKED, close=True),
        TransientError,
        "connection was lost",
        TransientError,
    ),
    "a chunk of bad size": Case(
        Reply(body=[b"zz\r\nhello\r\n"], headers=CHUNKED, close=True),
        TransientError,
        "not valid HTTP",
        TransientError,
    ),
    "200 cut": Case(Reply(body=DATA, cut_at=999), TransientError, "connection was lost", TransientError),
    # Row 9: encodings.
    "200 gzip": Case(
        Reply(body=DATA, headers={"Content-Encoding": "gzip"}), BackendError, "compressed", BackendError
    ),
    "206 zstd": Case(partial(headers={"Content-Encoding": "zstd"}), BackendError, "compressed"),
    "200 identity, gzip": Case(
        Reply(body=DATA, headers={"Content-Encoding": "identity, gzip"}),
        BackendError,
        "compressed",
        BackendError,
    ),
    "206 identity": Case(partial(headers={"Content-Encoding": "Identity"}), GOOD),
    "transfer encoding gzip": Case(
        Reply(body=DATA, headers={"Transfer-Encoding": "gzip, chunked"}, close=True),
        TransientError,
        "not valid HTTP",
        TransientError,
    ),
    # Statuses.
    "404": Case(Reply(status=404, body=b"no"), MissingKeyError, "no such file", MissingKeyError),
    "410": Case(Reply(status=410), MissingKeyError, "no such file", MissingKeyError),
    "401": Case(Reply(status=401), BackendError, "401", BackendError),
    "403": Case(Reply(status=403), BackendError, "403", BackendError),
    "451": Case(Reply(status=451), BackendError, "451", BackendError),
    "501": Case(Reply(status=501), BackendError, "501", BackendError),
    "204": Case(Reply(status=204, length=False), BackendError, "204", BackendError),
    "203 from a meddling proxy": Case(Reply(status=203, body=DATA), BackendError, "203", BackendError),
    "300": Case(Reply(status=300), BackendError, "300", BackendError),
    "304 unasked": Case(Reply(status=304), BackendError, "304", BackendError),
    "101": Case(
        raw("HTTP/1.1 101 Switching\nUpgrade: x\nConnection: upgrade\n"),
        TransientError,
        "not valid HTTP",
    ),
    **{
        str(status): Case(Reply(status=status, body=b"wait"), TransientError, f"{status}", TransientError)
        for status in (408, 425, 429, 500, 502, 503, 504)
    },
    # What is hardly HTTP.
    "closed in silence": Case(
        Reply(raw=b"", close=True), TransientError, "connection was lost", TransientError
    ),
    "reset in silence": Case(
        Reply(raw=b"", reset=True), TransientError, "connection was lost", TransientError
    ),
    "not HTTP": Case(Reply(raw=b"SSH-2.0-OpenSSH_9\r\n\r\n", close=True), TransientError, "not valid HTTP"),
    "HTTP/0.9": Case(Reply(raw=DATA, close=True), TransientError, "connection was lost", TransientError),
    "a header of 300 kB": Case(
        raw("HTTP/1.1 200 OK\nX: " + "y" * 300_000 + "\n"),
        TransientError,
        "not valid HTTP",
        TransientError,
    ),
    "a header without a colon": Case(raw("HTTP/1.1 200 OK\nnonsense\n"), TransientError, "not valid HTTP"),
    "two lengths": Case(
        raw("HTTP/1.1 200 OK\nContent-Length: 5\nContent-Length: 6\n", b"hello!"),
        TransientError,
        "not valid HTTP",
    ),
    "a negative length": Case(
        raw("HTTP/1.1 200 OK\nContent-Length: -5\n", b"hello"), TransientError, "not valid HTTP"
    ),
    # Slow.
    "no answer": Case(partial(delay_s=9), TransientError, "stalled", TransientError),
    "silence inside": Case(
        Reply(body=[DATA[:500], DATA[500:]], pause_s=9), TransientError, "stalled", TransientError
    ),
    "body drips": Case(
        Reply(body=DRIP, pause_s=0.02, headers={"Content-Length": "400"}),
        TransientError,
        "stalled",
        TransientError,
    ),
    "headers drip": Case(
        Reply(raw=[b"HTTP/1.1 200 OK\r\nX: ", *DRIP], pause_s=0.02), TransientError, "stalled", TransientError
    ),
    "chunk extension drips": Case(
        Reply(raw=[b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;", *DRIP], pause_s=0.02),
        TransientError,
        "stalled",
        TransientError,
    ),
    "endless 1xx": Case(Reply(raw=[FLOOD] * 400, pause_s=0.02), TransientError, "stalled", TransientError),
}


@pytest.mark.parametrize("name", MATRIX)
def test_reply_matrix(name: str) -> None:
    case = MATRIX[name]
    with backend_for([case.reply]) as (backend, server), bounded():
        check(case.expected, case.says, lambda: read(backend))
    assert server.seen[0].headers["range"] == "bytes=100-299"
    assert server.seen[0].headers["accept-encoding"] == "identity"
    assert len(server.seen) == 1


@pytest.mark.parametrize("name", [name for name, case in MATRIX.items() if case.get is not None])
def test_reply_matrix_of_get(name: str) -> None:
    case = MATRIX[name]
    assert case.get is not None
    with backend_for([case.reply]) as (backend, server), bounded():
        # `get` has a body where `open` has a range; only the message's status word may differ.
        check(case.get, case.says if case.get == case.expected else "", lambda: fetch(backend))
    assert "range" not in server.seen[0].headers


def fetch(backend: HttpBackend) -> tuple[int, bytes]:
    fetched = backend.get("x", limit_bytes=10_000)
    assert fetched is not None
    return 0, fetched.data


def check(expected: Expected, says: str, act: Callable[[], tuple[int, bytes]]) -> None:
    if isinstance(expected, tuple):
        assert act() == expected
        return
    with pytest.raises(YarnstoreError) as caught:
        act()
    assert type(caught.value) is expected
    assert says in caught.value.message


@pytest.mark.parametrize("reset", [False, True])
def test_cut_at_every_64th(reset: bool) -> None:
    cuts = [len(DATA) * k // 64 for k in range(64)]
    with backend_for([replace(Reply(body=DATA), cut_at=cut, reset=reset) for cut in cuts]) as (backend, _):
        for cut in cuts:
            got = b""
            with backend.open("x") as body, pytest.raises(TransientError):  # noqa: PT012 (blocks before it count)
                for block in body:
                    got += block
            assert got == DATA[: len(got)]
            assert len(got) <= cut
            if not reset:
                assert len(got) == cut


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_get_stops_reading_at_its_limit(framing: str) -> None:
    headers = CHUNKED if framing == "chunked" else {}
    endless = [b"10000\r\n" + b"x" * 65_536 + b"\r\n"] * 64
    body = endless if framing == "chunked" else [b"x" * 65_536] * 64
    with backend_for([Reply(body=body, headers=headers)]) as (backend, _), bounded():
        with pytest.raises(BackendError, match="limit of 1000 bytes") as caught:
            backend.get("x", limit_bytes=1000)
        assert not isinstance(caught.value, TransientError)


def test_get_refuses_by_content_length_before_the_body_comes() -> None:
    reply = Reply(headers={"Content-Length": "99999999999999"}, body=[b"x", b"y"], pause_s=9)
    # Waiting for the rest would end in "stalled".
    with backend_for([reply]) as (backend, _), pytest.raises(BackendError, match="limit of 1000 bytes"):
        backend.get("x", limit_bytes=1000)


def test_get_has_a_deadline_even_at_a_fair_pace() -> None:
    fair = Reply(body=[b"x" * 200] * 100, pause_s=0.05)
    with backend_for([fair, fair]) as (backend, _), bounded():
        with pytest.raises(TransientError, match="deadline"):
            backend.get("x", limit_bytes=100_000)
        # `open` has none: it may be a hundred gigabytes.
        with backend.open("x") as body:
            began_s = time.monotonic()
            for _ in body:
                if time.monotonic() - began_s > FAST.get_s + 0.2:
                    return
        pytest.fail("the body ended before the deadline would have")


def test_a_slow_reader_is_not_a_slow_server() -> None:
    patience = msgspec.structs.replace(FAST, window_s=0.2, floor_bytes_per_s=10_000_000.0)
    with ScriptedServer([Reply(body=bytes(4_000_000))]) as server:
        backend = HttpBackend(server.url, timeouts=patience)
        with backend.open("x") as body:
            total = 0
            for block in body:
                total += len(block)
                time.sleep(len(block) / 5_000_000)  # half the pace demanded of the server
        backend.close()
    assert total == 4_000_000


def test_a_part_nobody_asked_for_is_refused() -> None:
    with backend_for([partial("bytes 0-199/200")]) as (backend, _):
        check(BackendError, "HTTP 206", lambda: read(backend, 0, None))


def test_what_follows_a_body_is_never_taken_for_the_next_answer() -> None:
    forged = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged"
    reply = Reply(raw=b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood" + forged)
    with backend_for([reply, Reply(body=b"second"), Reply(body=b"third")]) as (backend, server):
        assert [fetch(backend) for _ in range(3)] == [(0, b"good"), (0, b"second"), (0, b"third")]
    assert [seen.connection for seen in server.seen] == [0, 1, 1]


def test_what_follows_a_body_of_a_proxy_is_never_taken_for_the_next_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    forged = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged"
    reply = Reply(raw=b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood" + forged)
    with ScriptedServer([reply, *[Reply(body=b"later")] * 3]) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        monkeypatch.delenv("no_proxy", raising=False)
        with closing(HttpBackend("http://registry.example/", timeouts=FAST)) as backend:
            assert fetch(backend) == (0, b"good")
            check(TransientError, "before the request", lambda: fetch(backend))
            assert fetch(backend) == (0, b"later")


@pytest.mark.parametrize(
    ("value", "expected_s"),
    [
        ("7", 7.0),
        ("0", 0.0),
        ("99999999", 300.0),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 300.0),
        ("-5", 0.0),
        ("soon", 0.0),
        ("1e9", 0.0),
    ],
)
def test_retry_after_is_carried(value: str, expected_s: float) -> None:
    with backend_for([Reply(status=503, headers={"Retry-After": value})]) as (backend, _):
        with pytest.raises(TransientError) as caught:
            read(backend)
        assert caught.value.retry_after_s == expected_s


def test_connection_refused_is_transient() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    backend = HttpBackend(f"http://127.0.0.1:{port}/", timeouts=FAST)
    with bounded(), pytest.raises(TransientError, match="cannot connect"):
        read(backend)
    backend.close()


@pytest.mark.parametrize(
    ("host", "says", "kind"),
    [
        ("no-such-host.invalid", "cannot be resolved", TransientError),
        ("a" * 70 + ".test", "has no host", UsageError),
    ],
)
def test_names_that_do_not_resolve(host: str, says: str, kind: type[YarnstoreError]) -> None:
    with pytest.raises(kind, match=says), closing(HttpBackend(f"http://{host}/", timeouts=FAST)) as backend:
        read(backend)


def test_a_server_that_accepts_nothing_times_out() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        backend = HttpBackend(f"http://127.0.0.1:{listener.getsockname()[1]}/", timeouts=FAST)
        with bounded(), pytest.raises(TransientError, match="stalled"):
            read(backend)
        backend.close()


def test_closing_while_another_thread_reads_is_a_typed_error() -> None:
    reply = Reply(body=[DATA[:500], DATA[500:]], pause_s=9)
    with ScriptedServer([reply]) as server:
        backend = HttpBackend(server.url, timeouts=Timeouts())
        failures: list[BaseException] = []
        reading = threading.Event()

        def work() -> None:
            try:
                with backend.open("x") as body:
                    for _ in body:
                        reading.set()
            except BaseException as error:  # noqa: BLE001 (whatever it is, the test looks at it)
                failures.append(error)

        thread = threading.Thread(target=work)
        thread.start()
        assert reading.wait(5)
        time.sleep(0.05)
        backend.close()
    thread.join(5)
    assert not thread.is_alive()
    assert len(failures) == 1
    assert isinstance(failures[0], BackendError)
    with pytest.raises(BackendError, match="closed"):
        read(backend)


# Redirects and credentials: rows 12 and 13.


def redirect(to: str, status: int = 302) -> Reply:
    return Reply(status=status, headers={"Location": to}, body=b"over there")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("to", ["/y", "y", "./y", "//{netloc}/y", "http://{netloc}/y", "?q", "#f"])
def test_redirects_on_one_origin_keep_token_and_range(status: int, to: str) -> None:
    with ScriptedServer([]) as server:
        server.rescript([redirect(to.format(netloc=f"127.0.0.1:{server.port}"), status), partial()])
        backend = HttpBackend(server.url, token=TOKEN, timeouts=FAST)
        assert read(backend) == GOOD
        backend.close()
        first, second = server.seen
        assert first.headers["authorization"] == second.headers["authorization"] == f"Bearer {TOKEN}"
        assert second.headers["range"] == first.headers["range"]
        assert second.method == "GET"
        assert first.connection == second.connection  # a short redirect does not cost a connection


def test_the_token_goes_to_no_other_origin_and_not_back() -> None:
    with ScriptedServer([]) as own, ScriptedServer([]) as other:
        own.rescript([redirect(other.url + "y"), partial()])
        other.rescript([redirect(own.url + "back")])
        backend = HttpBackend(own.url, token=TOKEN, timeouts=FAST)
        assert read(backend) == GOOD
        backend.close()
    assert own.seen[0].headers["authorization"] == f"Bearer {TOKEN}"
    assert "authorization" not in other.seen[0].headers
    assert own.seen[1].path == "/back"
    assert "authorization" not in own.seen[1].headers


@pytest.mark.parametrize("via", ["localhost", "127.0.0.2"])
def test_another_name_of_the_same_server_is_another_origin(via: str) -> None:
    with ScriptedServer(lambda _: partial(), host="0.0.0.0") as server:
        backend = HttpBackend(f"http://127.0.0.1:{server.port}/", token=TOKEN, timeouts=FAST)
        with backend.open(f"http://{via}:{server.port}/x", start=START, length=LENGTH) as body:
            assert b"".join(body) == WANT
        backend.close()
    assert "authorization" not in server.seen[0].headers


def test_absolute_keys_take_the_token_home_only() -> None:
    with ScriptedServer(files({"x": DATA})) as own, ScriptedServer(files({"a/x y": DATA})) as other:
        backend = HttpBackend(own.url + "registry/", token=TOKEN, timeouts=FAST)
        for url in (own.url + "x", other.url + "a/x%20y?sig=abc"):
            fetched = backend.get(url, limit_bytes=2000)
            assert fetched is not None
            assert fetched.data == DATA
        backend.close()
    assert own.seen[0].headers["authorization"] == f"Bearer {TOKEN}"
    assert other.seen[0].path == "/a/x%20y?sig=abc"
    assert "authorization" not in other.seen[0].headers


@pytest.mark.parametrize("hops", [REDIRECTS_LIMIT, REDIRECTS_LIMIT + 1])
def test_redirects_are_counted(hops: int) -> None:
    with backend_for([*[redirect(f"/{n}") for n in range(hops)], partial()]) as (backend, server):
        if hops <= REDIRECTS_LIMIT:
            assert read(backend) == GOOD
        else:
            check(BackendError, "more than 5 times", lambda: read(backend))
        assert len(server.seen) == REDIRECTS_LIMIT + 1


REFUSED_TARGETS = {
    "": "without a target",
    "ftp://127.0.0.1/x": "scheme",
    "file:///etc/passwd": "scheme",
    "javascript:alert(1)": "invalid URL",
    "http://user:pw@127.0.0.1/x": "user name or password",
    "http://169.254.169.254/latest/meta-data": "link-local",
    "http://[fe80::1]/": "link-local",
    "http://[::ffff:169.254.169.254]/": "link-local",
    "http://2852039166/": "link-local",
    "http://0xa9fea9fe/": "link-local",
    "http://[::1/": "invalid URL",
    "http://127.0.0.1:99999/": "invalid port",
    "http://a b/": "has no host",
    "http://127.0.0.1:port/": "invalid URL",
}


@pytest.mark.parametrize("target", REFUSED_TARGETS)
def test_redirects_that_are_refused(target: str) -> None:
    with backend_for([redirect(target), partial()], token=TOKEN) as (backend, server):
        with bounded(), pytest.raises(BackendError, match=REFUSED_TARGETS[target]) as caught:
            read(backend)
        assert not isinstance(caught.value, TransientError)
        assert "pw" not in caught.value.message
        assert len(server.seen) == 1


@pytest.mark.parametrize("target", [*filter(None, REFUSED_TARGETS), "http:///x", "HTTP://@/"])
def test_download_addresses_that_are_refused(target: str) -> None:
    with backend_for([]) as (backend, server):
        with bounded(), pytest.raises(BackendError) as caught:
            backend.get(target if "://" in target else f"http://{target}", limit_bytes=100)
        assert not isinstance(caught.value, TransientError)
        assert "pw" not in caught.value.message
        assert server.seen == []


def test_secrets_of_signed_addresses_are_not_shown() -> None:
    with backend_for([redirect("/signed?X-Signature=s3cret"), Reply(status=403)]) as (backend, _):
        with pytest.raises(BackendError) as caught:
            backend.get("x", limit_bytes=10)
        assert caught.value.url.endswith("/signed")
        assert "s3cret" not in str(caught.value.as_dict())


_IN_NAMESPACE = """
import socket, sys
from tests.support.servers import Reply, ScriptedServer
from yarnstore.backends import Timeouts
from yarnstore.backends.http import HttpBackend
from yarnstore.errors import BackendError, TransientError

real = socket.getaddrinfo  # stands in for a DNS server that answers with what it likes
names = {"innocent.test": "127.0.0.1", "rebound.test": "169.254.169.254"}
socket.getaddrinfo = lambda host, *a, **k: real(names.get(host, host), *a, **k)

with ScriptedServer(lambda seen: Reply(body=b"secret"), host="0.0.0.0") as server:
    def get(host):
        backend = HttpBackend(f"http://{host}:{server.port}/", token="t", timeouts=Timeouts(connect_s=2))
        try:
            return backend.get("latest", limit_bytes=100).data
        finally:
            backend.close()

    assert get("innocent.test") == b"secret"  # so the name trick works
    with socket.create_connection(("169.254.169.254", server.port), 2):
        pass  # and so does the address
    before = len(server.seen)
    try:
        get("rebound.test")
    except BackendError as error:
        assert not isinstance(error, TransientError) and "link-local" in error.message, error
    else:
        sys.exit("a link-local peer was asked")
    assert len(server.seen) == before, "a request reached a link-local peer"
print("refused")
"""


def test_a_name_that_resolves_to_link_local_is_refused_before_a_byte_is_sent() -> None:
    if shutil.which("unshare") is None or shutil.which("ip") is None:
        pytest.skip("needs unshare and ip")
    setup = "ip link set lo up && ip addr add 169.254.169.254/32 dev lo"
    if subprocess.run(["unshare", "-Urn", "sh", "-c", setup], capture_output=True, timeout=10).returncode:
        pytest.skip("this machine gives no network namespaces to users")
    repository = Path(__file__).parents[2]
    done = subprocess.run(
        [
            "unshare",
            "-Urn",
            "sh",
            "-c",
            f'{setup} && exec "$0" -W error -c "$1"',
            sys.executable,
            _IN_NAMESPACE,
        ],
        capture_output=True,
        text=True,
        timeout=20,
        cwd=repository,
        env={**os.environ, "PYTHONPATH": str(repository)},
    )
    assert done.stdout.strip() == "refused", done.stderr


def test_cookies_are_neither_kept_nor_sent() -> None:
    baked = Reply(body=b"ok", headers={"Set-Cookie": "id=1; Path=/"})
    moved = Reply(status=302, headers={"Location": "/y", "Set-Cookie": "hop=1; Path=/"})
    with backend_for([baked, moved, baked]) as (backend, server):
        fetch(backend)
        fetch(backend)
        assert [seen.headers.get("cookie") for seen in server.seen] == [None] * 3


def test_netrc_is_not_consulted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    netrc = tmp_path / ".netrc"
    netrc.write_text("machine 127.0.0.1 login me password hunter2\ndefault login me password hunter2\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("HOME", str(tmp_path))
    with backend_for([Reply(body=b"ok")]) as (backend, server):
        fetch(backend)
        assert "authorization" not in server.seen[0].headers


def test_proxies_of_the_environment_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    with ScriptedServer(lambda _: Reply(body=b"by proxy")) as proxy:
        monkeypatch.setenv("http_proxy", f"http://user:pw@127.0.0.1:{proxy.port}")
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        backend = HttpBackend("http://registry.invalid/", token=TOKEN, timeouts=FAST)
        assert fetch(backend) == (0, b"by proxy")
        assert proxy.seen[0].path == "http://registry.invalid/x"
        assert proxy.seen[0].headers["proxy-authorization"].startswith("Basic ")
        backend.close()
        with backend_for([Reply(body=b"direct")]) as (direct, server):
            assert fetch(direct) == (0, b"direct")
            assert "proxy-authorization" not in server.seen[0].headers


def test_a_proxy_that_cannot_be_reached_or_refuses_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    monkeypatch.setenv("http_proxy", f"http://user:hunter2@127.0.0.1:{port}")
    monkeypatch.setenv("no_proxy", "")
    backend = HttpBackend("http://registry.invalid/")
    with pytest.raises(
        TransientError, match=f"the proxy http://127.0.0.1:{port} cannot be reached"
    ) as caught:
        fetch(backend)
    assert "no_proxy" in caught.value.hint
    assert "hunter2" not in str(caught.value.as_dict())
    backend.close()
    for status, kind in ((403, BackendError), (407, BackendError), (502, TransientError)):
        with ScriptedServer(lambda _, status=status: Reply(status=status)) as proxy:
            monkeypatch.setenv("https_proxy", f"http://user:hunter2@127.0.0.1:{proxy.port}")
            backend = HttpBackend("https://registry.invalid/")
            said = f"the proxy http://127.0.0.1:{proxy.port} answered {status}"
            with pytest.raises(kind, match=said) as caught:
                fetch(backend)
            assert "hunter2" not in str(caught.value.as_dict())
            backend.close()


@pytest.mark.parametrize("reset", [False, True])
def test_a_server_that_fails_behind_a_proxy_is_not_called_a_proxy_that_cannot_be_reached(
    monkeypatch: pytest.MonkeyPatch, *, reset: bool
) -> None:
    opened = Reply(raw=[b"HTTP/1.1 200 OK\r\n\r\n", b""], pause_s=0.2 if reset else 9, reset=reset)
    with ScriptedServer(lambda _: opened) as proxy:
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{proxy.port}")
        monkeypatch.setenv("no_proxy", "")
        quick = msgspec.structs.replace(FAST, connect_s=1.0)
        backend = HttpBackend("https://registry.invalid/", timeouts=quick)
        with bounded(), pytest.raises(TransientError, match="through the proxy") as caught:
            read(backend)
        assert "cannot be reached" not in caught.value.message
        backend.close()


def test_networks_in_no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "10.0.0.0/8, 127.0.0.0/8")
    with backend_for([Reply(body=b"direct")]) as (backend, _):
        assert fetch(backend) == (0, b"direct")


def test_proxies_are_not_used_unless_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "")
    with ScriptedServer([Reply(body=b"direct")]) as server:
        backend = HttpBackend(server.url, timeouts=FAST, trust_env=False)
        assert fetch(backend) == (0, b"direct")
        backend.close()


# TLS.


def test_tls(tmp_path: Path) -> None:
    tls, trusting = self_signed(tmp_path / "tls")
    with (
        ScriptedServer([]) as plain,
        ScriptedServer([Reply(body=b"other")], tls=tls) as other,
        ScriptedServer([], tls=tls) as server,
    ):
        server.rescript(
            [Reply(body=b"ok"), redirect(plain.url), redirect(other.url), Reply(body=DATA, cut_at=9)]
        )
        suspicious = HttpBackend(server.url, token=TOKEN, timeouts=FAST)
        check(BackendError, "certificate", lambda: fetch(suspicious))
        suspicious.close()
        assert server.seen == []

        backend = HttpBackend(server.url, token=TOKEN, timeouts=FAST, ssl_context=trusting)
        assert fetch(backend) == (0, b"ok")
        check(BackendError, "from https to http", lambda: fetch(backend))
        assert fetch(backend) == (0, b"other")
        check(TransientError, "connection was lost", lambda: fetch(backend))
        backend.close()
    assert plain.seen == []
    assert "authorization" not in other.seen[0].headers
    assert server.seen[0].headers["authorization"] == f"Bearer {TOKEN}"


def test_https_asked_of_a_plain_server(tmp_path: Path) -> None:
    with ScriptedServer([]) as server:  # it answers a TLS hello with a 400
        backend = HttpBackend(server.url.replace("http:", "https:"), timeouts=FAST)
        with bounded(), pytest.raises(BackendError, match="speaks plain http, not https") as caught:
            read(backend)
        assert not isinstance(caught.value, TransientError)
        assert f"use http://127.0.0.1:{server.port}/x" in caught.value.hint
        backend.close()


@pytest.mark.parametrize(
    "body",
    [
        b"<html><title>400 The plain HTTP request was sent to HTTPS port</title></html>",
        b"Reason: You're speaking plain HTTP to an SSL-enabled server port.",
        b"Client sent an HTTP request to an HTTPS server.\n",
    ],
)
def test_http_asked_of_an_https_port(body: bytes) -> None:
    with backend_for([Reply(status=400, body=body)] * 2) as (backend, _):
        with pytest.raises(BackendError, match="speaks https, not http") as caught:
            read(backend)
        assert "use https://127.0.0.1" in caught.value.hint
        with pytest.raises(BackendError, match="speaks https, not http"):
            backend.get("x", limit_bytes=100)


def test_http_asked_of_a_server_that_answers_with_a_tls_alert() -> None:
    with backend_for(lambda _: Reply(raw=b"\x15\x03\x01\x00\x02\x02\x16", close=True)) as (backend, _):
        with pytest.raises(TransientError, match="the response is not valid HTTP") as caught:
            read(backend)
        assert "use https://" in caught.value.hint


PAGE = b"<!DOCTYPE html><html>Please log in</html>"


@pytest.mark.parametrize("key", ["registry.json", "models/m.json", "manifests/a.json.zst", "packs/a.pack"])
@pytest.mark.parametrize("content_type", ["text/html", "application/octet-stream"])
def test_a_web_page_in_place_of_a_file(key: str, content_type: str) -> None:
    pages = [
        Reply(body=PAGE, headers={"Content-Type": content_type}),
        Reply(body=[bytes([b]) for b in PAGE], headers={"Content-Type": content_type}),
        Reply(body=chunked([PAGE]), headers={"Content-Type": content_type, **CHUNKED}),
    ]
    with backend_for([page for page in pages for _ in range(2)]) as (backend, _):
        for _ in pages:
            with pytest.raises(BackendError, match=f"a web page instead of {key}") as caught:
                backend.get(key, limit_bytes=10_000)
            assert "captive portal" in caught.value.hint
            with pytest.raises(BackendError, match="a web page"), backend.open(key, start=5, length=9):
                pass


def test_a_compressed_web_page_and_one_behind_a_redirect() -> None:
    page = Reply(body=b"\x1f\x8b...", headers={"Content-Type": "text/html", "Content-Encoding": "gzip"})
    away = Reply(status=302, headers={"Location": "/login"})
    script = [page, away, Reply(body=PAGE), Reply(status=511, body=PAGE)]
    with backend_for(script) as (backend, _):
        for _ in range(2):
            with pytest.raises(BackendError, match="a web page"):
                backend.get("registry.json", limit_bytes=10_000)
        with pytest.raises(BackendError, match="511") as caught:
            backend.get("registry.json", limit_bytes=10_000)
        assert "login page" in caught.value.hint


def test_a_file_that_a_server_calls_a_page_is_none() -> None:
    good = Reply(body=b'{"models": {}}', headers={"Content-Type": "text/html"})
    with backend_for([good]) as (backend, _):
        fetched = backend.get("registry.json", limit_bytes=10_000)
        assert fetched is not None
        assert fetched.data == good.body


def test_an_expired_signed_address() -> None:
    query = "X-Amz-Date=20200101T000000Z&X-Amz-Expires=60&X-Amz-Signature=secret"
    with backend_for([Reply(status=403, body=b"<Error/>")]) as (backend, server):
        with pytest.raises(BackendError, match="expired on 2020-01-01 00:01 UTC") as caught:
            backend.get(f"{server.url}w.bin?{query}", limit_bytes=100)
        assert "secret" not in str(caught.value.as_dict())


def test_a_tls_handshake_that_hangs() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        quick = msgspec.structs.replace(FAST, connect_s=0.3)
        backend = HttpBackend(f"https://127.0.0.1:{listener.getsockname()[1]}/", timeouts=quick)
        with bounded(), pytest.raises(TransientError, match="no connection"):
            read(backend)
        backend.close()


# The campaign: whatever a server does, retries and resumption get the right bytes or a typed error.

BAD = [
    case.reply for name, case in MATRIX.items() if not isinstance(case.expected, tuple) and "drip" not in name
]
QUICK_BAD = [reply for reply in BAD if reply.delay_s == reply.pause_s == 0]


def misbehaving(seed: int, replies: list[Reply], share: float) -> Callable[[Seen], Reply]:
    """A server of which `share` of the answers are bad: cut, wrong or none at all."""
    rng = random.Random(seed)

    def script(seen: Seen) -> Reply:
        good = ranged(DATA, seen)
        chance = rng.random()
        if chance > share:
            return good
        if chance > share / 2:
            return replace(good, cut_at=rng.randrange(len(DATA)), reset=rng.random() < 0.3)
        if chance > share / 4:
            return Reply(status=500, body=b"x" * rng.choice((0, 10, 100_000)))
        return rng.choice(replies)

    return script


def download(backend: Retrying, tries: int) -> bytes:
    """As the engine does it: from where it stands; from 0 where ranges are not honoured."""
    got = bytearray()
    for left in reversed(range(tries)):
        if len(got) == len(DATA):
            break  # an error may follow the last byte
        try:
            with backend.open("x", start=len(got), length=len(DATA) - len(got)) as body:
                del got[body.start :]
                for block in body:
                    got += block
        except BackendError:
            if not left:
                raise
    return bytes(got)


def campaign(seed: int, replies: list[Reply]) -> None:
    policy = RetryPolicy(attempts=3, retry_after_cap_s=0.0)
    with ScriptedServer(misbehaving(seed, replies, 0.6)) as server:
        backend = Retrying(HttpBackend(server.url, timeouts=FAST), policy, sleep=lambda _: None)
        try:
            for _ in range(6):
                assert download(backend, 40) == DATA
        finally:
            backend.close()


@pytest.mark.parametrize("seed", range(20))
def test_the_right_bytes_come_through_a_bad_server(seed: int) -> None:
    campaign(seed, QUICK_BAD)


@pytest.mark.deep
@pytest.mark.parametrize("seed", range(20))
def test_the_right_bytes_come_through_a_bad_and_slow_server(seed: int) -> None:
    campaign(1000 + seed, BAD)
