"""T2's model: the states in which a power failure may leave the disk while a command runs.

`record` traces a command with the bytes that it writes; `Disk` replays the calls and knows at each what is
synced; `states` yields what may be there if the power fails then.  The rules are those of a file system that
keeps what POSIX promises and no more, except that a rename never loses the file:

- bytes of a file since its last sync are there, or not, or as zeros, or in part;
- names of a folder since its last sync are there or not, each by itself, whatever order they were made in;
- a rename from folder to folder is two changes, and the old name goes only if the new one is there.

`tmp/` and `trash/` are never synced on purpose: all their changes, none, or some of them are there.
"""

from __future__ import annotations

import copy
import hashlib
import os
import random
import re
import stat
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Literal

from tests.faults.tracing import MUTATING, Call, parse_trace, strace

_DATA = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')
_HEX = re.compile(r"(?:\\x[0-9a-f]{2})+")
_LOOSE = ("tmp", "trash", ".tmp")
# So many changes of names are combined in every way; of more, each one alone is there or missing.
_ALL_WAYS = 4

How = Literal["written", "lost", "zeros", "torn"]
HOWS: tuple[How, ...] = ("written", "lost", "zeros", "torn")
Id = int


def record(words: Sequence[str], log: Path) -> tuple[list[Call], list[bytes]]:
    """Run a command to its end; its calls, and the bytes that `"#n"` stands for in those that write."""
    done = strace(words, log, MUTATING, ["-y", "-xx", "-s", str(1 << 26)])
    assert done.returncode == 0, done.stderr
    blobs: list[bytes] = []

    def plain(line: str) -> str:
        if re.match(r"\d+ +p?write", line):
            found = _DATA.search(line)
            if found is not None:
                blobs.append(bytes.fromhex(found[1].replace("\\x", "")))
                line = f'{line[: found.start()]}"#{len(blobs) - 1}"{line[found.end() :]}'
        return _HEX.sub(lambda text: os.fsdecode(bytes.fromhex(text[0].replace("\\x", ""))), line)

    with log.open() as lines:
        return parse_trace("\n".join(plain(line.rstrip("\n")) for line in lines)), blobs


@dataclass(eq=False)
class _Change:
    """A change of one name in a folder; the removal of a rename has the `addition` that must be there."""

    folder: Id
    name: str
    inode: Id | None
    addition: _Change | None = None


@dataclass
class _Inode:
    kind: Literal["file", "folder", "link"]
    mode: int = 0o644
    target: str = ""
    data: bytearray = field(default_factory=bytearray)
    durable: bytes = b""
    # (offset, bytes), or (size, None) for a new size, since the last sync
    unsynced: list[tuple[int, bytes | None]] = field(default_factory=list)
    names: dict[str, Id] = field(default_factory=dict)  # of a folder, now
    durable_names: dict[str, Id] = field(default_factory=dict)


# A state: every path below the root, with its inode's number, and a file's bytes or a link's target.
State = dict[str, tuple[Id, _Inode, bytes]]


class Disk:
    """What is below a folder, now and durably, as calls change it."""

    def __init__(self, root: Path) -> None:
        self.root = str(root)
        self.inodes: list[_Inode] = []
        self.pending: list[_Change] = []
        self._known: dict[tuple[int, int], Id] = {}
        self._top = self._read(root)

    def _read(self, path: Path) -> Id:
        found = path.lstat()
        key = (found.st_dev, found.st_ino)
        if key in self._known:
            return self._known[key]
        inode = _Inode("file", stat.S_IMODE(found.st_mode))
        number = self._known[key] = self._add(inode)
        if stat.S_ISLNK(found.st_mode):
            inode.kind, inode.target = "link", os.readlink(path)
        elif stat.S_ISDIR(found.st_mode):
            inode.kind = "folder"
            inode.names = {name: self._read(path / name) for name in sorted(os.listdir(path))}
            inode.durable_names = dict(inode.names)
        else:
            inode.data = bytearray(path.read_bytes())
            inode.durable = bytes(inode.data)
        return number

    def _add(self, inode: _Inode) -> Id:
        self.inodes.append(inode)
        return len(self.inodes) - 1

    # --- replaying -----------------------------------------------------------------------------

    def see(self, call: Call, blobs: Sequence[bytes]) -> bool:
        """Replay a call that succeeded; whether it changed anything below the root, or synced it."""
        names = re.findall(r'"([^"]*)"', call.text)
        descriptor = re.match(r"\d+<([^>]*)>", call.text)
        path = descriptor[1] if descriptor else ""
        if call.name in ("write", "pwrite64"):
            inode = self._find(path)
            if inode is None:
                return False
            data = blobs[int(names[0][1:])][: call.result]
            at = int(call.text.rpartition(", ")[2]) if call.name == "pwrite64" else len(inode.data)
            self._write(inode, at, data)
        elif call.name == "ftruncate":
            inode = self._find(path)
            if inode is None:
                return False
            self._write(inode, int(call.text.rpartition(", ")[2]), None)
        elif call.name in ("fsync", "fdatasync"):
            return self._sync(path)
        elif call.name == "openat":
            return self._open(names[-1], call.text)
        elif call.name in ("rename", "renameat", "renameat2"):
            return self._rename(*names, exchange="RENAME_EXCHANGE" in call.text)
        elif call.name in ("link", "linkat"):
            return self._name(names[1], self._number(names[0]))
        elif call.name in ("symlink", "symlinkat"):
            return self._name(names[1], self._add(_Inode("link", target=names[0])))
        elif call.name in ("mkdir", "mkdirat"):
            return self._name(names[0], self._add(_Inode("folder", 0o755)))
        elif call.name in ("unlink", "unlinkat", "rmdir"):
            return self._name(names[-1], None)
        elif call.name == "fchmod":
            inode = self._find(path)
            if inode is not None:
                inode.mode = int(call.text.rpartition(", ")[2], 8)
            return False  # protects, and no more
        else:
            raise AssertionError(f"the model does not know {call}")
        return True

    def _number(self, path: str) -> Id | None:
        if path != self.root and not path.startswith(self.root + "/"):
            return None
        number = self._top
        for name in path[len(self.root) + 1 :].split("/") if path != self.root else []:
            inode = self.inodes[number]
            if inode.kind == "link":  # of the store's root
                found = self._number(inode.target)
                if found is None:
                    return None
                inode = self.inodes[found]
            if name not in inode.names:
                return None
            number = inode.names[name]
        return number

    def _find(self, path: str) -> _Inode | None:
        number = self._number(path)
        return None if number is None else self.inodes[number]

    @staticmethod
    def _write(inode: _Inode, at: int, data: bytes | None) -> None:
        inode.unsynced.append((at, data))
        _apply(inode.data, at, data)

    def _sync(self, path: str) -> bool:
        number = self._number(path)
        if number is None:
            return False
        inode = self.inodes[number]
        inode.durable, inode.unsynced = bytes(inode.data), []
        for change in [change for change in self.pending if change.folder == number]:
            self._settle(change)
        return True

    def _settle(self, change: _Change) -> None:
        """Make a change durable, with those of the same name before it, and with what must be there."""
        if change not in self.pending:
            return
        before = self.pending[: self.pending.index(change) + 1]
        for other in before:
            if (other.folder, other.name) == (change.folder, change.name) and other in self.pending:
                self.pending.remove(other)
                if other.addition is not None:
                    self._settle(other.addition)
                _rename_in(self.inodes[other.folder].durable_names, other)

    def _open(self, path: str, text: str) -> bool:
        there = self._find(path)
        if there is None:
            return "O_CREAT" in text and self._name(path, self._add(_Inode("file")))
        if "O_TRUNC" in text and there.data:
            self._write(there, 0, None)
            return True
        return False

    def _name(self, path: str, inode: Id | None, addition: _Change | None = None) -> bool:
        folder, _, name = path.rpartition("/")
        number = self._number(folder)
        if number is None:
            return False
        while self.inodes[number].kind == "link":
            number = self._number(self.inodes[number].target)
            assert number is not None
        change = _Change(number, name, inode, addition)
        self.pending.append(change)
        _rename_in(self.inodes[number].names, change)
        return True

    def _rename(self, source: str, target: str, *, exchange: bool) -> bool:
        number, other = self._number(source), self._number(target)
        if number is None:
            return False
        if exchange:  # of two names in one folder: one change of both
            self._name(target, number)
            self._name(source, other, self.pending[-1])
            self.pending[-2].addition = self.pending[-1]
            return True
        if number == other:  # two names of one file stay, says POSIX
            return False
        self._name(target, number)
        self._name(source, None, self.pending[-1])
        if self.pending[-1].folder == self.pending[-2].folder:
            self.pending[-2].addition = self.pending[-1]
        return True

    # --- states --------------------------------------------------------------------------------

    def state(self, kept: Collection[int], how: dict[Id, How]) -> State:
        """What is there if of the pending changes those at `kept` are, and of the files' bytes what `how`
        says (else `written`)."""
        names = [dict(inode.durable_names) for inode in self.inodes]
        there = {id(self.pending[n]) for n in kept}
        for n in sorted(kept):
            change = self.pending[n]
            if change.addition is None or id(change.addition) in there or self._is_settled(change.addition):
                _rename_in(names[change.folder], change)
        found: State = {}

        def walk(number: Id, path: str) -> None:
            inode = self.inodes[number]
            if inode.kind == "folder":
                found[path] = number, inode, b""
                for name, child in names[number].items():
                    walk(child, f"{path}/{name}" if path else name)
            elif inode.kind == "link":
                found[path] = number, inode, inode.target.encode()
            else:
                found[path] = number, inode, _bytes(inode, how.get(number, "written"))

        walk(self._top, "")
        return found

    def now(self) -> dict[str, bytes]:
        """Every path below the root as it is now, with its bytes."""
        found = self.state(range(len(self.pending)), {})
        return {path: data for path, (_, _, data) in found.items() if path}

    def _is_settled(self, change: _Change) -> bool:
        return not any(change is other for other in self.pending)

    def _synced_folders(self) -> set[Id]:
        """The folders whose names count: not those in `tmp/` and `trash/`, nor removed ones."""
        found: set[Id] = set()
        todo = [self._top]
        while todo:
            number = todo.pop()
            if self.inodes[number].kind == "folder":
                found.add(number)
                todo += [child for name, child in self.inodes[number].names.items() if name not in _LOOSE]
        return found

    def states(self, pick: random.Random) -> Iterator[State]:
        """What may be there if the power fails now; some twice."""
        synced = self._synced_folders()
        firm = [n for n, change in enumerate(self.pending) if change.folder in synced]
        loose = [n for n, change in enumerate(self.pending) if change.folder not in synced]
        some = [n for n in loose if pick.random() < 0.5]
        unsynced = [n for n, inode in enumerate(self.inodes) if inode.unsynced]
        hows: list[dict[Id, How]] = [dict.fromkeys(unsynced, how) for how in HOWS]
        for n in unsynced if len(unsynced) > 1 else ():
            hows += [{n: "lost"}, {other: "lost" for other in unsynced if other != n}]
        for kept, beside, how in product(_ways(firm), (loose, [], some), hows if unsynced else [{}]):
            yield self.state([*kept, *beside], how)


def _apply(target: bytearray, at: int, data: bytes | None) -> None:
    if data is None:
        target[at:] = b"" if at <= len(target) else bytes(at - len(target))
        return
    if at > len(target):
        target += bytes(at - len(target))
    target[at : at + len(data)] = data


def _rename_in(names: dict[str, Id], change: _Change) -> None:
    if change.inode is None:
        names.pop(change.name, None)
    else:
        names[change.name] = change.inode


def _bytes(inode: _Inode, how: How) -> bytes:
    if how == "written" or not inode.unsynced:
        return bytes(inode.data)
    if how == "lost":
        return inode.durable
    data = bytearray(inode.durable)
    if how == "zeros":  # the sizes are there, the bytes are not
        for at, part in inode.unsynced:
            size = at if part is None else max(len(data), at + len(part))
            _apply(data, size, None)
        return bytes(data)
    for at, part in inode.unsynced[:-1]:
        _apply(data, at, part)
    at, part = inode.unsynced[-1]
    _apply(data, at, part if part is None else part[: len(part) // 2])
    return bytes(data)


def _ways(changes: list[int]) -> list[list[int]]:
    """Which of some changes are there."""
    if len(changes) <= _ALL_WAYS:
        masks = product((True, False), repeat=len(changes))
        return [[n for n, there in zip(changes, mask, strict=True) if there] for mask in masks]
    alone = [[n] for n in changes]
    without = [[other for other in changes if other != n] for n in changes]
    begun = [changes[:n] for n in range(len(changes) + 1)]
    return [*begun, *alone, *without]


def states(
    disk: Disk, calls: Sequence[Call], blobs: Sequence[bytes], pick: random.Random
) -> Iterator[tuple[Call, State, bool]]:
    """Replay calls on the disk before them, and yield each different state that a power failure may leave:
    after which call, what is there, and whether the command had ended."""
    seen: set[bytes] = set()
    last = None
    for last in replay(disk, calls, blobs):
        for state in disk.states(pick):
            if is_new(state, seen):
                yield last, state, False
    assert last is not None
    for state in end_states(disk, pick):
        yield last, state, True


def end_states(disk: Disk, pick: random.Random) -> Iterator[State]:
    """Yield each different state that a power failure may leave after the last call that was replayed."""
    seen: set[bytes] = set()
    for state in disk.states(pick):
        if is_new(state, seen):
            yield state


def some_states(
    disk: Disk, calls: Sequence[Call], blobs: Sequence[bytes], pick: random.Random, count: int
) -> Iterator[tuple[Call, State, bool]]:
    """As `states`, but one state after each of `count` calls, the last among them."""
    changing = list(replay(copy.deepcopy(disk), calls, blobs))
    chosen = {id(call) for call in [*pick.sample(changing[:-1], count - 1), changing[-1]]}
    for call in replay(disk, calls, blobs):
        if id(call) in chosen:
            yield call, pick.choice(list(disk.states(pick))), call is changing[-1]


def replay(disk: Disk, calls: Sequence[Call], blobs: Sequence[bytes]) -> Iterator[Call]:
    """Replay calls, and yield each after which the disk is another one, or another part of it is synced."""
    for call in calls:
        if call.result >= 0 and disk.see(call, blobs):
            yield call


def is_new(state: State, seen: set[bytes]) -> bool:
    """Whether a state is not among those `seen`, to which it is added."""
    mark = _mark(state)
    if mark in seen:
        return False
    seen.add(mark)
    return True


def _mark(state: State) -> bytes:
    hashed = hashlib.blake2b()
    for path in sorted(state):
        number, inode, data = state[path]
        hashed.update(f"{path}\0{number}\0{inode.kind}\0{len(data)}\0".encode())
        if inode.unsynced or inode.kind == "link":  # else the number says it
            hashed.update(data)
        else:
            hashed.update(hash(inode.durable).to_bytes(8, "little", signed=True))
    return hashed.digest()


def put(state: State, root: Path) -> None:
    """Make a state at a folder, which is empty or missing."""
    made: dict[Id, Path] = {}
    folders = []
    for path in sorted(state):
        number, inode, data = state[path]
        place = root / path if path else root
        if inode.kind == "folder":
            place.mkdir(parents=True, exist_ok=True)
            folders.append((place, inode.mode))
        elif number in made:
            os.link(made[number], place, follow_symlinks=False)
        elif inode.kind == "link":
            place.symlink_to(data.decode())
            made[number] = place
        else:
            place.write_bytes(data)
            place.chmod(inode.mode)
            made[number] = place
    for place, mode in reversed(folders):
        place.chmod(mode)


def tree(root: Path) -> dict[str, bytes]:
    """Every path below a folder, with its bytes: what the model must have at the end."""
    found = {}
    for path in root.rglob("*"):
        name = path.relative_to(root).as_posix()
        if path.is_symlink():
            found[name] = os.readlink(path).encode()
        else:
            found[name] = path.read_bytes() if path.is_file() else b""
    return found
