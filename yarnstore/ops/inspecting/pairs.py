"""Match the files and the tensors of two versions.

Files are matched by path, tensors by name, and the remaining ones by content, which finds renamed tensors and
tensors that moved to another shard.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Hashable, Iterable
from typing import NamedTuple

from blake3 import blake3

from yarnstore.core.layouts import Tensor
from yarnstore.core.limits import MIB
from yarnstore.ops.inspecting.readers import Content

FilePair = tuple[Content | None, Content | None]


class Placed(NamedTuple):
    """A tensor and its file."""

    content: Content
    tensor: Tensor


class TensorPair(NamedTuple):
    """A tensor of the old side, of the new side, or of both.

    `moved` is true if its bytes are the same under another name, or in a file that does not match the old
    one.
    """

    old: Placed | None
    new: Placed | None
    moved: bool = False


def pair_files(old: list[Content], new: list[Content]) -> list[FilePair]:
    """Pair each file once: those of the new side in order, then the removed ones.

    Two single files are paired regardless of their names; others by path, by content, and finally the only
    two remaining ones with the same extension.
    """
    if len(old) == 1 and len(new) == 1:
        return [(old[0], new[0])]
    found: dict[str, Content] = {}
    left = {content.path: content for content in old}
    for content in new:
        if content.path in left:
            found[content.path] = left.pop(content.path)
    by_hash = {content.sha256: content for content in left.values() if content.size_bytes}
    for content in new:
        other = by_hash.get(content.sha256)
        if content.path not in found and other is not None and other.path in left:
            found[content.path] = left.pop(other.path)
    endings: dict[str, tuple[list[Content], list[Content]]] = defaultdict(lambda: ([], []))
    for content in left.values():
        endings[_ending(content)][0].append(content)
    for content in new:
        if content.path not in found:
            endings[_ending(content)][1].append(content)
    for ours, theirs in endings.values():
        if len(ours) == 1 and len(theirs) == 1:
            found[theirs[0].path] = left.pop(ours[0].path)
    return [(found.get(content.path), content) for content in new] + [(gone, None) for gone in left.values()]


def _ending(content: Content) -> str:
    return content.path.rpartition(".")[2] if "." in content.path else ""


def pair_tensors(files: Iterable[FilePair]) -> list[TensorPair]:
    """Pair each tensor once: those of the new side in the order of their files, then the removed ones.

    Raises: IntegrityError, StorageError if a tensor that may have moved cannot be read.
    """
    pairs: dict[Placed, TensorPair] = {}
    gone: list[Placed] = []
    come: list[Placed] = []
    for old, new in files:
        there = {place.tensor.name: place for place in _places(old)}
        for place in _places(new):
            other = there.pop(place.tensor.name, None)
            pairs[place] = TensorPair(other, place)
            if other is None:
                come.append(place)
        gone += there.values()
    for place, other in [*_same_name(gone, come), *_same_bytes(gone, come)]:
        pairs[place] = TensorPair(other, place, moved=True)
    return [*pairs.values(), *(TensorPair(place, None) for place in gone)]


def _places(content: Content | None) -> list[Placed]:
    if content is None or content.layout is None:
        return []
    return [Placed(content, tensor) for tensor in content.layout.tensors]


def _same_name(gone: list[Placed], come: list[Placed]) -> list[tuple[Placed, Placed]]:
    """Pair tensors of `come` that are in another file under the same name, and remove them from both
    lists.
    """
    return _match(gone, come, lambda place: place.tensor.name)


def _same_bytes(gone: list[Placed], come: list[Placed]) -> list[tuple[Placed, Placed]]:
    """Pair tensors of `come` with the same bytes under another name, and remove them from both lists.

    Compares chunk ids if both are cut alike; a tensor that shares chunks with others is hashed.
    """
    found = _match(gone, come, _chunk_key)
    sizes: dict[tuple[int, str], list[Placed]] = defaultdict(list)
    for place in (*gone, *come):
        sizes[_size(place)].append(place)
    sides = {_size(place) for place in gone} & {_size(place) for place in come}
    hashes: dict[Placed, bytes] = {}
    for size in sides:
        cuts = [place.content.chunks.cuts(place.tensor.offset, place.tensor.length) for place in sizes[size]]
        if size[0] and (cuts[0] is None or any(each != cuts[0] for each in cuts)):
            hashes.update((place, _hash(place)) for place in sizes[size])
    return found + _match(gone, come, hashes.get)


def _chunk_key(place: Placed) -> Hashable:
    tensor = place.tensor
    return (
        (place.content.chunks.key(tensor.offset, tensor.length), tensor.dtype.name) if tensor.length else None
    )


def _size(place: Placed) -> tuple[int, str]:
    return place.tensor.length, place.tensor.dtype.name


def _match(
    gone: list[Placed], come: list[Placed], key_of: Callable[[Placed], Hashable]
) -> list[tuple[Placed, Placed]]:
    """Pair equal keys other than None, each tensor once and in order, and remove them from both lists."""
    by_key: dict[Hashable, deque[Placed]] = defaultdict(deque)
    for place in gone:
        by_key[key_of(place)].append(place)
    by_key.pop(None, None)
    found: dict[Placed, Placed] = {}
    for place in come:
        waiting = by_key.get(key_of(place))
        if waiting:
            found[place] = waiting.popleft()
    taken = set(found.values())
    gone[:] = [place for place in gone if place not in taken]
    come[:] = [place for place in come if place not in found]
    return list(found.items())


def _hash(place: Placed) -> bytes:
    digest = blake3()
    content, tensor = place
    for offset in range(tensor.offset, tensor.end, MIB):
        digest.update(content.read(offset, min(MIB, tensor.end - offset)))
    return digest.digest()
