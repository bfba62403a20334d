"""What a download does with sources that lack a file, send parts of it wrong, or send something else."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from yarnstore.backends import Body, MemoryBackend, Mirror, SourceSet
from yarnstore.backends.sources import BadPart
from yarnstore.errors import BackendError, IntegrityError

KEY = "packs/x"
RIGHT = b"aaaabbbbcccc"


class Parts:
    """Three parts of four bytes, each wanted right: see `Wanted`."""

    def __init__(self, index: tuple[int, ...] = (0, 4, 8), *, misplaced: bool = False) -> None:
        self.todo = {at: RIGHT[4 * n : 4 * n + 4] for n, at in enumerate(index)}
        self.misplaced = misplaced
        self.mixed: frozenset[str] = frozenset()

    @property
    def came_bytes(self) -> int:
        return -len(self.todo)

    def next_range(self) -> tuple[int, int | None] | None:
        return (min(self.todo), 4) if self.todo else None

    def receive(self, body: Body) -> Iterator[BadPart]:
        got = b"".join(body)
        if got.startswith(b"<"):
            raise BackendError(body.source, "is a web page")
        if got == self.todo[body.start]:
            del self.todo[body.start]
        else:
            error = IntegrityError("part", expected="right", got=got.decode())
            yield BadPart(error, bytes([body.start]), self.mixed, self.misplaced)

    def restart(self) -> bool:
        return False


class Whole(Parts):
    """The whole file, which brings the parts that `ranges` wants."""

    def __init__(self, ranges: Parts) -> None:
        super().__init__()
        self.ranges = ranges

    def next_range(self) -> tuple[int, int | None] | None:
        return (0, None) if self.todo else None

    def receive(self, body: Body) -> Iterator[BadPart]:
        got = b"".join(body)
        if got == RIGHT:
            self.todo.clear()
            self.ranges.todo.clear()
        else:
            yield BadPart(IntegrityError("file"))


def make(**trees: bytes | None) -> tuple[SourceSet, dict[str, MemoryBackend]]:
    files = {name: {} if data is None else {KEY: data} for name, data in trees.items()}
    backends = {name: MemoryBackend(tree, url=name) for name, tree in files.items()}
    mirrors = [Mirror(name, lambda backend=backend: backend) for name, backend in backends.items()]  # type: ignore[misc]
    return SourceSet(mirrors, sleep=pytest.fail), backends


def lied(sources: SourceSet) -> list[str]:
    return [fault.url for fault in sources.faults if fault.kind == "lied"]


def test_parts_that_one_source_sends_wrong_come_from_the_next() -> None:
    sources, backends = make(bad=b"aaaaXXXXcccc", good=RIGHT)
    wanted = Parts()
    sources.stream(KEY, wanted)
    assert wanted.todo == {}
    assert [asked.start for asked in backends["bad"].requests] == [0, 4, 4]
    assert lied(sources) == ["bad"]


def test_a_source_without_the_file_is_asked_once() -> None:
    sources, backends = make(bare=None, good=RIGHT)
    sources.stream(KEY, Parts())
    assert len(backends["bare"].requests) == 1
    assert sources.faults == ()


def test_a_source_that_sends_a_page_is_passed_over_and_not_blamed() -> None:
    sources, backends = make(page=b"<html></html>", good=RIGHT)
    sources.stream(KEY, Parts())
    assert len(backends["page"].requests) == 1
    assert sources.faults == ()
    with pytest.raises(BackendError, match="is a web page"):
        make(page=b"<html></html>")[0].stream(KEY, Parts())


def test_a_part_of_several_sources_that_is_wrong_counts_for_none_of_them_once() -> None:
    sources, backends = make(one=b"XXXX", two=RIGHT)
    wanted = Parts()
    wanted.mixed = frozenset({"", "one"})
    sources.stream(KEY, wanted)
    assert len(backends["one"].requests) == 3
    assert lied(sources) == ["one"]


def test_where_all_are_wrong_the_error_names_all_and_none_is_blamed() -> None:
    sources, _ = make(one=b"XXXX", two=b"YYYY")
    with pytest.raises(IntegrityError) as caught:
        sources.stream(KEY, Parts())
    assert caught.value.fields["source"] == "one (twice), two (twice)"
    assert caught.value.fields["got"] == "XXXX"
    assert sources.faults == ()


@pytest.mark.parametrize("count", [1, 2])
def test_an_index_is_doubted_where_the_bytes_of_all_are_wrong(count: int) -> None:
    trees: dict[str, bytes | None] = {f"m{n}": RIGHT for n in range(count)}
    sources, _ = make(**trees)
    wanted = Parts((4, 0, 8), misplaced=True)
    sources.stream(KEY, wanted, without_index=lambda: Whole(wanted), index_source="m0")
    assert wanted.todo == {}
    assert lied(sources) == ["m0"]


def test_an_index_is_not_doubted_where_the_whole_is_wrong_too() -> None:
    sources, _ = make(one=b"XXXXXXXXXXXX", two=b"XXXXXXXXXXXX")
    wanted = Parts()
    with pytest.raises(IntegrityError, match=r"one \(twice\), two \(twice\)"):
        sources.stream(KEY, wanted, without_index=lambda: Whole(wanted), index_source="one")
    assert sources.faults == ()


def test_one_source_whose_bytes_lie_where_they_should_is_not_read_through() -> None:
    sources, backends = make(one=b"XXXX")
    with pytest.raises(IntegrityError):
        sources.stream(KEY, Parts(), without_index=lambda: pytest.fail("read through"))
    assert len(backends["one"].requests) == 2


def test_a_copy_that_leaves_something_out_is_compared_with_the_others() -> None:
    sources, _ = make(own=b"a", other=b"ab", more=b"abc")
    have = {"a"}

    def take(copy: str) -> int:
        have.update(copy)
        return 3 - len(have)

    best = sources.compare(KEY, bytes.decode, take, missing=2, limit_bytes=9, source="own")
    assert (best, have) == ("more", set("abc"))
    assert lied(sources) == ["own", "other"]


def test_a_stream_that_is_stopped_judges_nobody() -> None:
    sources, backends = make(bad=b"XXXX", good=RIGHT)
    wanted = Parts()
    sources.stream(KEY, wanted, is_stopped=lambda: len(backends["bad"].requests) == 2)
    assert wanted.todo
    assert sources.faults == ()
