"""PyTorch checkpoints since 1.6 and NumPy's `.npz`: zip archives of stored numbers.

A checkpoint has one member per storage, `<root>/data/<key>`, and `<root>/data.pkl`, which describes them;
TorchScript archives have the same.  A storage that its tensors fill without gaps becomes those tensors; one
with views, transposes or gaps becomes one tensor of the storage's length under the first of their names.  If
the pickle cannot be interpreted, each storage is a tensor of bytes named after its member.  Older checkpoints
are one pickle and have no layout; compressed members have none either.  Pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from yarnstore.core.layouts.elements import BYTES
from yarnstore.core.layouts.limits import PICKLE_LIMIT_BYTES
from yarnstore.core.layouts.model import Layout, Source, Tensor, count_elements, make_layout
from yarnstore.core.layouts.numpy_ import read_array
from yarnstore.core.layouts.pickled import View, read_views
from yarnstore.core.layouts.window import ReadWindow
from yarnstore.core.layouts.zipdir import Member, find_data, read_members
from yarnstore.errors import FormatError

TORCH: Final = "torch"
NPZ: Final = "npz"


def parse_zip(source: Source) -> Layout:
    """Return the layout of a PyTorch checkpoint or an `.npz` file.  Raises: FormatError."""
    window = ReadWindow(source, "zip")
    members = read_members(window)
    roots = [member.name.removesuffix("data.pkl") for member in members if _is_pickle(member.name)]
    if len(roots) == 1:
        tensors = _read_checkpoint(window, {member.name: member for member in members}, roots[0])
        return make_layout(TORCH, tensors, window.size)
    return make_layout(NPZ, _read_arrays(window, members), window.size)


def _is_pickle(name: str) -> bool:
    return name.endswith("/data.pkl") and name.count("/") == 1


def _read_arrays(window: ReadWindow, members: Iterable[Member]) -> list[Tensor]:
    arrays = []
    for member in members:
        if not member.stored or not member.name.endswith(".npy"):
            continue
        at = find_data(window, member)
        try:
            arrays.append(read_array(window, at, member.size, member.name.removesuffix(".npy")))
        except FormatError:
            continue  # such as an array of text
    return arrays


def _read_checkpoint(window: ReadWindow, members: dict[str, Member], root: str) -> list[Tensor]:
    order = members.get(f"{root}byteorder")
    if order is not None and order.stored and window.take(find_data(window, order), order.size) != b"little":
        raise FormatError(TORCH, "has numbers that are not little-endian")
    prefix = f"{root}data/"
    storages = {
        name.removeprefix(prefix): Member(name, find_data(window, member), member.size, stored=True)
        for name, member in members.items()
        if name.startswith(prefix) and member.stored
    }
    try:
        views = read_views(_read_pickle(window, members[f"{root}data.pkl"]))
    except FormatError:
        return [Tensor(each.name, BYTES, (each.size,), each.at, each.size) for each in storages.values()]
    by_key: dict[str, list[View]] = {}
    for view in views:
        by_key.setdefault(view.key, []).append(view)
    tensors = []
    for key, group in by_key.items():
        if key in storages:
            tensors += _place(group, storages[key])
    return tensors


def _read_pickle(window: ReadWindow, member: Member) -> bytes:
    if not member.stored or member.size > PICKLE_LIMIT_BYTES:
        raise FormatError(
            TORCH,
            f"has a pickle of {member.size} bytes that is compressed, or above {PICKLE_LIMIT_BYTES} bytes",
        )
    return window.take(find_data(window, member), member.size)


def _place(views: list[View], storage: Member) -> list[Tensor]:
    """Return the tensors of one storage, whose first byte is at offset `at`."""
    placed: dict[tuple[int, int], Tensor] = {}
    tiled = True
    for view in views:
        dtype = view.dtype
        length = dtype.bytes_for(count_elements(view.shape, TORCH))
        offset = view.start * dtype.block_bytes
        if _is_contiguous(view):
            if offset + length > storage.size:
                raise FormatError(TORCH, f"has a tensor beyond the end of the storage {view.key[:80]!r}")
        else:
            tiled = False
        placed.setdefault((offset, length), Tensor(view.name, dtype, view.shape, storage.at + offset, length))
    end = 0
    for offset, length in sorted(placed):
        tiled = tiled and offset == end
        end = offset + length
    if tiled and end == storage.size:
        return list(placed.values())
    first = views[0]
    if storage.size % first.dtype.block_bytes:
        raise FormatError(TORCH, f"has a storage of {storage.size} bytes for {first.dtype.name}")
    count = storage.size // first.dtype.block_bytes
    return [Tensor(first.name, first.dtype, (count,), storage.at, storage.size)]


def _is_contiguous(view: View) -> bool:
    step = 1
    for extent, stride in zip(reversed(view.shape), reversed(view.strides), strict=True):
        if extent != 1 and stride != step:
            return False
        step *= extent
    return True
