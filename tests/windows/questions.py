"""The questions that Wine cannot answer, answered on a real Windows machine.

    python -m tests.windows.questions [FOLDER]

Runs in a new folder, in FOLDER if that is given: try one on NTFS, and one with a virus scanner that is on.
Prints yes, no and what was seen; exits with 1 if an answer differs from what `store.native` assumes
(docs/decisions/0035).  On other systems it answers what applies there.
"""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from yarnstore.errors import StorageError
from yarnstore.store import folders, fsio, fsread, native
from yarnstore.store.filepath import Path as StorePath

WINDOWS = sys.platform == "win32"
HELD_S = 3.0


@contextmanager
def held_by_another(path: Path, seconds: float) -> Iterator[None]:
    """Let another program have a file open, as most programs do: without letting others remove it."""
    code = (
        "import sys, time; f = open(sys.argv[1], 'rb'); print(1, flush=True); time.sleep(float(sys.argv[2]))"
    )
    command = [sys.executable, "-c", code, str(path), str(seconds)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield
        finally:
            process.kill()


def replaces_what_is_open(folder: Path) -> str:
    """Is a file replaced and removed while this program has it open?"""
    old, new = folder / "old", folder / "new"
    old.write_bytes(b"old")
    new.write_bytes(b"new")
    fd = native.open_file(old, os.O_RDONLY | native.NOFOLLOW)
    try:
        native.replace(new, old)
        assert old.read_bytes() == b"new", "the name still leads to the old file"
        assert native.pread(fd, 3, 0) == b"old", "the open file lost its bytes"
        native.unlink(old)
        assert not old.exists(), "the name stays"
        old.write_bytes(b"again")
    finally:
        os.close(fd)
    return "replaced, removed and made again while it was open"


def waits_for_a_scanner(folder: Path) -> str:
    """Is a file replaced that another program holds for some seconds, as a virus scanner does?"""
    target, new = folder / "target", folder / "new"
    target.write_bytes(b"old")
    new.write_bytes(b"new")
    with held_by_another(target, HELD_S):
        started = time.monotonic()
        native.replace(new, target)
        took_s = time.monotonic() - started
    assert target.read_bytes() == b"new"
    if WINDOWS:
        assert took_s > HELD_S / 2, f"it was not held: replaced after {took_s:.1f} s"
    return f"replaced after {took_s:.1f} s, held for {HELD_S:g} s"


def refuses_to_move_a_folder_in_use(folder: Path) -> str:
    """Is the folder of a model kept that a program has open, mapped too, and is that said as `in use`?"""
    place = folder / "store" / "views" / "v"
    place.mkdir(parents=True)
    (place / "model.bin").write_bytes(b"m" * 65_536)
    folders.add_root(StorePath(folder / "store"))
    with open(place / "model.bin", "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ):
        try:
            fsio.rename(StorePath(place), StorePath(place.with_name("gone")))
        except StorageError as error:
            refused = error
        else:
            refused = None
    if refused is not None:
        assert fsread.is_in_use(refused), f"it is not known as in use: {refused.__cause__!r}"
        return f"kept: {refused.message}"
    assert not WINDOWS, "the folder was renamed although a file in it was open"
    return "renamed, and the open file stays readable, as on every POSIX system"


def uses_long_paths(folder: Path) -> str:
    """Do paths of more than 260 characters work, whatever the setting LongPathsEnabled is?"""
    root = folder / "long"
    place = root
    while len(str(place)) < 400:
        place /= "d" * 40
    folders.add_root(StorePath(root))
    path, other = StorePath(place / "file"), StorePath(place / "other")
    fsio.write_atomic(path, b"content", tmp_dir=StorePath(place / "tmp"))
    assert fsread.read_bytes(path, 100) == b"content"
    assert fsio.try_link(path, other), "no hard link"
    assert fsread.list_names(StorePath(place)) == ["file", "other", "tmp"]
    fsio.remove(path)
    fsio.remove_tree(StorePath(root))
    assert not root.exists()
    return f"written, linked, listed and removed at {len(str(path))} characters"


def does_without_symlinks(folder: Path) -> str:
    """Are links refused, rather than made and not there, and do hard links keep files read-only?"""
    source, linked = folder / "source", folder / "linked"
    source.write_bytes(b"bytes")
    fsio.set_mode(StorePath(source), fsio.READ_ONLY_MODE)
    made = fsio.swap_link(StorePath(folder / "link"), "source", tmp_dir=StorePath(folder / "tmp"))
    assert made == os.path.lexists(folder / "link"), "a link is said to be made, and is not there"
    assert fsio.try_link(StorePath(source), StorePath(linked)), "no hard link"
    fsio.remove(StorePath(source))
    assert not os.stat(linked).st_mode & 0o200, "removing one name made the other writable"
    return f"symlinks: {'yes' if made else 'no'}; hard links: yes, and they stay read-only"


QUESTIONS: tuple[Callable[[Path], str], ...] = (
    replaces_what_is_open,
    waits_for_a_scanner,
    refuses_to_move_a_folder_in_use,
    uses_long_paths,
    does_without_symlinks,
)


def main(folder: str | None) -> int:
    """Ask all questions; return how many answers differ."""
    differing = 0
    with tempfile.TemporaryDirectory(dir=folder, ignore_cleanup_errors=True) as made:
        for number, question in enumerate(QUESTIONS, 1):
            place = Path(made) / str(number)
            place.mkdir()
            print(f"{number}. {question.__doc__}")
            try:
                print(f"   yes: {question(place)}", flush=True)
            except (AssertionError, OSError, StorageError) as error:
                differing += 1
                print(f"   NO: {type(error).__name__}: {error}", flush=True)
    return differing


if __name__ == "__main__":
    sys.exit(1 if main(sys.argv[1] if len(sys.argv) > 1 else None) else 0)
