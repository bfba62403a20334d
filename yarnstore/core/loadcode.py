"""Search for code that runs when a file is loaded: pickles, TorchScript, Keras Lambda layers, Python files.

Searches the content of any file: pickles of all protocols, also concatenated or compressed; pickles in zip
archives (PyTorch since 1.6, `.npz`); NumPy arrays of objects.  docs/publishing.md has the list, and what is
not searched.  Raises no FormatError; imports and executes nothing.  Pure.
"""

from __future__ import annotations

import contextlib
import json
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import msgspec

from yarnstore.core.layouts.limits import NPY_HEADER_LIMIT_BYTES
from yarnstore.core.layouts.model import Source
from yarnstore.core.layouts.numpy_ import MAGIC as NPY_MAGIC
from yarnstore.core.layouts.window import ReadWindow
from yarnstore.core.layouts.zipdir import MAGIC as ZIP_MAGIC
from yarnstore.core.layouts.zipdir import Member, find_data, read_members
from yarnstore.core.limits import KIB, MIB
from yarnstore.core.pickles import (
    Budget,
    BudgetError,
    PickleScan,
    Stream,
    begins_with_opcode,
    scan_pickle,
)
from yarnstore.core.streams import Blocks, Unpacked, decompressor_for
from yarnstore.errors import FormatError

Kind: TypeAlias = Literal["pickle", "code"]

# Globals that PyTorch, NumPy and the standard library use to rebuild plain data.  None of them calls anything
# that the pickle does not name as a global of its own.
_KNOWN: Final = frozenset(
    {
        *("collections.OrderedDict", "collections.defaultdict", "collections.Counter"),
        *(
            f"{module}.{name}"
            for module in ("builtins", "__builtin__")
            for name in (
                *("bool", "int", "float", "complex", "str", "bytes", "bytearray"),
                *("list", "tuple", "dict", "set", "frozenset", "slice", "long", "unicode"),
            )
        ),
        "_codecs.encode",
        *(
            f"{module}.{name}"
            for module in ("numpy.core.multiarray", "numpy._core.multiarray")
            for name in ("_reconstruct", "scalar")
        ),
        *("numpy.core.numeric._frombuffer", "numpy._core.numeric._frombuffer"),
        *("numpy.ndarray", "numpy.dtype"),
        *("torch.Size", "torch.device", "torch.Tensor", "torch.nn.parameter.Parameter"),
        *("torch.serialization._get_layout", "torch.storage.UntypedStorage"),
        *("torch.storage.TypedStorage", "torch.storage._TypedStorage", "torch.storage._UntypedStorage"),
        *(
            f"torch._utils._rebuild_{name}"
            for name in (
                *("tensor", "tensor_v2", "tensor_v3", "qtensor", "parameter", "parameter_with_state"),
                *("meta_tensor_no_storage", "sparse_tensor", "nested_tensor"),
                "device_tensor_from_numpy",
            )
        ),
        *(
            f"torch.jit._pickle.build_{name}"
            for name in ("intlist", "tensorlist", "doublelist", "boollist", "tensor_from_id")
        ),
        "torch.jit._pickle.restore_type_tag",
    }
)
_KNOWN_FORM = re.compile(
    r"torch\.([A-Z]\w*Storage|cuda\.[A-Z]\w*Storage|(q?u?int|bfloat|float|complex)\d+\w*|bool)"
    r"|numpy\.dtypes\.\w+DType"
    r"|__torch__\.[\w.]+"  # a class of a TorchScript archive, which is not a Python module
)

# Files in which a pickle without a binary header is recognised without reading it to its end.
_PICKLE_ENDINGS: Final = (
    *(".pkl", ".pickle", ".p", ".pck", ".pcl", ".joblib", ".dill", ".cloudpickle", ".sav", ".data"),
    *(".pt", ".pth", ".ptl", ".th", ".bin", ".ckpt", ".tar", ".npy"),
)
_ZIP_ENDINGS: Final = (".keras", ".npz", ".zip", ".pt", ".pth", ".ptl", ".bin", ".ckpt")
_SURE_ENDINGS: Final = (".pkl", ".pickle", ".joblib", ".dill", ".cloudpickle")
_MEMBERS_LIMIT: Final = 20_000
# Keras: the description of the layers in a `.keras` archive; in HDF5 it can be anywhere in the file.
_CONFIG_LIMIT_BYTES: Final = 8 * MIB
_HDF_LIMIT_BYTES: Final = 512 * MIB
_HDF_BLOCK_BYTES: Final = 1 * MIB
_HDF_MAGIC: Final = b"\x89HDF\r\n\x1a\n"
_LAMBDA = re.compile(rb'"class_name"\s{0,8}:\s{0,8}"Lambda"')
_KERAS_ROOTS: Final = frozenset({"keras", "builtins", "keras_hub", "keras_nlp", "keras_cv", "tf_keras"})
# A header's descr with an `O`, as in `|O` or in a field `('a', 'O')`.
_OBJECTS = re.compile(rb"['\"][|<>=]?O\d{0,2}['\"]|\\")
_STORAGE = re.compile(r"[^/]+/data/[^/]+")
_SCRIPT = re.compile(r"[^/]+/code/.+\.py")
_UNSHOWABLE = re.compile(r"[^\w.<>?…-]")


@dataclass(frozen=True)
class LoadedCode:
    """A part of a file that runs code when the file is loaded, or may do so."""

    path: str  #: The file.
    kind: Kind  #: The kind, as a policy names it.
    what: str  #: A description.
    #: The names that a pickle imports beyond those of plain data, or the named classes or modules.
    names: tuple[str, ...] = ()
    why: str | None = None  #: Why the pickle or archive was not read completely.

    @property
    def suspect(self) -> bool:
        """Whether it is more than a pickle of plain data."""
        return self.kind == "code" or bool(self.names) or self.why is not None

    def __str__(self) -> str:
        names = ", ".join(self.names[:5]) + (f" and {len(self.names) - 5} more" * (len(self.names) > 5))
        if self.kind == "code":
            return f"{self.path} has {self.what}, which runs when it is loaded" + (names and f": {names}")
        if not self.suspect:
            return f"{self.path} is a {self.what} of plain data"
        text = f"{self.path} is a {self.what} that runs code when it is loaded"
        if not self.names:
            text = f"{self.path} is a {self.what} that may run code when it is loaded"
        text += names and f": {names}"
        return text + (f" (not read completely: it {self.why})" if self.why else "")


def find_code(source: Source, path: str, budget: Budget) -> list[LoadedCode]:
    """Find the code that one file runs when loaded; a pickle of plain data is listed as well."""
    head = source.read(0, 16)
    found: list[LoadedCode] = []
    if head.startswith(ZIP_MAGIC) or (path.lower().endswith(_ZIP_ENDINGS) and _ends_as_zip(source)):
        found += _in_zip(source, path, budget)
    if head.startswith(_HDF_MAGIC):
        found += _in_hdf(source, path)
    if any(item.kind == "pickle" for item in found) or not _may_be_content(head):
        return found
    item = _in_content(lambda: Blocks(source, 0, source.size), path, path, "pickle", budget)
    return [*found, item] if item is not None else found


def _ends_as_zip(source: Source) -> bool:
    """Whether an archive follows other bytes, which some loaders accept."""
    at = max(0, source.size - 64 * KIB - 22)
    return b"PK\x05\x06" in source.read(at, source.size - at)


# --- pickles ------------------------------------------------------------------------------------


def _may_be_content(head: bytes) -> bool:
    """Whether bytes may be a pickle, by the first 16; for most files nothing else is read."""
    return begins_with_opcode(head) or head.startswith(NPY_MAGIC) or decompressor_for(head) is not None


def _in_content(
    open_: Callable[[], Stream], path: str, name: str, what: str, budget: Budget
) -> LoadedCode | None:
    """Find the pickle in some bytes; `name` is that of the file or of a member of an archive."""
    try:
        head = open_().take(16)
        if not _may_be_content(head):
            return None
        if head.startswith(NPY_MAGIC):
            return _in_array(open_(), path, budget)
        packed = decompressor_for(head)
        stream = open_()
        if packed is not None and (probing := decompressor_for(head)) is not None:
            head = Unpacked(open_(), probing, budget).take(2)
            stream = Unpacked(stream, packed, budget)
    except BudgetError as error:
        sure = name.lower().endswith(_SURE_ENDINGS)
        return LoadedCode(path, "pickle", what, (), str(error)) if sure else None
    scan = scan_pickle(stream, budget)
    if not _is_pickle(scan, head, name.lower()):
        return None
    return _as_found(scan, path, what)


def _is_pickle(scan: PickleScan, head: bytes, name: str) -> bool:
    """Whether scanned bytes are a pickle, and not text or numbers that begin like one."""
    if head[:1] == b"\x80" and len(head) > 1 and head[1] <= 5:
        return bool(scan.ended or scan.globals or scan.why)
    if name.endswith(_SURE_ENDINGS):
        return bool(scan.ended or scan.called or scan.why)
    if not (scan.called and scan.plain):
        return False
    return scan.ended or name.endswith(_PICKLE_ENDINGS)


def _as_found(scan: PickleScan, path: str, what: str) -> LoadedCode:
    why = scan.why or ("" if scan.ended else "ends early, or is followed by other data")
    return LoadedCode(path, "pickle", what, _beyond_known(scan.globals), why or None)


def _beyond_known(names: Iterable[str]) -> tuple[str, ...]:
    left = (name for name in names if name not in _KNOWN and not _KNOWN_FORM.fullmatch(name))
    return tuple(dict.fromkeys(_UNSHOWABLE.sub("?", name) for name in left))


def _in_array(stream: Stream, path: str, budget: Budget) -> LoadedCode | None:
    """The pickle of a NumPy array of objects."""
    head = stream.take(8)
    length = int.from_bytes(stream.take(2 if head[6:7] == b"\x01" else 4), "little")
    if length > NPY_HEADER_LIMIT_BYTES:
        return LoadedCode(path, "pickle", "NumPy array", (), "has a very long header")
    objects = _OBJECTS.search(stream.take(length)) is not None
    scan = scan_pickle(stream, budget)
    if objects or (scan.called and scan.ended):
        return _as_found(scan, path, "pickle in a NumPy array")
    return None


# --- archives -----------------------------------------------------------------------------------


def _in_zip(source: Source, path: str, budget: Budget) -> list[LoadedCode]:
    """Find the code in an archive, with its pickles as one."""
    found: list[LoadedCode] = []
    try:
        for item in _iter_members(source, path, budget):
            found.append(item)  # noqa: PERF402 - what came before a fault stays
    except FormatError as error:
        found.append(LoadedCode(path, "pickle", "zip archive", (), str(error.fields["why"])))
    except BudgetError as error:
        found.append(LoadedCode(path, "pickle", "zip archive", (), str(error)))
    pickles = [item for item in found if item.kind == "pickle"]
    if pickles:
        names = tuple(dict.fromkeys(name for item in pickles for name in item.names))
        why = next((item.why for item in pickles if item.why), None)
        pickles = [LoadedCode(path, "pickle", pickles[0].what, names, why)]
    return [*dict.fromkeys(item for item in found if item.kind != "pickle"), *pickles]


def _iter_members(source: Source, path: str, budget: Budget) -> Iterator[LoadedCode]:
    """Raises: FormatError, BudgetError."""
    window = ReadWindow(source, "zip")
    members = read_members(window)
    is_torch = any(member.name.endswith("/data.pkl") for member in members)
    looked = [member for member in members if not (is_torch and _STORAGE.fullmatch(member.name))]
    if any(_SCRIPT.fullmatch(member.name) for member in members):
        yield LoadedCode(path, "code", "TorchScript code")
    if len(looked) > _MEMBERS_LIMIT:
        raise FormatError("zip", f"has more than {_MEMBERS_LIMIT} members")
    what = "PyTorch pickle" if is_torch else "pickle in a zip archive"
    for member in looked:
        if member.method not in (0, 8):
            shown = _UNSHOWABLE.sub("?", member.name[:80])
            raise FormatError("zip", f"compresses {shown} with an unknown method")
        opener = _opener(source, window, member, budget)
        item = _in_content(opener, path, member.name, what, budget)
        if item is not None:
            yield item
        if member.name == "config.json":
            yield from _in_keras(opener(), path)


def _opener(source: Source, window: ReadWindow, member: Member, budget: Budget) -> Callable[[], Stream]:
    at = find_data(window, member)
    if member.stored:
        return lambda: Blocks(source, at, at + member.size)
    return lambda: Unpacked(Blocks(source, at, at + member.packed), zlib.decompressobj(-15), budget)


# --- Keras --------------------------------------------------------------------------------------


def _in_keras(stream: Stream, path: str) -> Iterator[LoadedCode]:
    data = stream.take(_CONFIG_LIMIT_BYTES + 1)
    if len(data) > _CONFIG_LIMIT_BYTES:
        yield LoadedCode(path, "code", "a Keras configuration too large to check")
        return
    values = list(_objects(_parsed(data)))
    if any(value.get("class_name") == "Lambda" for value in values):
        yield LoadedCode(path, "code", "a Keras Lambda layer")
    modules = {value.get("module") for value in values if "class_name" in value}
    named = [text for text in modules if isinstance(text, str) and text.partition(".")[0] not in _KERAS_ROOTS]
    if named:
        yield LoadedCode(path, "code", "Keras objects of other modules", _shown(named))


def _in_hdf(source: Source, path: str) -> Iterator[LoadedCode]:
    """Find a Lambda layer in the layer configurations of an HDF5 file, at any offset."""
    before = b""
    for at in range(0, min(source.size, _HDF_LIMIT_BYTES), _HDF_BLOCK_BYTES):
        block = before + source.read(at, _HDF_BLOCK_BYTES)
        if _LAMBDA.search(block):
            yield LoadedCode(path, "code", "a Keras Lambda layer")
            return
        before = block[-64:]


# --- Python beside a model ----------------------------------------------------------------------


def is_config(path: str) -> bool:
    """Whether a file may name Python code to be loaded with a model."""
    name = path.rpartition("/")[2]
    return name in ("model_index.json", "modules.json") or (
        name.endswith(".json") and "config" in name and not name.endswith(".index.json")
    )


def find_named_code(configs: Mapping[str, bytes | None], paths: Iterable[str]) -> list[LoadedCode]:
    """Find the configurations that load Python code, from this folder or from another repository.

    `configs` has the content of each file that `is_config` accepts, by path, None if it is too large; `paths`
    are the paths of all files.
    """
    has_python = any(path.endswith(".py") for path in paths)
    found = []
    for path, data in configs.items():
        if data is None:
            if has_python:
                found.append(LoadedCode(path, "code", "a configuration too large to check"))
            continue
        names = _shown(_named_in(_parsed(data), path.rpartition("/")[2], has_python=has_python))
        if names:
            found.append(LoadedCode(path, "code", "the names of Python code", names))
    return found


def _named_in(value: object, name: str, *, has_python: bool) -> Iterator[str]:
    for item in _objects(value):
        for key in ("auto_map", "custom_pipelines"):
            for text in _texts(item.get(key)) if key in item else ():
                # `owner/repository--module.Class` is loaded from another repository.
                if has_python or "--" in text:
                    yield text
        if has_python and item.get("trust_remote_code") is True:
            yield "trust_remote_code"
        kind = item.get("_class_name")
        if name == "model_index.json" and has_python and isinstance(kind, list):
            yield ".".join(_texts(kind))
        kind = item.get("type")
        if name == "modules.json" and has_python and not str(kind).startswith("sentence_transformers."):
            yield from _texts(kind)


def _parsed(data: bytes) -> object:
    """Return a JSON value as Python's json module reads it, also with NaN, a byte order mark or UTF-16."""
    with contextlib.suppress(msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return msgspec.json.decode(data)
    with contextlib.suppress(ValueError, RecursionError):
        return json.loads(data)
    return None


def _objects(value: object) -> Iterator[dict[str, object]]:
    """All objects in a JSON value, at any depth."""
    left = [value]
    while left:
        item = left.pop()
        if isinstance(item, dict):
            yield item
            left += item.values()
        elif isinstance(item, list):
            left += item


def _texts(value: object) -> list[str]:
    """All texts in a JSON value that is a list or an object of them."""
    found: list[str] = []
    left = [value]
    while left:
        item = left.pop()
        if isinstance(item, str):
            found.append(item)
        elif isinstance(item, dict):
            left += reversed(list(item.values()))
        elif isinstance(item, list):
            left += reversed(item)
    return found


def _shown(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(_UNSHOWABLE.sub("?", name[:200]) for name in names if name))[:200]
