"""What every backend and wrapper must do alike, over real folders and real servers."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.servers import ScriptedServer, files, nginx_server, static_server
from yarnstore.backends import (
    Backend,
    Cancellable,
    Limited,
    LocalBackend,
    MemoryBackend,
    Mirror,
    RateLimit,
    Retrying,
    RetryPolicy,
    SourceSet,
)
from yarnstore.backends.connect import connect
from yarnstore.backends.http import HttpBackend
from yarnstore.errors import BackendError, InvalidNameError, MissingKeyError, TransientError

BIG = random.Random(7).randbytes(3_000_001)
TREE = {
    "registry.json": b'{"models": {}}',
    "empty": b"",
    "packs/big.pack": BIG,
    # Windows has no `?` in names.
    f"models/org~phi 3 é%41+{'?' if os.name == 'posix' else ''}&#;=.json": b"a name that must be quoted",
}
# http.server answers 200 to every range; all others must honour ranges to the byte.
RANGELESS = frozenset({"http.server"})
# … and it has no ETags.
ETAGLESS = frozenset({"http.server", "scripted", "mirrored-second"})

KINDS = (
    *("local", "local-url", "memory", "http.server", "nginx", "scripted", "retrying", "connect"),
    *("limited", "halting", "mirrored", "mirrored-second"),
)


class Subject:
    def __init__(self, kind: str, backend: Backend) -> None:
        self.kind = kind
        self.backend = backend
        self.ranges = kind not in RANGELESS
        self.etags = kind not in ETAGLESS

    def read(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        """What was asked for, as the engine takes it out of whatever came."""
        with self.backend.open(key, start=start, length=length) as body:
            assert body.start in ((start,) if self.ranges else (0, start))
            data = b"".join(body)
            if self.ranges and length is not None:
                assert len(data) <= length
            skip = start - body.start
            return data[skip:] if length is None else data[skip : skip + length]


def mirror(address: str | Path) -> Mirror:
    return Mirror(str(address), lambda: connect(address, policy=RetryPolicy(attempts=1)), trusted=True)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("registry")
    for key, data in TREE.items():
        (root / key).parent.mkdir(exist_ok=True)
        (root / key).write_bytes(data)
    (root / "folder").mkdir()
    (root.parent / "outside").write_bytes(b"secret")
    return root


@pytest.fixture(params=KINDS, scope="module")
def subject(
    request: pytest.FixtureRequest, tree: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Subject]:
    kind: str = request.param
    with ExitStack() as stack:
        backend: Backend
        if kind == "local":
            backend = LocalBackend(tree)
        elif kind == "local-url":
            backend = LocalBackend(tree.as_uri() + "/")
        elif kind == "memory":
            backend = MemoryBackend(TREE)
        elif kind == "http.server":
            backend = HttpBackend(stack.enter_context(static_server(tree)))
        elif kind == "scripted":
            backend = HttpBackend(stack.enter_context(ScriptedServer(files(TREE))).url)
        else:
            nginx = stack.enter_context(nginx_server(tree, tmp_path_factory.mktemp("nginx") / "prefix"))
            if kind == "nginx":
                backend = HttpBackend(nginx.url)
            elif kind == "retrying":
                backend = Retrying(HttpBackend(nginx.url))
            elif kind == "limited":
                backend = Limited(HttpBackend(nginx.url), RateLimit(1e9))
            elif kind == "halting":
                backend = Cancellable(HttpBackend(nginx.url), lambda: None)
            elif kind == "mirrored":
                backend = SourceSet([mirror(nginx.url), mirror(tree)])
            elif kind == "mirrored-second":
                empty = tmp_path_factory.mktemp("empty")
                backend = SourceSet([mirror(empty), mirror(nginx.url)])
            else:
                backend = connect(nginx.url.rstrip("/"))
        stack.callback(backend.close)
        yield Subject(kind, backend)


@pytest.mark.parametrize("key", TREE)
def test_get_returns_the_whole_file(subject: Subject, key: str) -> None:
    fetched = subject.backend.get(key, limit_bytes=len(TREE[key]))
    assert fetched is not None
    assert fetched.data == TREE[key]


@pytest.mark.parametrize("key", TREE)
def test_open_streams_the_whole_file(subject: Subject, key: str) -> None:
    with subject.backend.open(key) as body:
        assert body.start == 0
        assert body.total == len(TREE[key])
        blocks = list(body)
    assert b"".join(blocks) == TREE[key]
    assert max(map(len, blocks), default=0) <= 1 << 20


@pytest.mark.parametrize(
    ("start", "length"),
    [
        (0, 1),
        (0, len(BIG)),
        (1, 2),
        (1_000_000, 1_048_577),
        (len(BIG) - 1, 1),
        (len(BIG) - 1, None),
        (5, None),
        (len(BIG), None),  # at the end: nothing
        (len(BIG) - 10, 100),  # over the end: what there is
        (0, 10 * len(BIG)),
    ],
)
def test_ranges(subject: Subject, start: int, length: int | None) -> None:
    end = len(BIG) if length is None else start + length
    assert subject.read("packs/big.pack", start, length) == BIG[start:end]


def test_random_ranges(subject: Subject) -> None:
    rng = random.Random(11)
    for _ in range(30):
        start = rng.randrange(len(BIG))
        length = rng.choice((1, 100, 65_536, 300_000))
        assert subject.read("packs/big.pack", start, length) == BIG[start : start + length]


def test_range_of_an_empty_file_is_empty(subject: Subject) -> None:
    assert subject.read("empty", 0, 5) == b""


def test_range_beyond_the_end_is_an_error_where_ranges_are_known(subject: Subject) -> None:
    if not subject.ranges:
        assert subject.read("registry.json", 500, 5) == b""
        return
    with (
        pytest.raises(BackendError) as caught,
        subject.backend.open("registry.json", start=500, length=5),
    ):
        pass
    assert caught.value.status == 416
    assert not isinstance(caught.value, TransientError | MissingKeyError)


@pytest.mark.parametrize(("start", "length"), [(-1, None), (0, 0), (0, -5)])
def test_ranges_that_cannot_be_written_are_the_callers_defect(
    subject: Subject, start: int, length: int | None
) -> None:
    with (
        pytest.raises(ValueError, match="is outside the file"),
        subject.backend.open("empty", start=start, length=length),
    ):
        pass


@pytest.mark.parametrize("key", ["nothing", "packs/nothing.pack", "no/such/folder", "empty/below"])
def test_a_missing_key_is_told_apart(subject: Subject, key: str) -> None:
    with pytest.raises(MissingKeyError) as caught:
        subject.backend.get(key, limit_bytes=100)
    assert key in caught.value.message.replace(os.sep, "/")
    with pytest.raises(MissingKeyError), subject.backend.open(key, start=3, length=4):
        pass


@pytest.mark.parametrize("limit", [0, 1, len(BIG) - 1])
def test_get_refuses_what_is_over_the_limit(subject: Subject, limit: int) -> None:
    with pytest.raises(BackendError, match=f"limit of {limit} bytes") as caught:
        subject.backend.get("packs/big.pack", limit_bytes=limit)
    assert not isinstance(caught.value, TransientError | MissingKeyError)


def test_an_etag_says_not_modified(subject: Subject) -> None:
    first = subject.backend.get("registry.json", limit_bytes=100)
    assert first is not None
    assert bool(first.etag) == subject.etags
    again = subject.backend.get("registry.json", limit_bytes=100, etag=first.etag)
    assert (again is None) == subject.etags
    other = subject.backend.get("registry.json", limit_bytes=100, etag='"another"')
    assert other == first


@pytest.mark.parametrize("etag", ["", "unquoted", '"a"\r\nX-Injected: 1', '"é"', '"' + "x" * 9000 + '"'])
def test_an_etag_nobody_gave_is_no_harm(subject: Subject, etag: str) -> None:
    fetched = subject.backend.get("registry.json", limit_bytes=100, etag=etag)
    assert fetched is not None
    assert fetched.data == TREE["registry.json"]


@pytest.mark.parametrize(
    "key",
    [
        "",
        "/etc/passwd",
        "..",
        "../outside",
        "packs/../../outside",
        "packs/..",
        "./registry.json",
        "packs//big.pack",
        "packs/",
        "..\\outside",
        "a\0b",
        "a\r\nHost: evil",
        "x" * 300,
        "x/" * 800 + "x",
    ],
)
def test_keys_stay_inside(subject: Subject, key: str) -> None:
    with pytest.raises(InvalidNameError):
        subject.backend.get(key, limit_bytes=100)
    with pytest.raises(InvalidNameError), subject.backend.open(key):
        pass


@pytest.mark.parametrize("key", ["%2e%2e/outside", "packs/%2e%2e/%2e%2e/outside", "..%2foutside"])
def test_quoted_dots_are_only_names(subject: Subject, key: str) -> None:
    with pytest.raises(MissingKeyError):
        subject.backend.get(key, limit_bytes=100)


def test_a_body_may_be_left_half_read(subject: Subject) -> None:
    for _ in range(3):
        with subject.backend.open("packs/big.pack") as body:
            assert BIG.startswith(next(iter(body)))
    assert subject.read("registry.json") == TREE["registry.json"]


def test_an_error_inside_the_with_gets_out_as_it_is(subject: Subject) -> None:
    with pytest.raises(KeyError, match="mine"), subject.backend.open("packs/big.pack"):
        raise KeyError("mine")
    error = OSError("the caller's disk is full")
    with pytest.raises(OSError, match="disk") as caught, subject.backend.open("packs/big.pack") as body:
        raise next(error for _ in body)
    assert caught.value is error


def test_threads_share_a_backend(subject: Subject) -> None:
    barrier = threading.Barrier(6)

    def work(seed: int) -> None:
        rng = random.Random(seed)
        barrier.wait(10)
        for _ in range(8):
            start = rng.randrange(len(BIG) - 70_000)
            assert subject.read("packs/big.pack", start, 70_000) == BIG[start : start + 70_000]
            fetched = subject.backend.get("registry.json", limit_bytes=100)
            assert fetched is not None
            assert fetched.data == TREE["registry.json"]

    with ThreadPoolExecutor(6) as pool:
        for future in [pool.submit(work, seed) for seed in range(6)]:
            future.result(60)


def test_a_folder_is_no_file(subject: Subject) -> None:
    if subject.kind == "http.server":
        pytest.skip("it answers with a listing, which is a file to anybody")
    with pytest.raises(BackendError):
        subject.backend.get("folder", limit_bytes=1000)


def test_the_url_is_for_messages(subject: Subject) -> None:
    assert subject.backend.url
    with pytest.raises(MissingKeyError) as caught:
        subject.backend.get("nothing", limit_bytes=1)
    assert caught.value.url.startswith(subject.backend.url)
