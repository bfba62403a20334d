"""Refs and the reflog as text.

A ref is one line that names a manifest; the reflog is the append-only history of one ref's
moves.  docs/format/refs.md governs both.  Pure: time and digests are arguments.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence

import msgspec
from blake3 import blake3

from yarnstore.core.digest import Sha256
from yarnstore.core.limits import REF_LIMIT_BYTES, REFLOG_LINE_LIMIT_BYTES
from yarnstore.core.names import parse_variant, parse_version
from yarnstore.errors import FormatError, InvalidNameError

_CHECK_DIGITS = 16
_ZERO = "-"
_TIME_DIGITS = 15
_OPERATION_CHARS = 32
_IN_OPERATION = frozenset("abcdefghijklmnopqrstuvwxyz-")

# Returned to the version installed before: requested by the user, or after a failed self-check.
ROLLBACK = "rollback"
SELF_CHECK = "self-check"
BACKWARD = (ROLLBACK, SELF_CHECK)


def format_ref(manifest: Sha256) -> bytes:
    """Return the bytes of a ref to `manifest`."""
    return f"{manifest}\n".encode("ascii")


def parse_ref(data: bytes) -> Sha256:
    """Return the manifest that a ref names.  Raises: FormatError."""
    if len(data) > REF_LIMIT_BYTES or not data.endswith(b"\n"):
        raise FormatError("ref", "is not one line 'sha256:<hex>'")
    try:
        text = data[:-1].decode("ascii")
    except UnicodeDecodeError:
        raise FormatError("ref", "is not ASCII") from None
    if not text.startswith("sha256:"):
        raise FormatError("ref", "is not one line 'sha256:<hex>'")
    return Sha256.parse(text)


class Installed(msgspec.Struct, frozen=True):
    """The old or the new value of a move: a manifest and the names of its version."""

    manifest: Sha256
    variant: str
    version: str

    def __str__(self) -> str:
        return f"{self.manifest} {self.variant} {self.version}"


class Move(msgspec.Struct, frozen=True):
    """One line of the reflog; `old` is None for a first install, `new` is None for a removal."""

    time_ms: int
    operation: str
    old: Installed | None
    new: Installed | None


def format_move(move: Move) -> bytes:
    """Return one line: time, operation, old, new, and a checksum of these."""
    if not _is_operation(move.operation):
        raise FormatError("reflog", f"operation {move.operation!r} is not a lower-case word")
    body = f"{move.time_ms}\t{move.operation}\t{move.old or _ZERO}\t{move.new or _ZERO}"
    return f"{body}\t{_check(body)}\n".encode("ascii")


def _check(body: str) -> str:
    return blake3(body.encode()).hexdigest()[:_CHECK_DIGITS]


def _is_operation(word: str) -> bool:
    return 0 < len(word) <= _OPERATION_CHARS and word[0] != "-" and _IN_OPERATION.issuperset(word)


def _parse_installed(text: str) -> Installed | None:
    if text == _ZERO:
        return None
    parts = text.split(" ")
    if len(parts) != 3 or not parts[0].startswith("sha256:"):
        raise FormatError("reflog", "does not name a manifest, variant and version")
    try:
        return Installed(Sha256.parse(parts[0]), parse_variant(parts[1]), parse_version(parts[2]))
    except InvalidNameError as error:
        raise FormatError("reflog", str(error)) from None


def parse_move(line: bytes) -> Move:
    """Parse one line without its newline.  Raises: FormatError."""
    if len(line) > REFLOG_LINE_LIMIT_BYTES:
        raise FormatError("reflog", "has a line that is too long")
    try:
        text = line.decode("ascii")
    except UnicodeDecodeError:
        raise FormatError("reflog", "is not ASCII") from None
    body, _, check = text.rpartition("\t")
    if check != _check(body):
        raise FormatError("reflog", "has a line that does not match its checksum")
    fields = body.split("\t")
    if len(fields) != 4 or not fields[0].isdigit() or len(fields[0]) > _TIME_DIGITS:
        raise FormatError("reflog", "has a line that is not time, operation, old, new, checksum")
    if not _is_operation(fields[1]):
        raise FormatError("reflog", "has a line whose operation is not a lower-case word")
    return Move(int(fields[0]), fields[1], _parse_installed(fields[2]), _parse_installed(fields[3]))


def parse_reflog(data: bytes) -> tuple[list[Move], list[FormatError]]:
    """Return all moves that can be parsed, and an error for each other line.

    A last line without a newline is not an error: a crash cut it before its move was made.
    """
    moves: list[Move] = []
    faults: list[FormatError] = []
    for number, line in enumerate(data.split(b"\n")[:-1], 1):
        try:
            moves.append(parse_move(line))
        except FormatError as error:
            faults.append(FormatError("reflog", f"{error.fields['why']} (line {number})"))
    return moves, faults


def made_moves(moves: Sequence[Move], current: Sha256 | None) -> list[Move]:
    """Return the moves that took effect, oldest first.

    A line is written before its ref changes, so a crash in between leaves a line for a move that was not
    made.  Such a line is recognised because its new value is not the ref's, or the old value of the next
    move.
    """
    made: list[Move] = []
    for move in reversed(moves):
        new = move.new.manifest if move.new else None
        if new == current:
            made.append(move)
            current = move.old.manifest if move.old else None
    made.reverse()
    return made


def readable_moves(data: bytes, is_right: Callable[[Move], bool]) -> list[Move]:
    """Return the readable lines of a damaged reflog that are right; a lost move follows from the lines around
    it.
    """
    lines = data.split(b"\n")  # an incomplete last line is lost, unless it can be parsed
    moves: list[Move] = []
    lost = False
    for line in lines if lines[-1] else lines[:-1]:
        try:
            move = parse_move(line)
        except FormatError:
            lost = True
            continue
        if not is_right(move):
            lost = True
            continue
        before = moves[-1].new if moves else None
        if lost and before != move.old:
            time_ms = moves[-1].time_ms if moves else move.time_ms
            moves.append(Move(time_ms, "repair", before, move.old))
        lost = False
        moves.append(move)
    return moves


def last_made(data: bytes, current: Sha256 | None) -> Move | None:
    """Return the last of `made_moves` from the bytes of a reflog, without parsing the lines before it."""
    for line in reversed(data.split(b"\n")[:-1]):
        with contextlib.suppress(FormatError):
            move = parse_move(line)
            if (move.new.manifest if move.new else None) == current:
                return move
    return None


def install_stack(moves: Sequence[Move]) -> list[Installed]:
    """Return the stack of installed versions, the current one last.

    An install pushes its version; a rollback removes all versions above its target.  So repeated rollbacks
    return to ever older installs.
    """
    stack: list[Installed] = []
    for move in moves:
        if move.new is None:
            stack.clear()
        elif move.operation in BACKWARD and move.new in stack[:-1]:
            del stack[len(stack) - stack[::-1].index(move.new) :]
        elif not stack or stack[-1] != move.new:
            stack.append(move.new)
    return stack
