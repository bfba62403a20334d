"""Several addresses of one registry: who is asked when, and who is believed what."""

from __future__ import annotations

import pytest

from tests.support.servers import PATIENCE_S, Reply, ScriptedServer, files
from yarnstore.backends import MemoryBackend, Mirror, Offline, RetryPolicy, SourceSet, Timeouts
from yarnstore.backends.connect import connect
from yarnstore.errors import (
    BackendError,
    IntegrityError,
    InvalidNameError,
    MissingKeyError,
    OfflineError,
    TransientError,
)

QUICK = RetryPolicy(attempts=3, base_s=0.0)
SHORT = Timeouts(connect_s=2.0, stall_s=0.2, window_s=0.4)
TREE = {"registry.json": b"{}", "packs/a.pack": b"good" * 1000, "models/m.json": b"m"}


def memory(name: str, tree: dict[str, bytes], *, trusted: bool = False) -> tuple[Mirror, MemoryBackend]:
    backend = MemoryBackend(tree, url=name)
    return Mirror(name, lambda: backend, trusted), backend


def http(server: ScriptedServer, *, trusted: bool = False) -> Mirror:
    one = RetryPolicy(attempts=1)
    return Mirror(server.url, lambda: connect(server.url, policy=one, timeouts=SHORT), trusted)


def read(backend: SourceSet, key: str, start: int = 0) -> bytes:
    with backend.open(key, start=start) as body:
        return b"".join(body)


def test_the_first_that_has_it_is_asked_alone() -> None:
    (first, own), (second, other) = memory("own/", dict(TREE)), memory("m/", dict(TREE))
    backend = SourceSet([first, second])
    assert read(backend, "packs/a.pack") == TREE["packs/a.pack"]
    assert backend.url == "own/"
    assert (len(own.requests), len(other.requests)) == (1, 0)
    assert backend.served == ("own/",)


def test_what_one_lacks_the_next_has_and_nobody_is_blamed() -> None:
    (first, _), (second, _) = memory("own/", {}), memory("m/", dict(TREE))
    backend = SourceSet([first, second])
    with backend.open("packs/a.pack") as body:
        assert body.source == "m/"
        assert b"".join(body) == TREE["packs/a.pack"]
    assert backend.faults == ()
    with pytest.raises(MissingKeyError):
        backend.get("packs/none", limit_bytes=10)


@pytest.mark.parametrize("key", ["registry.json", "models/m.json", "something.bin"])
def test_what_no_hash_covers_comes_from_trusted_mirrors_alone(key: str) -> None:
    tree = {**TREE, "something.bin": b"?"}
    (own, _), (named, asked), (mine, _) = (
        memory("own/", {}),
        memory("named/", tree),
        memory("mine/", tree, trusted=True),
    )
    with pytest.raises(MissingKeyError):
        SourceSet([own, named]).get(key, limit_bytes=10)
    assert asked.requests == []
    fetched = SourceSet([own, named, mine]).get(key, limit_bytes=10)
    assert fetched is not None
    assert (fetched.source, fetched.etag) == ("mine/", "")


def test_an_etag_is_the_registrys_own() -> None:
    (own, _), (mine, _) = memory("own/", dict(TREE), trusted=True), memory("mine/", dict(TREE), trusted=True)
    backend = SourceSet([own, mine])
    fetched = backend.get("registry.json", limit_bytes=10)
    assert fetched is not None
    assert fetched.etag
    assert backend.get("registry.json", limit_bytes=10, etag=fetched.etag) is None
    assert backend.get("registry.json", limit_bytes=10, etag=fetched.etag, avoid={"own/"}) is not None


def test_503_then_200_needs_no_mirror() -> None:
    good = files(TREE)
    with ScriptedServer(lambda seen: Reply(status=503) if seen.number == 0 else good(seen)) as server:
        other, asked = memory("m/", dict(TREE))
        backend = SourceSet([http(server), other], policy=QUICK)
        assert read(backend, "packs/a.pack") == TREE["packs/a.pack"]
        backend.close()
    assert asked.requests == []
    assert backend.faults == ()


def test_a_server_that_stays_down_is_put_last() -> None:
    told = []
    with ScriptedServer(lambda _: Reply(status=503)) as server:
        other, asked = memory("m/", dict(TREE))
        backend = SourceSet([http(server), other], policy=QUICK, on_fault=told.append)
        for _ in range(5):
            assert read(backend, "packs/a.pack") == TREE["packs/a.pack"]
        assert len(server.seen) == 2, "two tries, then never again while the other answers"
        asked._files.clear()  # type: ignore[attr-defined]
        with pytest.raises(TransientError) as caught:
            read(backend, "packs/a.pack")
        assert len(server.seen) == 4, "the last is asked when nobody else has it"
        assert "m/packs/a.pack" in caught.value.message
        backend.close()
    assert [(fault.url, fault.kind) for fault in told] == [(server.url, "unreachable")]


def test_a_stall_puts_last_and_says_so() -> None:
    def stall(seen: object) -> Reply:
        return Reply(body=[b"go", b"od" * 1999], pause_s=PATIENCE_S)

    with ScriptedServer(stall) as server:
        other, _ = memory("m/", dict(TREE))
        backend = SourceSet([http(server), other], policy=QUICK)
        with pytest.raises(TransientError):
            read(backend, "packs/a.pack")
        assert [fault.kind for fault in backend.faults] == ["stalled"]
        assert read(backend, "packs/a.pack") == TREE["packs/a.pack"]
        backend.close()


def test_answers_that_break_off_twice_put_last() -> None:
    good = files(TREE)
    with ScriptedServer(lambda seen: Reply(body=good(seen).body, cut_at=100)) as server:
        other, _ = memory("m/", dict(TREE))
        backend = SourceSet([http(server), other], policy=QUICK)
        for _ in range(2):
            with pytest.raises(TransientError):
                read(backend, "packs/a.pack")
        assert read(backend, "packs/a.pack") == TREE["packs/a.pack"]
        backend.close()


def test_alone_it_tries_as_often_as_it_may() -> None:
    with ScriptedServer(lambda _: Reply(status=500)) as server:
        backend = SourceSet([http(server)], policy=QUICK)
        with pytest.raises(TransientError, match="tried 3 times"):
            read(backend, "packs/a.pack")
        backend.close()
        assert len(server.seen) == 3


def test_a_mirror_whose_address_is_none_is_passed_over() -> None:
    own, _ = memory("own/", {})
    bad = Mirror("gopher://m/", lambda: connect("gopher://m/"))
    good, _ = memory("m/", dict(TREE))
    assert read(SourceSet([own, bad, good]), "packs/a.pack") == TREE["packs/a.pack"]
    with pytest.raises(BackendError, match="cannot read from gopher"):
        read(SourceSet([own, bad]), "packs/a.pack")


def test_a_bad_key_is_the_callers() -> None:
    (first, _), (second, asked) = memory("own/", {}), memory("m/", {})
    with pytest.raises(InvalidNameError):
        SourceSet([first, second]).get("../x", limit_bytes=1)
    assert asked.requests == []


def test_one_named_twice_is_asked_once() -> None:
    (own, _), (again, _), (more, _) = memory("own/", {}), memory("own/", {}), memory("m/", {})
    backend = SourceSet([own, again, more])
    backend.add(memory("m/", {})[0])
    assert backend.sources == ("own/", "m/")
    assert SourceSet([memory("alone/", {})[0]]).sources == ("alone/",)


def test_offline_is_an_error_of_its_own_unless_somebody_has_it() -> None:
    away = Mirror("https://m.test/", lambda: Offline("https://m.test/"))
    stick, _ = memory("stick/", dict(TREE))
    assert read(SourceSet([away, stick]), "packs/a.pack") == TREE["packs/a.pack"]
    with pytest.raises(OfflineError, match="is not downloaded and --offline is set"):
        read(SourceSet([away, stick]), "packs/b.pack")


def check(data: bytes) -> bytes:
    if data != b"right":
        raise IntegrityError("thing", expected="right", got=data.decode())
    return data


def test_a_lie_is_asked_for_twice_then_the_next_and_reported() -> None:
    (liar, lied), (honest, _) = memory("liar/", {"packs/x": b"wrong"}), memory("m/", {"packs/x": b"right"})
    backend = SourceSet([liar, honest])
    assert backend.get_checked("packs/x", check, limit_bytes=9) == (b"right", "m/")
    assert len(lied.requests) == 2
    assert [(fault.url, fault.kind) for fault in backend.faults] == [("liar/", "lied")]
    assert backend.get_checked("packs/x", check, limit_bytes=9)[1] == "m/"
    assert len(lied.requests) == 2, "put last for the session"


def test_when_all_lie_the_error_names_them_all_and_nobody_is_put_last() -> None:
    (first, one), (second, two) = memory("one/", {"packs/x": b"bad"}), memory("two/", {"packs/x": b"evil"})
    backend = SourceSet([first, second])
    with pytest.raises(IntegrityError) as caught:
        backend.get_checked("packs/x", check, limit_bytes=9)
    assert caught.value.fields["source"] == "one/ (twice), two/ (twice)"
    assert (caught.value.fields["expected"], caught.value.fields["got"]) == ("right", "bad")
    assert (len(one.requests), len(two.requests)) == (2, 2)
    assert backend.faults == ()


def test_a_lie_that_nobody_contradicts_is_still_the_error() -> None:
    (liar, _), (empty, _) = memory("liar/", {"packs/x": b"wrong"}), memory("m/", {})
    with pytest.raises(IntegrityError) as caught:
        SourceSet([liar, empty]).get_checked("packs/x", check, limit_bytes=9)
    assert caught.value.fields["source"] == "liar/ (twice)"


def test_one_source_alone_takes_part_in_all_of_it() -> None:
    backend = SourceSet([memory("alone/", {"packs/x": b"wrong"})[0]])
    with pytest.raises(BackendError, match="no mirror is left"), backend.open("packs/x", avoid={"alone/"}):
        pass
    assert read(backend, "packs/x") == b"wrong"
    with pytest.raises(IntegrityError, match=r"alone/ \(twice\)"):
        backend.get_checked("packs/x", check, limit_bytes=9)
    with pytest.raises(IntegrityError, match=r"alone/ \(twice\)"):
        backend.get_checked("packs/x", check, limit_bytes=9)
