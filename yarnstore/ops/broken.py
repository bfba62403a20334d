"""Files that are no whole model: cut ones, Git LFS pointers, web pages, shards that are missing.

A file of an unknown format is never reported.  Leaves formats to `core/layouts`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from yarnstore.core.layouts import parse_layout
from yarnstore.core.layouts.limits import HEADER_LIMIT_BYTES
from yarnstore.errors import FormatError
from yarnstore.ops.progress import OnProgress, Progress, ignore
from yarnstore.ops.sources import FileSource, SourceFile, list_few
from yarnstore.store import fsread

_LFS: Final = (b"version https://git-lfs.github.com/spec/", b"version https://hawser.github.com/spec/")
_LFS_LIMIT_BYTES: Final = 1024
_PAGE = re.compile(rb"(\xef\xbb\xbf)?\s*(<!doctype\s+html|<html)[\s>]", re.IGNORECASE)
# Where a web page may be meant, or be what a text begins with.
_TEXTS: Final = (
    ".html",
    ".htm",
    ".xhtml",
    ".md",
    ".txt",
    ".svg",
    ".xml",
    ".jinja",
    ".jinja2",
    ".j2",
    ".tmpl",
)
_SHARD = re.compile(r"(.*)-(\d{5})-of-(\d{5})(\.[^/]*)?")
_SHARD_LIMIT: Final = 10_000
_INDEX_LIMIT_BYTES: Final = 64 * 1024 * 1024
# How the readers say that a file ends before what its header promises; ONNX has no magic, so its first
# field is looked at too.
_CUT: Final = (
    "outside of the file",
    "ends within",
    "does not end",
    "is shorter than",
    "ends within its array",
)
_FORMATS: Final = (".safetensors", ".gguf", ".onnx")


class _Index(msgspec.Struct):
    weight_map: dict[str, str]


def find_broken(sources: Sequence[SourceFile], on_progress: OnProgress = ignore) -> list[str]:
    """What is wrong, each with its path, in words.  Raises: StorageError."""
    found = [f"{item.path} {why}" for item in sources if (why := _content_fault(item))]
    return [*found, *_missing_shards(sources), *_missing_from_indexes(sources, on_progress)]


def refuse_broken(sources: Sequence[SourceFile], on_progress: OnProgress) -> None:
    """Raises: FormatError where files are broken; all are in its `why`, or the first few and the count."""
    found = find_broken(sources, on_progress)
    if found:
        raise FormatError(
            "the source:",
            list_few(found, "; "),
            hint="download it again; --force takes it as it is",
        )


def _content_fault(item: SourceFile) -> str:
    name = item.path.lower()
    if not item.size_bytes:
        return "is empty" if name.endswith(_FORMATS) else ""
    with fsread.translating(item.source), fsread.open_source(item.source) as file:
        source = FileSource(file.fileno(), item.size_bytes)
        head = source.read(0, 1024)
        if head.startswith(_LFS) and item.size_bytes <= _LFS_LIMIT_BYTES:
            return "is a Git LFS pointer, not the file: `git lfs pull` downloads it"
        if _PAGE.match(head) and not name.endswith(_TEXTS):
            return "is a web page"
        return _cut_fault(source, name, head)


def _cut_fault(source: FileSource, name: str, head: bytes) -> str:
    is_model = (
        head.startswith(b"GGUF")
        or (name.endswith(".safetensors") and head[8:10] == b'{"')
        or (name.endswith(".onnx") and head[:1] == b"\x08" and 0 < head[1] < 64)
    )
    if is_model:
        try:
            parse_layout(source, name=name)
        except FormatError as error:
            why = str(error.fields["why"])
            if why.endswith("header that does not end") and source.size > HEADER_LIMIT_BYTES:
                return ""  # larger than the reader takes, and perhaps whole
            if why.endswith(_CUT) or why.startswith(_CUT) or (head[0] == 8 and why.endswith("does not fit")):
                return "is cut: it ends before what its header says"
    return ""


def _missing_shards(sources: Sequence[SourceFile]) -> Iterator[str]:
    sets: dict[tuple[str, str, str], set[int]] = {}
    for item in sources:
        if match := _SHARD.fullmatch(item.path):
            sets.setdefault((match[1], match[3], match[4] or ""), set()).add(int(match[2]))
    for (start, total, end), numbers in sets.items():
        if int(total) > _SHARD_LIMIT:
            continue
        first = 0 if 0 in numbers else 1
        for number in range(first, first + int(total)):
            if number not in numbers:
                yield f"{start}-{number:05}-of-{total}{end} is missing"


def _missing_from_indexes(sources: Sequence[SourceFile], on_progress: OnProgress) -> Iterator[str]:
    paths = {item.path for item in sources}
    for item in sources:
        if not item.path.endswith(".index.json") or item.size_bytes > _INDEX_LIMIT_BYTES:
            continue
        with fsread.translating(item.source), fsread.open_source(item.source) as file:
            data = file.read()
        try:
            names = set(msgspec.json.decode(data, type=_Index).weight_map.values())
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            continue
        folder = item.path.rpartition("/")[0]
        prefix = f"{folder}/" if folder else ""
        if _is_left_over({prefix + name for name in names}, item.path, paths):
            on_progress(Progress("note", "", text=f"{item.path} names files none of which exists"))
            continue
        for name in sorted(names):
            path = prefix + name
            if path not in paths and not any(_same_set(path, other) for other in paths):
                yield f"{path} is missing, which {item.path} names"


def _is_left_over(named: set[str], index: str, paths: set[str]) -> bool:
    """Whether an index is of another format: none of its files exist, but safetensors beside it do."""
    folder = index.rpartition("/")[0]
    beside = {path for path in paths if path.rpartition("/")[0] == folder and path.endswith(".safetensors")}
    another = not any(path.endswith(".safetensors") for path in named)
    return bool(beside) and another and not named & paths


def _same_set(one: str, other: str) -> bool:
    """Whether two are shards of one set, which `_missing_shards` reports."""
    left, right = _SHARD.fullmatch(one), _SHARD.fullmatch(other)
    return bool(left and right and (left[1], left[3], left[4]) == (right[1], right[3], right[4]))
