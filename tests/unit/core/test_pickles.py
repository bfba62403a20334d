"""The globals of pickles are those that `pickletools` reads, in all protocols, and hostile ones end soon."""

from __future__ import annotations

import collections
import datetime
import io
import pickle
import pickletools
import time
import tracemalloc
from fractions import Fraction
from pathlib import PurePosixPath

import pytest

from yarnstore.core.layouts.model import BytesSource
from yarnstore.core.pickles import Budget, PickleScan, scan_pickle
from yarnstore.core.streams import Blocks

_VALUES = [
    {"a": [1, 2.5, None, True, (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)], "b": b"x" * 300, "c": "é" * 300},
    [collections.OrderedDict(a=1), collections.Counter("hello"), {1, 2}, frozenset({3}), bytearray(b"x")],
    [datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC), Fraction(1, 3), PurePosixPath("a/b")],
    [Fraction(n, 7) for n in range(400)],
    [10**400, -1, 70_000, 2**31, "x" * 70_000],
    {f"key{n}": [f"value{n % 7}"] for n in range(3000)},
    [print, len, pickle.dumps, io.BytesIO, collections.OrderedDict.fromkeys],
]


def _scan(data: bytes, budget: Budget | None = None) -> PickleScan:
    return scan_pickle(Blocks(BytesSource(data), 0, len(data)), budget or Budget())


def _names(data: bytes) -> set[str]:
    """The globals as `pickletools` sees them, the memo kept as a loader keeps it."""
    found = set()
    strings: list[str] = []
    memo: dict[int, str] = {}
    for op, arg, _ in pickletools.genops(data):
        if op.name in ("GLOBAL", "INST"):
            found.add(str(arg).replace(" ", "."))
        elif op.name == "STACK_GLOBAL":
            found.add(".".join(strings[-2:]))
        elif op.name == "MEMOIZE":
            memo[len(memo)] = strings[-1] if strings else ""
        elif "PUT" in op.name and isinstance(arg, int):
            memo[arg] = strings[-1] if strings else ""
        elif "GET" in op.name and isinstance(arg, int):
            strings.append(memo[arg])
        elif isinstance(arg, str):
            strings.append(arg)
    return found


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("value", _VALUES, ids=range(len(_VALUES)))
def test_the_globals_are_those_of_pickletools(value: object, protocol: int) -> None:
    data = pickle.dumps(value, protocol)
    found = _scan(data)
    assert found.ended
    assert not found.why
    # Which string a MEMOIZE keeps is only roughly followed above: all that are named are there.
    assert {name for name in _names(data) if name in found.globals} == set(found.globals)


def test_names_by_way_of_the_memo() -> None:
    by_put = b"\x80\x04\x8c\x02os\x94\x8c\x06system\x94\x30\x30h\x00h\x01\x93\x8c\x02id\x85R."
    assert list(_scan(by_put).globals) == ["os.system"]
    scattered = b"\x80\x04\x8c\x01x\x94\x8c\x02os\x71\x09\x8c\x06system\x94\x30\x30h\x09h\x02\x93."
    assert list(_scan(scattered).globals) == ["os.system"]
    in_text = b"Vos\np3\n0Vsystem\np0\n0g3\ng0\n\x93."
    assert list(_scan(in_text).globals) == ["os.system"]
    duplicated = b"\x80\x04\x8c\x02os2\x93."
    assert list(_scan(duplicated).globals) == ["os.os"]
    built = b"\x80\x04N\x8c\x06system\x93."
    assert list(_scan(built).globals) == ["?.system"]


def test_calls_without_a_reduce() -> None:
    assert _scan(b"(S'id'\nios\nsystem\n.").called
    assert _scan(b"(cos\nsystem\nS'id'\no.").called
    assert list(_scan(b"\x80\x02\x82\x07.").globals) == ["copyreg.extension_7"]
    kept = _scan(b"\x80\x02cos\nsystem\nX\x02\0\0\0id\x85R")  # no STOP: it was called all the same
    assert kept.called
    assert not kept.ended


def test_further_pickles_are_read_and_numbers_behind_them_are_not() -> None:
    evil = b"\x80\x02cos\nsystem\nX\x02\0\0\0id\x85R."
    assert list(_scan(pickle.dumps(1, 2) * 4 + evil).globals) == ["os.system"]
    assert not _scan(pickle.dumps(1, 2) + b"c\xff\xfe\n\x01\n" + bytes(100)).globals


@pytest.mark.parametrize(
    "data",
    [
        b"(" * 2_000_000,
        b"]q\x00" * 300_000,
        b"\x80\x04" + b"\x8c\x01a\x94" * 300_000,
        b"\x80\x04"
        + b"".join(b"Xd\0\0\0%0100dr%b" % (n, (7 * n).to_bytes(4, "little")) for n in range(20_000)),
        b"N" + b"2" * 2_000_000,
        b"\x80\x04\x8d" + b"\xff" * 8,
        b"\x80\x04\x8b\xff\xff\xff\xff",
        b"c" + b"a" * 2_000_000,
        b"I" + b"1" * 2_000_000 + b"\n.",
        b"\x80\x02" + b"c" + b"a\nb\n" * 100_000,
        b"V1\np" + b"0" * 400 + b"1\n.",
        b"".join(b"cm\nn%d\n" % n for n in range(60_000)),
    ],
    ids=range(12),
)
def test_hostile_pickles_end_soon(data: bytes) -> None:
    tracemalloc.start()
    started = time.process_time()
    found = _scan(data, Budget(ops=100_000))
    took = time.process_time() - started
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert not found.ended
    assert peak < 128 * 1024 * 1024
    assert took < 10.0  # well under one on the machine this was written on, untraced


def test_every_cut_of_a_pickle_is_scanned() -> None:
    for protocol in range(6):
        data = pickle.dumps([*_VALUES[2], collections.OrderedDict(a=b"x")], protocol)
        for end in range(len(data)):
            assert not _scan(data[:end]).ended
