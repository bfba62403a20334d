"""Find files that are not a complete model: truncated files, Git LFS pointers, web pages, missing files.

A file of an unknown format is never reported.  Leaves file formats to `core/layouts`.
"""

from __future__ import annotations

import contextlib
import posixpath
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Final

import msgspec

from yarnstore.core.layouts import Source, external_sizes, parse_layout
from yarnstore.core.loadcode import LoadedCode
from yarnstore.errors import FormatError
from yarnstore.ops.session.loadcode import CodeSearch
from yarnstore.progress import OnProgress, Progress, ignore
from yarnstore.store.source_files import Opener, Sources, list_few, look_into, openers

_LFS: Final = (b"version https://git-lfs.github.com/spec/", b"version https://hawser.github.com/spec/")
_LFS_LIMIT_BYTES: Final = 1024
_PAGE = re.compile(rb"(\xef\xbb\xbf)?\s*(<!doctype\s+html|<html)[\s>]", re.IGNORECASE)
# Files that may be web pages, or may begin like one.
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
_FORMATS: Final = (".safetensors", ".gguf", ".onnx")


class _Index(msgspec.Struct):
    weight_map: dict[str, str]


class BrokenSearch:
    """The search for incomplete files of one version, which are added one by one."""

    def __init__(self) -> None:
        self._found: list[str] = []
        self._faulty: set[str] = set()
        self._sizes: dict[str, int] = {}
        self._needed: dict[str, tuple[int, str]] = {}  # the least size in bytes, and the file that names it

    def add(self, path: str, source: Source) -> None:
        """Check one file.  Raises: the errors of reading it."""
        self._sizes[path] = source.size
        fault = _content_fault(source, path)
        if fault:
            self._found.append(f"{path} {fault}")
            self._faulty.add(path)
            return
        for name, least_bytes in _named_files(source, path).items():
            if name not in self._needed or least_bytes > self._needed[name][0]:
                self._needed[name] = least_bytes, path

    def finish(self, on_progress: OnProgress = ignore) -> list[str]:
        """Return a message with the path for each problem of the added files."""
        sizes, needed = self._sizes, self._needed
        found = [*self._found, *_missing_shards(sizes)]
        left_over = set(_left_over(needed, sizes))
        for index in sorted(left_over):
            on_progress(Progress("note", "", text=f"{index} lists files, but none of them exists"))
        for name, (least_bytes, by) in sorted(needed.items()):
            if by in left_over:
                continue
            if name not in sizes:
                if not any(_same_set(name, other) for other in sizes):
                    found.append(f"{name} is missing, but {by} lists it")
            elif sizes[name] < least_bytes and name not in self._faulty:
                found.append(f"{name} is truncated: {by} needs {least_bytes} bytes of it")
        return found


def find_broken(files: Iterable[tuple[str, Opener]]) -> list[str]:
    """Return a message with the path for each problem of the files of one version.

    Raises: the errors of opening and reading them.
    """
    search = BrokenSearch()
    look_into(files, search)
    return search.finish()


def search_sources(sources: Sources, on_progress: OnProgress) -> tuple[list[str], list[LoadedCode]]:
    """Check each file of a source once; return messages about incomplete files, and parts that run code when
    loaded.

    Raises: what opening and reading them raises.
    """
    incomplete, running = BrokenSearch(), CodeSearch()
    look_into(openers(sources.files), incomplete, running)
    return incomplete.finish(on_progress), running.finish()


def refuse_broken(found: Sequence[str]) -> None:
    """Raise FormatError if files are incomplete; its `why` has all of them, or the first few and the
    count.
    """
    if found:
        raise FormatError(
            "the source:",
            list_few(found, "; "),
            hint="download it again, or publish it anyway with --force",
        )


def note_broken(found: Sequence[str], on_progress: OnProgress) -> None:
    """Warn of incomplete files that are accepted anyway."""
    if found:
        on_progress(Progress("note", "", text=f"warning: {list_few(found, '; ')}"))


def _content_fault(source: Source, path: str) -> str:
    name = path.lower()
    if not source.size:
        return "is empty" if name.endswith(_FORMATS) else ""
    head = source.read(0, 1024)
    if head.startswith(_LFS) and source.size <= _LFS_LIMIT_BYTES:
        return "is a Git LFS pointer, not the file: `git lfs pull` downloads it"
    if _PAGE.match(head) and not name.endswith(_TEXTS):
        return "is a web page"
    is_model = (
        head.startswith(b"GGUF")
        or (name.endswith(".safetensors") and head[8:10] == b'{"')
        # ONNX has no magic number; its first field is the format's version.
        or (name.endswith(".onnx") and head[:1] == b"\x08" and 0 < (head[1:2] or b"\0")[0] < 64)
    )
    if is_model:
        try:
            parse_layout(source, name=name)
        except FormatError as error:
            if error.is_cut:
                return "is truncated: it is shorter than its header says"
    return ""


def _named_files(source: Source, path: str) -> dict[str, int]:
    """Return the least size in bytes of each file that an index or an ONNX model names, by path."""
    names: dict[str, int] = {}
    if path.lower().endswith(".onnx"):
        names = external_sizes(source)
    elif path.endswith(".index.json") and source.size <= _INDEX_LIMIT_BYTES:
        with contextlib.suppress(msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            index = msgspec.json.decode(source.read(0, source.size), type=_Index)
            names = dict.fromkeys(index.weight_map.values(), 0)
    folder = path.rpartition("/")[0]
    return {posixpath.normpath(posixpath.join(folder, name)): least for name, least in names.items()}


def _missing_shards(paths: Iterable[str]) -> Iterator[str]:
    sets: dict[tuple[str, str, str], set[int]] = {}
    for path in paths:
        if match := _SHARD.fullmatch(path):
            sets.setdefault((match[1], match[3], match[4] or ""), set()).add(int(match[2]))
    for (start, total, end), numbers in sets.items():
        if int(total) > _SHARD_LIMIT:
            continue
        first = 0 if 0 in numbers else 1
        for number in range(first, first + int(total)):
            if number not in numbers:
                yield f"{start}-{number:05}-of-{total}{end} is missing"


def _left_over(needed: Mapping[str, tuple[int, str]], paths: Collection[str]) -> Iterator[str]:
    """Return indexes of another format: no file that they name exists, but safetensors files beside them
    do.
    """
    by_index: dict[str, list[str]] = {}
    for name, (_, by) in needed.items():
        if by.endswith(".index.json"):
            by_index.setdefault(by, []).append(name)
    for index, names in by_index.items():
        folder = index.rpartition("/")[0]
        beside = any(path.rpartition("/")[0] == folder and path.endswith(".safetensors") for path in paths)
        if beside and not any(name.endswith(".safetensors") or name in paths for name in names):
            yield index


def _same_set(one: str, other: str) -> bool:
    """Whether two files are shards of one set, which `_missing_shards` reports."""
    left, right = _SHARD.fullmatch(one), _SHARD.fullmatch(other)
    return bool(left and right and (left[1], left[3], left[4]) == (right[1], right[3], right[4]))
