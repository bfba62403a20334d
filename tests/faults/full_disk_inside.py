"""What runs inside the user namespace of `test_full_disk`: stores on file systems that are too small.

    python full_disk_inside.py tmpfs REGISTRY MOUNTPOINT SIZE_KIB…
    python full_disk_inside.py straight REGISTRY MOUNTPOINT SIZE_KIB…
    python full_disk_inside.py read-only HOME OUT
    python full_disk_inside.py hints SOURCE MOUNTPOINT
    python full_disk_inside.py disks HOME SPEC

Prints one JSON line for each thing that was not as it should be, and a last line with the counts.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.support.stores import MODEL, problems, tree_hashes, ystore
from yarnstore import Store
from yarnstore.cli.exitcodes import exit_code
from yarnstore.errors import StorageError, YarnstoreError
from yarnstore.store import fsread

Steps = Sequence[tuple[str, Callable[[Store], object]]]
_STEPS: Steps = (
    ("fetch 1.0.0", lambda store: store.fetch(f"{MODEL}@1.0.0")),
    ("checkout 1.0.0", lambda store: store.checkout(f"{MODEL}@1.0.0")),
    ("checkout 1.1.0", lambda store: store.checkout(f"{MODEL}@1.1.0")),
    ("checkout 1.2.0", lambda store: store.checkout(f"{MODEL}@1.2.0")),
    ("rollback", lambda store: store.rollback_model(MODEL)),
)
# Installs alone, so that files are the only place of what they brought.
_STRAIGHT: Steps = (
    ("checkout 1.0.0", lambda store: store.checkout(f"{MODEL}@1.0.0")),
    ("update", lambda store: store.update_model(MODEL)),
    ("gc --thin", lambda store: store.gc(keep=2, thin="*", grace_s=0)),
    ("rollback", lambda store: store.rollback_model(MODEL)),
    ("gc", lambda store: store.gc(keep=2)),
)
_counts: Counter[str] = Counter()


def complain(**what: object) -> None:
    _counts["faults"] += 1
    print(json.dumps(what, default=str))


def full_disks(steps: Steps, registry: Path, mountpoint: Path, sizes_kib: list[int]) -> None:
    for n, size in enumerate(sizes_kib):
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}k", "none", mountpoint], check=True)
        try:
            # Every other time the space goes after it was counted, as when another process takes it.
            _one_disk(steps, registry, mountpoint, size, preflight=n % 2 == 0)
        finally:
            subprocess.run(["umount", mountpoint], check=True)


def _one_disk(steps: Steps, registry: Path, disk: Path, size: int, *, preflight: bool) -> None:
    real = fsread.require_space
    if not preflight:
        fsread.require_space = lambda *_: None
    home = disk / "home"
    try:
        store = Store.open(home)
        try:
            store.add_registry("made", registry)
        except StorageError:
            _counts["no room to begin"] += 1
            return
        for name, step in steps:
            _try(store, name, step, size)
            found = problems(home)
            if found:
                complain(size=size, step=name, fsck=found)
        fill(disk / "filler")
        if os.statvfs(disk).f_bavail:
            complain(size=size, what="the disk is not full")
        _try(store, "gc on a full disk", lambda store: store.gc(keep=0), size, must=True)
        (disk / "filler").unlink()
        found = problems(home)
        if found:
            complain(size=size, fsck_after_gc=found)
    finally:
        fsread.require_space = real


def _try(store: Store, name: str, step: object, size: int, *, must: bool = False) -> None:
    try:
        step(store)  # type: ignore[operator]
        _counts["done"] += 1
    except StorageError as error:
        _counts["refused"] += 1
        if must or exit_code(error) != 7:
            complain(size=size, step=name, error=error)
    except YarnstoreError as error:
        if not (name in ("rollback", "update") and error.code == "not-found"):
            complain(size=size, step=name, error=repr(error))
    except Exception as error:  # noqa: BLE001 - that is what is looked for
        complain(size=size, step=name, untyped=repr(error))


def fill(path: Path) -> None:
    """Take every byte that is free."""
    with path.open("wb", buffering=0) as file:
        for block in (1 << 20, 4096, 1):
            try:
                while file.write(b"x" * block):
                    pass
            except OSError:
                pass


_READS = (
    ("list",), ("log", MODEL), ("path", MODEL), ("path", f"{MODEL}@1.0.0"), ("status",), ("fsck",),
    ("search",), ("show", MODEL), ("outdated",), ("registry", "list"),
)  # fmt: skip
_WRITES = (
    ("fetch", f"{MODEL}@1.2.0"), ("checkout", f"{MODEL}@1.2.0"), ("checkout", f"{MODEL}@1.0.0"),
    ("update", MODEL), ("rollback", MODEL), ("gc", "--keep", "0"), ("remove", f"{MODEL}@1.0.0"),
    ("pin", f"{MODEL}@1.0.0"), ("registry", "remove", "made"),
)  # fmt: skip


def read_only(home: Path, out: Path) -> None:
    subprocess.run(["mount", "--bind", home, home], check=True)
    subprocess.run(["mount", "-o", "remount,ro,bind", home], check=True)
    environment = {"YSTORE_HOME": str(home)}
    for words, right in [(words, 0) for words in _READS] + [(words, 7) for words in _WRITES]:
        done = _run(words, home, environment)
        _counts["runs"] += 1
        if done.returncode != right or "Traceback" in done.stderr:
            complain(words=words, code=done.returncode, right=right, stderr=done.stderr[-400:])
    done = _run(("export", f"{MODEL}@1.0.0", str(out)), home, environment)
    if done.returncode or not tree_hashes(out):
        complain(words="export", code=done.returncode, stderr=done.stderr[-400:])


def _run(words: tuple[str, ...], home: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    if words[0] == "registry":
        return subprocess.run(
            [sys.executable, "-m", "yarnstore", *words], env={**os.environ, **environment},
            capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
    return ystore(home, *words)


def hints(source: Path, disk: Path) -> None:
    """`gc` frees space in the store alone: an error that a registry's disk is full does not name it."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "none", disk], check=True)
    for place, words in (
        ("registry", ("publish", str(source), "m@1.0.0", "--registry", str(disk / "registry"))),
        ("store", ("import", str(source), "m@1.0.0")),
    ):
        done = ystore(disk / "home", *words)
        _counts["refused"] += done.returncode == 7
        if done.returncode != 7 or ("gc --dry-run" in done.stderr) != (place == "store"):
            complain(words=words, code=done.returncode, stderr=done.stderr)
        shutil.rmtree(disk / "registry", ignore_errors=True)


def other_disks(home: Path, spec: Path) -> None:
    """With `trash/` on a disk of its own, gc works; with `views/` there, an install says what is wrong."""
    for folder in ("trash", "views"):
        (home / folder).mkdir(exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "none", home / folder], check=True)
        if folder == "trash":
            done = ystore(home, "gc", "--thin", "--grace", "0", "--json")
            if done.returncode or json.loads(done.stdout)["freed_bytes"] < 300_000 or problems(home):
                complain(what="gc", code=done.returncode, out=done.stdout, stderr=done.stderr)
            left = [str(path) for place in ("trash", "views") for path in (home / place).iterdir()]
            if len(left) != 1:  # the view of the installed version
                complain(what="left behind", left=left)
        else:
            done = ystore(home, "checkout", str(spec))
            if done.returncode != 7 or "must be on one disk" not in done.stderr:
                complain(what="checkout", code=done.returncode, stderr=done.stderr)
        report = ystore(home, "doctor").stdout
        if f"{folder}/ is on another disk" not in report:
            complain(what="doctor", report=report)
        subprocess.run(["umount", home / folder], check=True)
        _counts["runs"] += 1
    if problems(home):
        complain(what="fsck", problems=problems(home))


if __name__ == "__main__":
    steps = {"tmpfs": _STEPS, "straight": _STRAIGHT}.get(sys.argv[1])
    if steps is not None:
        full_disks(steps, Path(sys.argv[2]), Path(sys.argv[3]), [int(size) for size in sys.argv[4:]])
    else:
        inside = {"read-only": read_only, "hints": hints, "disks": other_disks}[sys.argv[1]]
        inside(Path(sys.argv[2]), Path(sys.argv[3]))
    print(json.dumps(_counts))
