"""PyTorch checkpoints since 1.6 and NumPy's `.npz`: zip archives of stored numbers.

A checkpoint has one member per storage, `<root>/data/<key>`, and `<root>/data.pkl`, which describes them;
TorchScript archives have the same.  If the pickle cannot be interpreted, each storage is a tensor of bytes
named after its member.  Compressed members have no layout.  Pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from yarnstore.core.layouts.elements import BYTES
from yarnstore.core.layouts.limits import PICKLE_LIMIT_BYTES
from yarnstore.core.layouts.model import Layout, Source, Tensor, make_layout
from yarnstore.core.layouts.numpy_ import read_array
from yarnstore.core.layouts.pickled import read_views
from yarnstore.core.layouts.storages import TORCH, Extent, place_views
from yarnstore.core.layouts.window import ReadWindow
from yarnstore.core.layouts.zipdir import Member, find_data, read_members
from yarnstore.errors import FormatError

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
        name.removeprefix(prefix): Extent(find_data(window, member), member.size)
        for name, member in members.items()
        if name.startswith(prefix) and member.stored
    }
    try:
        views = read_views(_read_pickle(window, members[f"{root}data.pkl"]))
    except FormatError:
        return [Tensor(prefix + key, BYTES, (each.length,), *each) for key, each in storages.items()]
    return place_views(views, storages)


def _read_pickle(window: ReadWindow, member: Member) -> bytes:
    if not member.stored or member.size > PICKLE_LIMIT_BYTES:
        raise FormatError(
            TORCH,
            f"has a pickle of {member.size} bytes that is compressed, or above {PICKLE_LIMIT_BYTES} bytes",
        )
    return window.take(find_data(window, member), member.size)
