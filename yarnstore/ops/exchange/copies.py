"""Finds model files on a disk, copies among them, and what one store would need for all of them."""

from __future__ import annotations

import os
import stat
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from yarnstore.core.index import id_bytes
from yarnstore.core.layouts import read_layout
from yarnstore.core.limits import KIB
from yarnstore.errors import FormatError, NotFoundError, StorageError, UsageError
from yarnstore.ops.inspecting.readers import Content, cut_content, local_contents
from yarnstore.progress import Meter, OnProgress
from yarnstore.store import fsread
from yarnstore.store.filepath import Path
from yarnstore.store.layout import is_store
from yarnstore.store.paths import missing
from yarnstore.store.source_files import open_file

# Files with these names are models; others are, if their headers list tensors.
_SUFFIXES: Final = frozenset(
    (
        *(
            ".safetensors",
            ".gguf",
            ".ggml",
            ".onnx",
            ".pt",
            ".pth",
            ".ckpt",
            ".bin",
            ".tflite",
            ".npz",
            ".npy",
        ),
        *(".h5", ".keras", ".pb", ".mlmodel", ".engine", ".msgpack", ".task", ".nemo", ".onnx_data"),
    )
)
# A smaller file is not worth replacing.
LEAST_BYTES: Final = 16 * KIB
# The share of a file, in percent, that must be in another one for it to be almost a copy.
_ALMOST_PERCENT: Final = 50


class ModelFile(NamedTuple):
    """A file that was found, and all its names among those searched."""

    paths: tuple[Path, ...]  # several names of one file are hard links
    found: os.stat_result


class ReadFile(NamedTuple):
    """A file that was read completely."""

    file: ModelFile
    content: Content

    @property
    def path(self) -> Path:
        return self.file.paths[0]


def find_files(folders: Sequence[Path], *, least_bytes: int = LEAST_BYTES) -> list[ModelFile]:
    """Return the model files below folders, and other files of the same sizes.

    Links are not followed, and stores are left out.

    Raises: NotFoundError, UsageError for a store.
    """
    names: dict[tuple[int, int], list[Path]] = defaultdict(list)
    stats: dict[tuple[int, int], os.stat_result] = {}
    models: set[tuple[int, int]] = set()
    for folder in folders:
        if not folder.exists():
            raise missing("folder", folder)
        if is_store(folder):
            raise UsageError(f"{folder} is a store", hint="`ystore gc` removes its duplicates")
        for path, found in _walk(Path(os.path.realpath(folder))):
            key = (found.st_dev, found.st_ino)
            if found.st_size >= least_bytes and path not in names[key]:
                names[key].append(path)
                stats[key] = found
                if _is_model(path):
                    models.add(key)
    # The caches of tools name contents by hashes: a file of the same size may be a copy of a model.
    sizes = {stats[key].st_size for key in models}
    chosen = [key for key, found in stats.items() if key in models or found.st_size in sizes]
    return [ModelFile(tuple(sorted(names[key])), stats[key]) for key in chosen]


def _walk(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Yield the regular files below a folder; what cannot be read is left out."""
    try:
        names = fsread.list_names(folder)
    except StorageError:
        names = [folder.name] if fsread.is_file(folder) else []
        folder = folder.parent
    for name in names:
        found = fsread.stat_or_none(folder / name)
        if found is None:
            continue
        if stat.S_ISREG(found.st_mode):
            yield folder / name, found
        elif stat.S_ISDIR(found.st_mode) and not is_store(folder / name):
            yield from _walk(folder / name)


def _is_model(path: Path) -> bool:
    if path.suffix.lower() in _SUFFIXES:
        return True
    try:
        with open_file(path) as source:
            return read_layout(source, name=path.name) is not None
    except (StorageError, NotFoundError, FormatError):
        return False


def read_files(files: Iterable[ModelFile], on_progress: OnProgress) -> tuple[list[ReadFile], list[str]]:
    """Read all files once, for their hashes and chunks; return also messages about those that fail."""
    files = sorted(files, key=lambda item: item.paths[0])
    meter = Meter(on_progress, "read", "models", sum(item.found.st_size for item in files))
    read, failed = [], []
    for item in files:
        try:
            (content,) = local_contents(item.paths[0])
            cut_content(content, meter)
        except (StorageError, NotFoundError, FormatError, UsageError) as error:
            failed.append(f"{item.paths[0]}: {error.message}")
            continue
        read.append(ReadFile(item, content))
    return read, failed


def group(files: Iterable[ReadFile]) -> list[list[ReadFile]]:
    """Return the files of equal content together, the largest first, and in each group in order of paths."""
    groups: dict[str, list[ReadFile]] = defaultdict(list)
    for item in files:
        groups[item.content.sha256 or ""].append(item)
    return sorted(groups.values(), key=lambda each: (-each[0].content.size_bytes, each[0].path))


class Likeness(NamedTuple):
    """How many bytes a file has in common with another one."""

    one: ReadFile
    other: ReadFile
    shared_bytes: int


def compare(firsts: Sequence[ReadFile]) -> tuple[list[Likeness], int]:
    """Compare files of different contents by their chunks.

    Returns those that have at least half of their bytes in common with an earlier one, and the size in bytes
    of all distinct chunks: what one store would need at most, since it also compresses.
    """
    owner: dict[bytes, ReadFile] = {}
    alike, distinct = [], 0
    for item in firsts:
        chunks = item.content.chunks
        ends = [*chunks.starts[1:], item.content.size_bytes]
        shared: Counter[Path] = Counter()
        for number, start in enumerate(chunks.starts):
            chunk_id, length = id_bytes(chunks.ids, number), ends[number] - start
            first = owner.get(chunk_id)
            if first is None:
                owner[chunk_id] = item
                distinct += length
            elif first is not item:
                shared[first.path] += length
        if shared:
            path, most = shared.most_common(1)[0]
            if 100 * most >= _ALMOST_PERCENT * item.content.size_bytes:
                other = next(each for each in firsts if each.path == path)
                alike.append(Likeness(item, other, most))
    return alike, distinct
