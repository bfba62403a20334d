"""Lists the globals that a pickle imports, from its opcodes, without importing or executing anything.

Knows every opcode of protocols 0 to 5 (`pickletools` in the standard library), and tracks the stack and the
memo as far as the names of `STACK_GLOBAL` need it.  The scan continues after a misuse of the stack, so that
it never ends before a loader would; an unknown opcode, or the end of the bytes, ends both.  Limited by a
`Budget`, which several files may share.  Pure.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

from yarnstore.core.limits import MIB

# About 1 µs each; the largest checkpoints have 35 a tensor.
OPS_LIMIT: Final = 4_000_000
# Limits of stored strings and names, and of the size of decompressed pickles.
TEXT_LIMIT_BYTES: Final = 64 * MIB
UNPACKED_LIMIT_BYTES: Final = 256 * MIB
_DEPTH_LIMIT: Final = 250_000  # values on the stack
_NAMES_LIMIT: Final = 200
_NAME_LIMIT_CHARS: Final = 256
LINE_LIMIT_BYTES: Final = 1 * MIB
_PICKLES_LIMIT: Final = 64  # concatenated pickles, as PyTorch wrote before 1.6
_WORD = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")


class Stream(Protocol):
    """Sequential bytes.

    `take` returns fewer than requested only at the end; `line` returns a line without its end, or None if it
    exceeds LINE_LIMIT_BYTES.
    """

    def take(self, length: int) -> bytes: ...

    def line(self) -> bytes | None: ...

    def skip(self, length: int) -> None: ...


@dataclass
class Budget:
    """The remaining budget for the pickles of one version."""

    ops: int = OPS_LIMIT
    text_bytes: int = TEXT_LIMIT_BYTES
    unpacked_bytes: int = UNPACKED_LIMIT_BYTES


class BudgetError(Exception):
    """A scan exceeded its budget; caught within the scan."""


@dataclass
class PickleScan:
    """The result of a scan: `globals` as `module.name`, in order.

    `called`: one of them, or an object made by one, is called.  `ended`: a complete pickle was read.  `why`:
    the reason if the scan stopped before a loader would, else empty.
    """

    globals: dict[str, None] = field(default_factory=dict)
    called: bool = False
    ended: bool = False
    plain: bool = True  # every name could be a Python name
    why: str = ""

    def add(self, module: str, name: str) -> None:
        if not (_WORD.fullmatch(module) and _WORD.fullmatch(name)):
            self.plain = False
        text = f"{module}.{name}"
        if len(text) > _NAME_LIMIT_CHARS:
            text = text[: _NAME_LIMIT_CHARS - 1] + "…"
        if len(self.globals) < _NAMES_LIMIT:
            self.globals[text] = None
        elif text not in self.globals:
            self.why = f"has more than {_NAMES_LIMIT} globals"

    def merge(self, later: PickleScan) -> None:
        """Add the result of the pickle after this one."""
        self.globals |= later.globals
        self.called |= later.called
        self.ended |= later.ended
        self.plain &= later.plain
        self.why = self.why or later.why


class _Global:
    """A value made by calling a global."""


_GLOBAL: Final = _Global()
_MARK: Final = object()


class _EndError(Exception):
    """The position at which any loader stops."""


def begins_with_opcode(head: bytes) -> bool:
    """Whether bytes may be a pickle, by the first byte; otherwise `scan_pickle` finds nothing."""
    return head[:1] == b"." or (bool(head) and head[0] in _STEPS)


def scan_pickle(stream: Stream, budget: Budget) -> PickleScan:
    """Scan the pickles at the beginning of a stream."""
    whole = PickleScan()
    for n in range(_PICKLES_LIMIT):
        scan = PickleScan()
        try:
            _scan_one(stream, budget, scan)
            scan.ended = True
        except _EndError:
            pass
        except BudgetError as error:
            scan.why = str(error)
        # Any data may follow the first pickle, so later bytes that look like a global need not be one.
        if n == 0 or (scan.plain and (scan.ended or scan.called)):
            whole.merge(scan)
        if not scan.ended:
            break
    return whole


def _scan_one(stream: Stream, budget: Budget, scan: PickleScan) -> None:
    """Scan one pickle up to its STOP.  Raises: _EndError, BudgetError."""
    machine = _Machine(stream, budget, scan)
    while budget.ops > 0:
        budget.ops -= 1
        code = stream.take(1)
        if code == b".":
            return
        step = _STEPS.get(code[0]) if code else None
        if step is None:
            raise _EndError
        step(machine)
        if len(machine.stack) > _DEPTH_LIMIT:
            raise BudgetError("has too many values on its stack")
    raise BudgetError("has too many opcodes")


class _Machine:
    """A stack of short strings, values made by globals, and None for all other values."""

    def __init__(self, stream: Stream, budget: Budget, scan: PickleScan) -> None:
        self.stream = stream
        self.budget = budget
        self.scan = scan
        self.stack: list[object] = []
        self.marks: list[int] = []
        # Only strings and globals are stored; other values are counted, as long as they are numbered in
        # order.
        self.memo: dict[int, object] = {}
        self.memo_size = 0
        self.scattered: set[int] = set()

    # --- bytes ---

    def number(self, width: int) -> int:
        data = self.stream.take(width)
        if len(data) < width:
            raise _EndError
        return int.from_bytes(data, "little")

    def line(self) -> bytes:
        line = self.stream.line()
        if line is None:
            raise _EndError
        return line

    def check_text(self) -> None:
        if self.budget.text_bytes < 0:
            raise BudgetError("has too much text")

    def text(self, length: int) -> None:
        """Push a string, or None if it is too long for a name."""
        if length > _NAME_LIMIT_CHARS:
            self.stream.skip(length)
            self.stack.append(None)
            return
        data = self.stream.take(length)
        if len(data) < length:
            raise _EndError
        self.stack.append(data.decode("utf-8", "replace"))

    # --- values ---

    def pop(self) -> object:
        if not self.stack:
            return None
        value = self.stack.pop()
        if value is _MARK and self.marks:
            self.marks.pop()
        return value

    def pop_many(self, count: int) -> list[object]:
        return [self.pop() for _ in range(count)]

    def pop_mark(self) -> list[object]:
        if not self.marks:
            values, self.stack = self.stack, []
            return values
        at = self.marks.pop()
        values = self.stack[at + 1 :]
        del self.stack[at:]
        return values

    def put(self, key: int) -> None:
        value = self.stack[-1] if self.stack else None
        if key == self.memo_size:
            self.memo_size += 1
            while self.memo_size in self.scattered:
                self.scattered.remove(self.memo_size)
                self.memo_size += 1
        elif key > self.memo_size and key not in self.scattered:
            self.budget.text_bytes -= 64
            self.scattered.add(key)
        if value is None or value is _MARK:
            self.memo.pop(key, None)
        else:
            self.budget.text_bytes -= 64 + (len(value) if isinstance(value, str) else 0)
            self.memo[key] = value
        self.check_text()

    def memoize(self) -> None:
        self.put(self.memo_size + len(self.scattered))

    def get(self, key: int) -> None:
        self.stack.append(self.memo.get(key))

    def found(self, module: str, name: str) -> None:
        self.scan.add(module, name)
        self.stack.append(_GLOBAL)

    def called(self, function: object) -> None:
        if function is _GLOBAL:
            self.scan.called = True
        self.stack.append(_GLOBAL if function is _GLOBAL else None)


def _decoded(line: bytes) -> str:
    return line.decode("utf-8", "replace")


def _key(line: bytes) -> int:
    """Return the number of a memo entry in the text protocols.

    Raises: BudgetError if loaders may read it differently.
    """
    if not (line.isdigit() and len(line) < 20):
        raise BudgetError("has memo numbers in an unknown form")
    return int(line)


def _global(m: _Machine) -> None:
    module, name = m.line(), m.line()
    m.found(_decoded(module), _decoded(name))


def _stack_global(m: _Machine) -> None:
    name, module = m.pop(), m.pop()
    m.found(*(value if isinstance(value, str) else "?" for value in (module, name)))


def _inst(m: _Machine) -> None:
    _global(m)
    m.pop()
    is_call = bool(m.marks)  # without a mark, a loader fails before it calls anything
    m.pop_mark()
    m.called(_GLOBAL if is_call else None)


def _obj(m: _Machine) -> None:
    is_call = bool(m.marks)
    values = m.pop_mark()
    m.called(values[0] if values and is_call else None)


def _reduce(m: _Machine) -> None:
    m.pop()
    m.called(m.pop())


def _newobj_ex(m: _Machine) -> None:
    m.pop_many(2)
    m.called(m.pop())


def _build(m: _Machine) -> None:
    m.pop()
    if m.stack and m.stack[-1] is _GLOBAL:
        m.scan.called = True


def _mark(m: _Machine) -> None:
    m.marks.append(len(m.stack))
    m.stack.append(_MARK)


def _dup(m: _Machine) -> None:
    m.stack.append(m.stack[-1] if m.stack and m.stack[-1] is not _MARK else None)


def _string(m: _Machine) -> None:
    line = m.line().strip()
    m.stack.append(_short(line[1:-1]) if len(line) > 1 else None)


def _short(data: bytes) -> str | None:
    # An escape may stand for any character; unknown ones are shown as `?`.
    return _decoded(data) if len(data) <= _NAME_LIMIT_CHARS and b"\\" not in data else None


def _of_items(m: _Machine) -> None:
    """TUPLE, LIST, DICT, FROZENSET: the values above the mark become one value."""
    m.pop_mark()
    m.stack.append(None)


def _persid(m: _Machine) -> None:
    m.pop()
    m.stack.append(None)


def _push(m: _Machine) -> None:
    m.stack.append(None)


def _skip(width: int) -> Callable[[_Machine], None]:
    """Skip a value of a fixed number of bytes."""

    def step(m: _Machine) -> None:
        if len(m.stream.take(width)) < width:
            raise _EndError
        m.stack.append(None)

    return step


def _sized(width: int) -> Callable[[_Machine], None]:
    """Skip a value that is preceded by its length."""

    def step(m: _Machine) -> None:
        m.stream.skip(m.number(width))
        m.stack.append(None)

    return step


def _sized_text(width: int) -> Callable[[_Machine], None]:
    return lambda m: m.text(m.number(width))


def _extension(width: int) -> Callable[[_Machine], None]:
    return lambda m: m.found("copyreg", f"extension_{m.number(width)}")


def _tuple_of(count: int) -> Callable[[_Machine], None]:
    def step(m: _Machine) -> None:
        m.pop_many(count)
        m.stack.append(None)

    return step


def _line_value(m: _Machine) -> None:
    m.line()
    m.stack.append(None)


_STEPS: Final[dict[int, Callable[[_Machine], object]]] = {
    0x28: _mark,
    0x30: lambda m: m.pop(),  # POP
    0x31: lambda m: m.pop_mark(),  # POP_MARK
    0x32: _dup,
    0x42: _sized(4),  # BINBYTES
    0x43: _sized(1),  # SHORT_BINBYTES
    0x46: _line_value,  # FLOAT
    0x47: _skip(8),  # BINFLOAT
    0x49: _line_value,  # INT
    0x4A: _skip(4),  # BININT
    0x4B: _skip(1),  # BININT1
    0x4C: _line_value,  # LONG
    0x4D: _skip(2),  # BININT2
    0x4E: _push,  # NONE
    0x50: _line_value,  # PERSID
    0x51: _persid,  # BINPERSID
    0x52: _reduce,
    0x53: _string,
    0x54: _sized_text(4),  # BINSTRING
    0x55: _sized_text(1),  # SHORT_BINSTRING
    0x56: lambda m: m.stack.append(_short(m.line())),  # UNICODE
    0x58: _sized_text(4),  # BINUNICODE
    0x5D: _push,  # EMPTY_LIST
    0x61: lambda m: m.pop(),  # APPEND
    0x62: _build,
    0x63: _global,
    0x64: _of_items,  # DICT
    0x65: lambda m: m.pop_mark(),  # APPENDS
    0x67: lambda m: m.get(_key(m.line())),  # GET
    0x68: lambda m: m.get(m.number(1)),  # BINGET
    0x69: _inst,
    0x6A: lambda m: m.get(m.number(4)),  # LONG_BINGET
    0x6C: _of_items,  # LIST
    0x6F: _obj,
    0x70: lambda m: m.put(_key(m.line())),  # PUT
    0x71: lambda m: m.put(m.number(1)),  # BINPUT
    0x72: lambda m: m.put(m.number(4)),  # LONG_BINPUT
    0x73: lambda m: m.pop_many(2),  # SETITEM
    0x74: _of_items,  # TUPLE
    0x75: lambda m: m.pop_mark(),  # SETITEMS
    0x7D: _push,  # EMPTY_DICT
    0x29: _push,  # EMPTY_TUPLE
    0x80: lambda m: m.number(1),  # PROTO
    0x81: _reduce,  # NEWOBJ
    0x82: _extension(1),
    0x83: _extension(2),
    0x84: _extension(4),
    0x85: _tuple_of(1),
    0x86: _tuple_of(2),
    0x87: _tuple_of(3),
    0x88: _push,  # NEWTRUE
    0x89: _push,  # NEWFALSE
    0x8A: _sized(1),  # LONG1
    0x8B: _sized(4),  # LONG4
    0x8C: _sized_text(1),  # SHORT_BINUNICODE
    0x8D: _sized_text(8),  # BINUNICODE8
    0x8E: _sized(8),  # BINBYTES8
    0x8F: _push,  # EMPTY_SET
    0x90: lambda m: m.pop_mark(),  # ADDITEMS
    0x91: _of_items,  # FROZENSET
    0x92: _newobj_ex,
    0x93: _stack_global,
    0x94: lambda m: m.memoize(),
    0x95: lambda m: m.number(8),  # FRAME
    0x96: _sized(8),  # BYTEARRAY8
    0x97: _push,  # NEXT_BUFFER
    0x98: lambda _: None,  # READONLY_BUFFER
}
