"""Reads the tensors that a PyTorch pickle describes, without unpickling it.

Interprets the opcodes that `torch.save` writes on a stack of inert values: a global is a name, a call is a
record of its arguments; nothing is imported or executed.  An unknown object becomes an opaque value; an
unknown opcode is a FormatError.  Opcodes: the standard library's `pickletools`; records: `torch/_utils.py`
and `torch/serialization.py`.  Pure.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from yarnstore.core.layouts.elements import ELEMENT_TYPES, ElementType
from yarnstore.core.layouts.limits import (
    ELEMENTS_LIMIT,
    LAYOUT_LIMIT_TENSORS,
    PICKLE_LIMIT_DEPTH,
    PICKLE_LIMIT_OPS,
    RANK_LIMIT,
    TENSOR_NAME_LIMIT_CHARS,
)
from yarnstore.errors import FormatError

WHAT: Final = "torch pickle"

_STORAGES: Final = {
    f"torch.{name}Storage": ELEMENT_TYPES[element]
    for name, element in {
        "Double": "f64", "Float": "f32", "Half": "f16", "BFloat16": "bf16", "Long": "i64", "Int": "i32",
        "Short": "i16", "Char": "i8", "Byte": "u8", "Bool": "bool", "ComplexFloat": "c64",
        "ComplexDouble": "c128", "QInt32": "i32", "QInt8": "i8", "QUInt8": "u8",
    }.items()
}  # fmt: skip
# The types that `_rebuild_tensor_v3` names for an untyped storage.
_DTYPES: Final = {
    f"torch.{name}": ELEMENT_TYPES[element]
    for name, element in {
        "float64": "f64", "float32": "f32", "float16": "f16", "bfloat16": "bf16", "int64": "i64",
        "int32": "i32", "int16": "i16", "int8": "i8", "uint64": "u64", "uint32": "u32", "uint16": "u16",
        "uint8": "u8", "bool": "bool", "complex64": "c64", "complex128": "c128",
        "float8_e4m3fn": "f8_e4m3", "float8_e5m2": "f8_e5m2", "float8_e4m3fnuz": "f8_e4m3fnuz",
        "float8_e5m2fnuz": "f8_e5m2fnuz", "float8_e8m0fnu": "f8_e8m0",
    }.items()
}  # fmt: skip
_UNTYPED: Final = frozenset({"torch.UntypedStorage", "torch.storage.UntypedStorage"})
_REBUILDERS: Final = frozenset(
    f"torch._utils._rebuild_{name}" for name in ("tensor", "tensor_v2", "tensor_v3", "qtensor")
)
_WRAPPERS: Final = frozenset(
    {"torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state"}
)
_DICTS: Final = frozenset({"collections.OrderedDict", "collections.defaultdict", "builtins.dict"})


class View(NamedTuple):
    """A tensor as the pickle describes it: elements of the storage `key`, from `start` and with strides.

    Shape, start and strides are counted in elements of the storage's `dtype`.
    """

    name: str
    key: str
    dtype: ElementType
    start: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _Global(str):
    """The dotted name of a global, which is never imported."""

    __slots__ = ()


class Storage(NamedTuple):
    """What a reference says of a storage; the elements of one without a type are bytes."""

    key: str
    dtype: ElementType | None
    elements: object


class Pickled(NamedTuple):
    """A followed pickle: its value, the storages that it refers to, the offset after it, its opcodes."""

    root: object
    storages: dict[str, Storage]
    end: int
    ops: int


class _Rebuilt(NamedTuple):
    storage: Storage
    start: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: ElementType


class _Opaque:
    """Any other object; `state` is set by BUILD."""

    __slots__ = ("state",)

    def __init__(self) -> None:
        self.state: object = None


_MARK: Final = object()


def read_views(data: bytes) -> list[View]:
    """Return the tensors in the pickle `data`, in its order, named by their path.  Raises: FormatError."""
    return find_views(follow(data))


def find_views(pickled: Pickled) -> list[View]:
    """Return the tensors of a pickle, in its order, named by their path.  Raises: FormatError."""
    return list(_walk(pickled.root))


def follow(data: bytes, at: int = 0, *, ops: int = PICKLE_LIMIT_OPS) -> Pickled:
    """Follow the pickle at an offset of `data`, at most `ops` opcodes.

    Raises: FormatError; `is_cut` if more bytes might help.
    """
    try:
        return _follow(data, at, ops)
    except (IndexError, ValueError):  # a UnicodeDecodeError is one
        raise FormatError(WHAT, "is cut short, or uses its stack wrongly", is_cut=True) from None


def _follow(data: bytes, at: int, ops: int) -> Pickled:
    # One branch per opcode, the most frequent first.
    stack: list[object] = []
    marks: list[int] = []
    memo: dict[int, object] = {}
    storages: dict[str, Storage] = {}
    for n in range(ops):
        op = data[at]
        at += 1
        if op == 0x71:  # BINPUT
            memo[data[at]] = stack[-1]
            at += 1
        elif op == 0x72:  # LONG_BINPUT
            memo[int.from_bytes(data[at : at + 4], "little")] = stack[-1]
            at += 4
        elif op == 0x94:  # MEMOIZE
            memo[len(memo)] = stack[-1]
        elif op == 0x68:  # BINGET
            stack.append(_recall(memo, data[at]))
            at += 1
        elif op == 0x6A:  # LONG_BINGET
            stack.append(_recall(memo, int.from_bytes(data[at : at + 4], "little")))
            at += 4
        elif op == 0x4B:  # BININT1
            stack.append(data[at])
            at += 1
        elif op == 0x4D:  # BININT2
            stack.append(data[at] | data[at + 1] << 8)
            at += 2
        elif op == 0x4A:  # BININT
            stack.append(int.from_bytes(data[at : at + 4], "little", signed=True))
            at += 4
        elif op == 0x28:  # MARK
            marks.append(len(stack))
            stack.append(_MARK)
        elif op == 0x74:  # TUPLE
            stack.append(tuple(_pop_mark(stack, marks)))
        elif op in (0x58, 0x8C, 0x54, 0x55):  # BINUNICODE and, of Python 2, BINSTRING; short ones
            width = 4 if op in (0x58, 0x54) else 1
            length = int.from_bytes(data[at : at + width], "little")
            at += width + length
            stack.append(data[at - length : at].decode("utf-8", "replace"))
        elif op == 0x51:  # BINPERSID
            stack.append(_refer(stack.pop(), storages))
        elif 0x85 <= op <= 0x87:  # TUPLE1, 2, 3
            count = op - 0x84
            _check_depth(stack, marks, count)
            stack[-count:] = [tuple(stack[-count:])]
        elif op == 0x52 or op == 0x81:  # REDUCE, NEWOBJ
            arguments = stack.pop()
            stack[-1] = _call(stack[-1], arguments)
        elif op == 0x63:  # GLOBAL
            module, leaf, _ = data[at : at + 1024].split(b"\n", 2)
            at += len(module) + len(leaf) + 2
            stack.append(_Global(f"{module.decode()}.{leaf.decode()}"))
        elif op == 0x93:  # STACK_GLOBAL
            attribute, owner = stack.pop(), stack.pop()
            short = isinstance(owner, str) and isinstance(attribute, str) and len(owner + attribute) < 1024
            stack.append(_Global(f"{owner}.{attribute}" if short else ""))
        elif op in (0x88, 0x89, 0x4E):  # NEWTRUE, NEWFALSE, NONE
            stack.append(None if op == 0x4E else op == 0x88)
        elif op == 0x7D:  # EMPTY_DICT
            stack.append({})
        elif op in (0x29, 0x5D):  # EMPTY_TUPLE, EMPTY_LIST
            stack.append(() if op == 0x29 else [])
        elif op in (0x73, 0x75):  # SETITEM, SETITEMS
            items = _pop_mark(stack, marks) if op == 0x75 else _pop(stack, marks, 2)
            _set_items(stack[-1], items)
        elif op in (0x61, 0x65):  # APPEND, APPENDS
            items = _pop_mark(stack, marks) if op == 0x65 else _pop(stack, marks, 1)
            if isinstance(stack[-1], list):
                stack[-1].extend(items)
        elif op == 0x62:  # BUILD
            state = stack.pop()
            if isinstance(stack[-1], _Opaque):
                stack[-1].state = state
        elif op == 0x47:  # BINFLOAT
            stack.append(None)
            at += 8
        elif op == 0x8A:  # LONG1
            length = data[at]
            at += 1 + length
            stack.append(int.from_bytes(data[at - length : at], "little", signed=True))
        elif op == 0x43:  # SHORT_BINBYTES
            at += 1 + data[at]
            stack.append(None)
        elif op == 0x42:  # BINBYTES
            at += 4 + int.from_bytes(data[at : at + 4], "little")
            stack.append(None)
        elif op == 0x80:  # PROTO
            at += 1
        elif op == 0x95:  # FRAME
            at += 8
        elif op == 0x8F:  # EMPTY_SET
            stack.append(_Opaque())
        elif op == 0x90:  # ADDITEMS
            _pop_mark(stack, marks)
        elif op == 0x2E:  # STOP
            return Pickled(stack.pop(), storages, at, n + 1)
        else:
            raise FormatError(WHAT, f"has the unknown opcode {op:#x}")
    raise FormatError(WHAT, f"has more than {ops} opcodes")


def _recall(memo: dict[int, object], key: int) -> object:
    if key not in memo:
        raise FormatError(WHAT, "reads a memo entry that was never written")
    return memo[key]


def _check_depth(stack: list[object], marks: list[int], count: int) -> None:
    """Raise FormatError unless `count` values are above the last mark."""
    if len(stack) - (marks[-1] + 1 if marks else 0) < count:
        raise FormatError(WHAT, "uses its stack wrongly")


def _pop(stack: list[object], marks: list[int], count: int) -> list[object]:
    _check_depth(stack, marks, count)
    items = stack[-count:]
    del stack[-count:]
    return items


def _pop_mark(stack: list[object], marks: list[int]) -> list[object]:
    at = marks.pop()
    items = stack[at + 1 :]
    del stack[at:]
    return items


def _set_items(target: object, items: list[object]) -> None:
    if not isinstance(target, dict):
        return
    for key, value in zip(items[::2], items[1::2], strict=False):
        # Only plain keys: nested tuples can take exponential time to hash.
        if type(key) is int or (isinstance(key, str) and len(key) <= TENSOR_NAME_LIMIT_CHARS):
            target[key] = value


def _refer(reference: object, storages: dict[str, Storage]) -> object:
    """Return what a persistent id refers to: a storage, `('storage', class, key, location, elements)`, or a
    class with its source, `('module', class, …)`.
    """
    if isinstance(reference, tuple) and len(reference) > 1 and isinstance(reference[1], _Global):
        if reference[0] == "module":
            return reference[1]
        if reference[0] == "storage" and len(reference) > 3 and isinstance(reference[2], str):
            kind, key, elements = *reference[1:3], reference[4] if len(reference) > 4 else None
            dtype = _STORAGES.get(kind)
            # Releases before 0.4 had storages that are a part of another one, given last.
            if (dtype is None and kind not in _UNTYPED) or any(part is not None for part in reference[5:]):
                return _Opaque()
            storage = Storage(key, dtype, elements)
            storages.setdefault(key, storage)
            return storage
    raise FormatError(WHAT, "has a reference that is not a storage")


def _call(function: object, arguments: object) -> object:
    """Return the result of calling `function`, or an opaque value if it is unknown."""
    if not isinstance(function, _Global) or not isinstance(arguments, tuple):
        return _Opaque()
    if function in _DICTS:
        return {}
    if function in _WRAPPERS:
        return arguments[0] if arguments and isinstance(arguments[0], _Rebuilt) else _Opaque()
    if function not in _REBUILDERS or len(arguments) < 4 or not isinstance(arguments[0], Storage):
        return _Opaque()
    storage, start, shape, strides = arguments[:4]
    dtype = storage.dtype
    if function.endswith("_v3") and len(arguments) > 6 and isinstance(arguments[6], _Global):
        dtype = _DTYPES.get(arguments[6])
    if dtype is None or not _are_counts((start,)) or not _are_counts(shape) or not _are_counts(strides):
        return _Opaque()
    if len(shape) != len(strides):
        return _Opaque()
    return _Rebuilt(storage, start, shape, strides, dtype)


def _are_counts(values: object) -> bool:
    return (
        isinstance(values, tuple)
        and len(values) <= RANK_LIMIT
        and all(type(value) is int and 0 <= value <= ELEMENTS_LIMIT for value in values)
    )


def _walk(root: object) -> Iterator[View]:
    """Yield tensors in depth-first order, visiting each container once."""
    seen: set[int] = set()
    # Iterators, so that a wide level is not copied.
    levels: list[Iterator[tuple[str, object]]] = [iter([("", root)])]
    found = 0
    while levels:
        entry = next(levels[-1], None)
        if entry is None:
            levels.pop()
            continue
        path, value = entry
        if isinstance(value, _Rebuilt):
            found += 1
            if found > LAYOUT_LIMIT_TENSORS:
                raise FormatError(WHAT, f"has more than {LAYOUT_LIMIT_TENSORS} tensors")
            storage, start, shape, strides, dtype = value
            yield View(
                name=path or "tensor", key=storage.key, dtype=dtype, start=start, shape=shape, strides=strides
            )
            continue
        if isinstance(value, _Opaque):
            value = value.state
        if not isinstance(value, (dict, list, tuple)) or id(value) in seen:
            continue
        seen.add(id(value))
        if len(levels) >= PICKLE_LIMIT_DEPTH or len(path) > TENSOR_NAME_LIMIT_CHARS:
            raise FormatError(WHAT, f"is nested more than {PICKLE_LIMIT_DEPTH} deep, or has too long a name")
        levels.append(_children(path, value))


def _children(
    path: str, value: dict[object, object] | list[object] | tuple[object, ...]
) -> Iterator[tuple[str, object]]:
    prefix = f"{path}." if path else ""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, child in items:
        if isinstance(child, (_Rebuilt, _Opaque, dict, list, tuple)):
            yield f"{prefix}{key}", child
