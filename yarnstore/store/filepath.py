"""Paths in a store: as much of `pathlib` as this package uses, in a hundredth of its time to import.

`pathlib` of Python 3.11 and 3.12 imports `urllib.parse` and `ipaddress`, which takes longer than everything
else that `ystore path` does (docs/decisions/0032).  The methods are those of `pathlib.Path`, and both can be
mixed: either may be joined to the other and compared with it.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Callable, Iterator

_SEP = os.sep
_DOUBLE = _SEP * 2
_HERE = f"{_SEP}.{_SEP}"
_ENDS = (_SEP, f"{_SEP}.")
# Errors of a path that leads nowhere: those of `pathlib`, and a name that no file can have.
_NOWHERE = (errno.ENOENT, errno.ENOTDIR, errno.EBADF, errno.ELOOP, errno.ENAMETOOLONG)


def _tidy(text: str) -> str:
    """Return a path without empty and `.` parts; `..` stays, since what it means depends on links."""
    if os.altsep:
        text = text.replace(os.altsep, _SEP)
    drive, rest = os.path.splitdrive(text)
    parts = [part for part in rest.split(_SEP) if part not in ("", ".")]
    return f"{drive}{_SEP if rest.startswith(_SEP) else ''}{_SEP.join(parts)}" or "."


def _text_of(path: str | os.PathLike[str]) -> str:
    text = os.fspath(path)
    if not isinstance(text, str):
        raise TypeError(f"a path is a str, not {type(text).__name__}")
    return text


class Path:
    """The path of a file or folder.  Immutable; what it names need not exist."""

    __slots__ = ("_text",)

    def __init__(self, path: str | os.PathLike[str]) -> None:
        text = _text_of(path)
        # Most paths are tidy already.
        tidy = text.startswith(_SEP) and not text.endswith(_ENDS) and not os.altsep
        if not tidy or _DOUBLE in text or _HERE in text:
            text = _tidy(text)
        self._text = text

    def __fspath__(self) -> str:
        return self._text

    def __str__(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return f"Path({self._text!r})"

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Path):
            return self._text == other._text
        return isinstance(other, os.PathLike) and self._text == os.fspath(other)

    def __hash__(self) -> int:
        # As `pathlib.Path` does, so that equal paths of both kinds are one key.
        text = self._text.lower() if os.name == "nt" else self._text  # there they are equal in any case
        return hash(text if sys.version_info >= (3, 12) else Path(text).parts)

    def __lt__(self, other: Path) -> bool:
        """Order by the parts, so that what is in a folder follows it."""
        return self.parts < other.parts if hasattr(other, "parts") else NotImplemented

    def __gt__(self, other: Path) -> bool:
        """See `__lt__`; `pathlib.Path` compares itself by this."""
        return self.parts > other.parts if hasattr(other, "parts") else NotImplemented

    def __truediv__(self, other: str | os.PathLike[str]) -> Path:
        text = _text_of(other)
        return Path(text if os.path.isabs(text) else f"{self._text}{_SEP}{text}")

    # --- its parts -------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """The last part; empty for a root and for the current folder."""
        found = os.path.basename(self._text)
        return "" if found == "." else found

    @property
    def suffix(self) -> str:
        """The suffix of the name with its dot, if it has one."""
        name = self.name
        at = name.rfind(".")
        return name[at:] if 0 < at < len(name) - 1 else ""

    @property
    def parent(self) -> Path:
        """The folder; of a root and of the current folder, the same path."""
        return Path(os.path.dirname(self._text) or ".") if self.name else self

    @property
    def parents(self) -> Iterator[Path]:
        """The folders above, the nearest first."""
        place = self
        while (above := place.parent) != place:
            yield above
            place = above

    @property
    def parts(self) -> tuple[str, ...]:
        """The names on the way, beginning with the root of an absolute path."""
        drive, rest = os.path.splitdrive(self._text)
        root = (drive + _SEP,) if rest.startswith(_SEP) else ()
        return (*root, *(part for part in rest.split(_SEP) if part not in ("", ".")))

    def with_name(self, name: str) -> Path:
        """Return the path of another name in the same folder.  Raises: ValueError unless it is one name."""
        if not self.name or name in ("", ".") or _SEP in name:
            raise ValueError(f"{self._text!r} cannot be named {name!r}")
        return self.parent / name

    def is_absolute(self) -> bool:
        """Whether it begins at a root."""
        return os.path.isabs(self._text)

    def is_relative_to(self, other: str | os.PathLike[str]) -> bool:
        """Whether this is `other` or below it, by the text alone."""
        above = Path(other).parts
        return self.parts[: len(above)] == above if above else not self.is_absolute()

    def relative_to(self, other: str | os.PathLike[str]) -> Path:
        """Return the path from a folder to this one below it.  Raises: ValueError if it is not below."""
        if not self.is_relative_to(other):
            raise ValueError(f"{self._text!r} is not below {os.fspath(other)!r}")
        return Path(_SEP.join(self.parts[len(Path(other).parts) :]))

    def as_posix(self) -> str:
        """Return the text with `/` between the parts."""
        return self._text.replace(_SEP, "/")

    # --- what it names ---------------------------------------------------------------------------

    def stat(self) -> os.stat_result:
        """Return `os.stat`, which follows links."""
        return os.stat(self._text)

    def exists(self) -> bool:
        """Whether it leads to anything.  Raises: PermissionError and the like if that is unknown."""
        return self._is(lambda mode: True)  # noqa: ARG005

    def is_dir(self) -> bool:
        """Whether it leads to a folder.  Raises: as `exists`."""
        return self._is(stat.S_ISDIR)

    def is_file(self) -> bool:
        """Whether it leads to a regular file.  Raises: as `exists`."""
        return self._is(stat.S_ISREG)

    def is_symlink(self) -> bool:
        """Whether it is a link.  Raises: as `exists`."""
        return self._is(stat.S_ISLNK, follow=False)

    def _is(self, says: Callable[[int], bool], *, follow: bool = True) -> bool:
        try:
            return says(os.stat(self._text, follow_symlinks=follow).st_mode)
        except OSError as error:
            if error.errno not in _NOWHERE:
                raise
        except ValueError:  # a NUL in it
            pass
        return False

    def resolve(self) -> Path:
        """Return the absolute path without links."""
        return Path(os.path.realpath(self._text))
