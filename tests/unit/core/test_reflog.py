"""Refs and reflogs as text, torn lines and moves that were never made among them."""

from __future__ import annotations

import pytest
from blake3 import blake3

from yarnstore.core.digest import Sha256
from yarnstore.core.limits import REF_LIMIT_BYTES, REFLOG_LINE_LIMIT_BYTES
from yarnstore.core.reflog import (
    Installed,
    Move,
    format_move,
    format_ref,
    install_stack,
    last_made,
    made_moves,
    parse_move,
    parse_ref,
    parse_reflog,
)
from yarnstore.errors import FormatError


def installed(letter: str) -> Installed:
    return Installed(Sha256(letter.encode() * 32), "default", f"{ord(letter) - 64}.0.0")


A, B, C, D = map(installed, "ABCD")


def line(body: str) -> bytes:
    """A line with a check that is right, whatever the body says."""
    return f"{body}\t{blake3(body.encode()).hexdigest()[:16]}".encode()


def test_a_ref_comes_back() -> None:
    data = format_ref(A.manifest)
    assert data == b"sha256:" + b"41" * 32 + b"\n"
    assert parse_ref(data) == A.manifest


@pytest.mark.parametrize("cut", range(72))
def test_a_ref_cut_at_any_byte_is_none(cut: int) -> None:
    assert len(format_ref(A.manifest)) == 72
    with pytest.raises(FormatError):
        parse_ref(format_ref(A.manifest)[:cut])


@pytest.mark.parametrize(
    "data",
    [
        b"41" * 32 + b"\n",
        b"sha256:" + b"41" * 32 + b"\n\n",
        b"sha256:" + b"41" * 32 + b"\r\n",
        b" sha256:" + b"41" * 32 + b"\n",
        b"sha256:" + b"4A" * 32 + b"\n",
        b"blake3:" + b"41" * 32 + b"\n",
        b"sha256:../../etc/passwd\n",
        b"sha256:" + "٤١".encode() * 32 + b"\n",
        bytes(72),
        b"\n" * (REF_LIMIT_BYTES + 1),
    ],
)
def test_what_is_no_ref(data: bytes) -> None:
    with pytest.raises(FormatError):
        parse_ref(data)


MOVES = [
    Move(0, "checkout", None, A),
    Move(1_700_000_000_000, "update", A, B),
    Move(999_999_999_999_999, "rollback", B, A),
    Move(5, "remove", A, None),
]


@pytest.mark.parametrize("move", MOVES)
def test_a_move_comes_back(move: Move) -> None:
    data = format_move(move)
    assert data.endswith(b"\n")
    assert data.count(b"\n") == 1
    assert len(data) < REFLOG_LINE_LIMIT_BYTES
    assert parse_move(data[:-1]) == move


def test_the_longest_names_make_a_line_that_is_read() -> None:
    long = Installed(A.manifest, "v" * 96, "1.0.0-" + "a" * 122)
    move = Move(1, "a" * 32, long, long)
    assert parse_move(format_move(move)[:-1]) == move


@pytest.mark.parametrize("operation", ["", "Update", "a b", "a\tb", "a\nb", "-a", "a" * 33, "é"])
def test_an_operation_is_a_word(operation: str) -> None:
    with pytest.raises(FormatError):
        format_move(Move(0, operation, None, A))
    with pytest.raises(FormatError):
        parse_move(line(f"0\t{operation}\t-\t{A}"))


def test_every_changed_byte_of_a_line_is_seen() -> None:
    good = format_move(MOVES[1])[:-1]
    for at in range(len(good)):
        with pytest.raises(FormatError):
            parse_move(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
        with pytest.raises(FormatError):
            parse_move(good[:at])


@pytest.mark.parametrize(
    "body",
    [
        "",
        "0\tcheckout\t-",
        f"0\tcheckout\t-\t{A}\tmore",
        f"-1\tcheckout\t-\t{A}",
        f"1e3\tcheckout\t-\t{A}",
        f"٣\tcheckout\t-\t{A}",
        f"{'9' * 16}\tcheckout\t-\t{A}",
        "0\tcheckout\t-\tsha256:x default 1.0.0",
        f"0\tcheckout\t-\t{A.manifest} default",
        f"0\tcheckout\t-\t{A.manifest.hex} default 1.0.0",
        f"0\tcheckout\t-\t{A.manifest} ../x 1.0.0",
        f"0\tcheckout\t-\t{A.manifest} default latest",
        f"0\tcheckout\t-\t{A.manifest}  1.0.0",
        f"0\tcheckout\t-\t{A}" + "0" * REFLOG_LINE_LIMIT_BYTES,
    ],
)
def test_a_line_with_a_right_check_may_still_be_wrong(body: str) -> None:
    with pytest.raises(FormatError):
        parse_move(line(body))


LOG = b"".join(map(format_move, MOVES))


def test_a_log_that_ends_at_any_byte_gives_its_whole_lines_without_a_fault() -> None:
    ends = [len(b"".join(map(format_move, MOVES[:n]))) for n in range(len(MOVES) + 1)]
    for cut in range(len(LOG) + 1):
        moves, faults = parse_reflog(LOG[:cut])
        assert moves == MOVES[: sum(end <= cut for end in ends[1:])]
        assert faults == []


def test_a_bad_line_in_the_middle_is_named_and_the_rest_is_read() -> None:
    lines = LOG.split(b"\n")
    for bad in (b"", b"\0" * 10, b"\xff", lines[1][:-1]):
        moves, faults = parse_reflog(b"\n".join([lines[0], bad, *lines[2:]]))
        assert moves == [MOVES[0], *MOVES[2:]]
        assert len(faults) == 1
        assert "(line 2)" in str(faults[0])


def moves_of(text: str) -> list[Move]:
    """`-A AB` is an install of A and an update to B; a word may follow, as in `BA:rollback`."""
    names = {"-": None, "A": A, "B": B, "C": C, "D": D}
    made = []
    for n, item in enumerate(text.split()):
        pair, _, operation = item.partition(":")
        made.append(Move(n, operation or "checkout", names[pair[0]], names[pair[1]]))
    return made


@pytest.mark.parametrize(
    ("log", "current", "made"),
    [
        ("", None, ""),
        ("-A", "A", "-A"),
        ("-A", None, ""),  # the machine failed before the first install
        ("-A AB", "B", "-A AB"),
        ("-A AB", "A", "-A"),  # … before the update
        ("-A AB AB", "B", "-A AB"),  # … and the update was made again
        ("-A AB AC", "C", "-A AC"),
        ("-A AB BA BC", "C", "-A AB BC"),  # a rollback that was never made
        ("-A AB BA BA", "A", "-A AB BA"),
        ("-A A-", None, "-A A-"),
        ("-A A-", "A", "-A"),
        ("-A A- -B", "B", "-A A- -B"),
        ("-A A- -B", None, "-A A-"),
        ("-A AB", "D", ""),  # the ref was set by other means
    ],
)
def test_moves_that_were_made(log: str, current: str | None, made: str) -> None:
    digest = {None: None, "A": A.manifest, "B": B.manifest, "C": C.manifest, "D": D.manifest}[current]
    found = made_moves(moves_of(log), digest)
    assert [(m.old, m.new) for m in found] == [(m.old, m.new) for m in moves_of(made)]
    data = b"damaged\n".join([b"", *map(format_move, moves_of(log)), b"torn"])
    assert last_made(data, digest) == (found[-1] if found else None)


@pytest.mark.parametrize(
    ("log", "stack"),
    [
        ("", ""),
        ("-A", "A"),
        ("-A AB", "AB"),
        ("-A AB BC", "ABC"),
        ("-A AB BA:rollback", "A"),
        ("-A AB BC CB:rollback", "AB"),
        ("-A AB BC CB:rollback BA:rollback", "A"),
        ("-A AB BC CA:rollback", "A"),
        ("-A AB BA:rollback AC", "AC"),
        ("-A AB BA", "ABA"),  # checking an old version out is an install
        ("-A AB BA AB:rollback", "AB"),
        ("-A AB BA AA:rollback", "ABA"),  # to itself
        ("-A AD:rollback", "AD"),  # to a version that was never installed
        ("-A AA", "A"),
        ("-A AB B-", ""),
        ("-A AB B- -C", "C"),
    ],
)
def test_what_a_rollback_leads_to(log: str, stack: str) -> None:
    assert install_stack(moves_of(log)) == [installed(letter) for letter in stack]
