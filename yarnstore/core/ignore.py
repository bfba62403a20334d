"""Files that are not part of a model: those of downloaders and version control, and `.ystoreignore`.

docs/publishing.md governs the list and the patterns.  Pure; leaves walking to `store/source_files`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import translate
from functools import cache
from typing import Final, Self

from yarnstore.errors import FormatError

IGNORE_FILE: Final = ".ystoreignore"
IGNORE_LIMIT_BYTES: Final = 64 * 1024
# Each pattern is compared with each path.
_PATTERNS_LIMIT: Final = 1000

# Compared without case, since some file systems ignore it.
LEAVINGS: Final = (
    # version control
    *(".git", ".hg", ".svn", ".bzr", "_darcs", ".jj"),
    # downloaders: caches and partial files
    *("**/.cache/huggingface/", ".msc", ".mv", ".mdl", "._____temp/"),
    *("*.incomplete", "*.part", "*.partial", "*.crdownload", "*.aria2"),
    # desktops
    *(".DS_Store", "._*", "__MACOSX/", ".Spotlight-V100/", ".Trashes/", ".fseventsd/"),
    *("Thumbs.db", "ehthumbs.db", "desktop.ini", "$RECYCLE.BIN/", "System Volume Information/"),
    *(".directory", ".Trash-*/", ".nfs*"),
    # Python and notebooks
    *("__pycache__/", ".ipynb_checkpoints/"),
    # editors
    *("*~", "*.swp", "*.swo", ".#*"),
)


@dataclass(frozen=True)
class _Pattern:
    """One line: its parts between slashes, where `**` stands for any number of folders."""

    parts: tuple[str, ...]
    only_folders: bool
    included: bool

    @property
    def name(self) -> str | None:
        """The name that the pattern matches at any depth, if it is only a name."""
        return self.parts[1] if len(self.parts) == 2 and self.parts[0] == "**" != self.parts[1] else None

    @classmethod
    def parse(cls, line: str) -> Self | None:
        """A pattern, or None for an empty line or a comment."""
        text = line.rstrip()
        if not text or text.startswith("#"):
            return None
        included = text.startswith("!")
        text = text.removeprefix("!").removeprefix("\\")
        only_folders = text.endswith("/")
        parts = text.strip("/").split("/")
        if "/" not in text.rstrip("/"):  # a bare name matches at any depth
            parts = ["**", *parts]
        return cls(tuple(parts), only_folders, included) if any(parts) else None

    def matches(self, names: Sequence[str], *, is_folder: bool) -> bool:
        """Whether the pattern matches a path, given as its parts."""
        if self.only_folders and not is_folder:
            return False
        if self.name is not None:
            return _part(self.name).match(names[-1]) is not None
        # How many of the pattern's parts the names so far can have matched.
        reached = _with_stars(self.parts, {0})
        for name in names:
            following = set()
            for n in reached:
                if n < len(self.parts):
                    if self.parts[n] == "**":
                        following.add(n)
                    elif _part(self.parts[n]).match(name):
                        following.add(n + 1)
            reached = _with_stars(self.parts, following)
        return len(self.parts) in reached


def _with_stars(parts: tuple[str, ...], reached: set[int]) -> set[int]:
    """Add the positions reached if a `**` matches no folder."""
    found = set(reached)
    for n in sorted(reached):
        while n < len(parts) and parts[n] == "**":
            n += 1
            found.add(n)
    return found


@cache
def _part(text: str) -> re.Pattern[str]:
    # The expressions of fnmatch do not backtrack from one `*` into another.
    return re.compile(translate(text))


def _any_name(patterns: Iterable[_Pattern]) -> re.Pattern[str]:
    return re.compile("|".join(translate(pattern.name) for pattern in patterns if pattern.name is not None))


_LEAVINGS: Final = tuple(p for p in (_Pattern.parse(text.lower()) for text in LEAVINGS) if p)
# All bare names form one expression, for folders with tens of thousands of files.
_FILE_NAMES: Final = _any_name(pattern for pattern in _LEAVINGS if not pattern.only_folders)
_FOLDER_NAMES: Final = _any_name(_LEAVINGS)
_DEEPER: Final = tuple(pattern for pattern in _LEAVINGS if pattern.name is None)


class IgnoreRules:
    """Decides which paths are ignored: by the built-in list, then by the lines of `.ystoreignore`; the last
    match decides.

    With `all_files` only the `.ystoreignore` itself is ignored.
    """

    def __init__(self, data: bytes = b"", *, all_files: bool = False) -> None:
        """Raise FormatError if `data` is not a list of patterns."""
        try:
            lines = data.decode("utf-8-sig").splitlines()
        except UnicodeDecodeError:
            raise FormatError(IGNORE_FILE, "is not UTF-8") from None
        if len(lines) > _PATTERNS_LIMIT:
            raise FormatError(IGNORE_FILE, f"has more than {_PATTERNS_LIMIT} lines")
        self._own = [pattern for pattern in map(_Pattern.parse, lines) if pattern]
        self._all_files = all_files

    def leaves_out(self, path: str, *, is_folder: bool) -> bool:
        """Whether a file or folder is ignored by its own name; callers check a folder before its files."""
        names = path.split("/")
        if names[-1] == IGNORE_FILE:
            return True
        if self._all_files:
            return False
        lower = [name.lower() for name in names]
        by_name = _FOLDER_NAMES if is_folder else _FILE_NAMES
        left = by_name.match(lower[-1]) is not None or any(
            pattern.matches(lower, is_folder=is_folder) for pattern in _DEEPER
        )
        for pattern in self._own:
            if pattern.included == left and pattern.matches(names, is_folder=is_folder):
                left = not pattern.included
        return left

    def leaves_out_file(self, path: str) -> bool:
        """Whether a file is ignored, by its own name or that of a folder above it."""
        names = path.split("/")
        folders = ("/".join(names[:n]) for n in range(1, len(names)))
        return any(self.leaves_out(folder, is_folder=True) for folder in folders) or self.leaves_out(
            path, is_folder=False
        )
