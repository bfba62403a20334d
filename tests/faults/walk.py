"""Random walks: operations on a store in any order, killed or damaged, and what must hold after each.

A walk is a list of `Op`, made from a seed alone, so that it can be repeated, and shortened to what fails:

    python -m tests.faults.walk SEED [STEPS] [nolinks]     # repeat a walk, and print the shortest that fails

After each step, with no registry to be had:

- each stored version is exported: it has the bytes of its source.  Only that may be missing of which a
  flipped bit took the last copy, and the error names it; nothing is ever wrong, and later no more is missing;
- what is installed is what the last command said, or, after a kill, what it was before or would have become;
  its files are those of the source;
- installed and pinned versions are in the store;
- `du` says what the files and folders take, and `fsck` finds what was flipped, and nothing else.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from tests.faults.forks import die_at
from tests.support.fine_tunes import tune, weights
from tests.support.small_stores import noise
from tests.support.stores import copy_tree, flip, memory_folder, remove_tree, tree_hashes
from yarnstore import Store
from yarnstore.core.digest import Sha256
from yarnstore.errors import ConflictError, NotFoundError, UsageError, YarnstoreError
from yarnstore.registry.policies import Retention
from yarnstore.results import Problem, RemoveResult
from yarnstore.store import hashed
from yarnstore.store.layout import StoreLayout

VERSIONS = ("1.0.0", "1.1.0", "1.2.0")
# Of the registry: one whose weights move a little, and one of which a part of each version is another.
TUNED, PARTS = "tuned", "parts"
MINE = "mine"  # imported
MODELS = (TUNED, PARTS, MINE)
_WEIGHTS = 200_000
# A kill comes before one of so many calls that change something; few commands make more.
_CALLS = 160

Version = tuple[str, str]


class RefutedError(AssertionError):
    """Something does not hold."""


@dataclass(frozen=True)
class Op:
    """A step: `seed` decides what it chooses; `kill` is the call before which it is killed, 0 for none."""

    name: str
    seed: int
    kill: int = 0


# How often each is chosen.
_OPS = {
    "install": 14, "update": 6, "fetch": 5, "rollback": 7, "remove": 3, "restore": 2, "pin": 3, "unpin": 2,
    "import": 4, "gc": 14, "slim": 4, "settings": 6, "unplug": 2, "plug": 5, "drop": 2, "undrop": 2,
    "move": 2, "flip": 7, "repair": 8, "path": 3, "hold": 2, "let go": 3,
}  # fmt: skip
# Those that change the store in steps.
_KILLABLE = {
    "install",
    "update",
    "fetch",
    "rollback",
    "remove",
    "restore",
    "import",
    "gc",
    "slim",
    "move",
    "repair",
}


def make_ops(seed: int, count: int) -> list[Op]:
    pick = random.Random(seed)
    names = pick.choices(list(_OPS), list(_OPS.values()), k=count)
    return [
        Op(
            name,
            pick.randrange(1 << 30),
            pick.randint(1, _CALLS) if name in _KILLABLE and pick.random() < 0.25 else 0,
        )
        for name in names
    ]


@dataclass(frozen=True)
class Published:
    """A registry and the sources of all versions, made once for many walks."""

    root: Path
    hashes: dict[Version, dict[str, str]]

    @property
    def registry(self) -> Path:
        return self.root / "registry"

    def source(self, model: str, version: str) -> Path:
        return self.root / "sources" / model / version


def publish(root: Path) -> Published:
    bits, part, same = weights(1, _WEIGHTS), noise(1, 900_000), noise(2, 100_000)
    made = Published(root, {})
    for n, version in enumerate(VERSIONS):
        middle = noise(n + 10, 100_000)
        trees = {
            TUNED: {"tuned.bin": bits.tobytes(), "same.bin": same},
            PARTS: {"parts.bin": part[:400_000] + middle + part[500_000:], "same.bin": same},
            MINE: {
                "mine.bin": tune(bits, n + 20).tobytes(),
                "same.bin": same,
                "own.bin": noise(n + 30, 70_000),
            },
        }
        for model, files in trees.items():
            folder = made.source(model, version)
            folder.mkdir(parents=True)
            (folder / "config.json").write_text(json.dumps({"model": model, "version": version}))
            for name, data in files.items():
                (folder / name).write_bytes(data)
            made.hashes[model, version] = tree_hashes(folder)
            if model != MINE:
                Store.publish(folder, f"{model}@{version}", registry=made.registry, deltas=1)
        bits = tune(bits, n + 3)
    return made


@dataclass
class Walk:
    """A store, and what is known of it."""

    published: Published
    root: Path
    installed: dict[str, str] = field(default_factory=dict)
    pinned: set[Version] = field(default_factory=set)
    # The versions that can be exported while something is damaged; None: nothing is.
    sound: set[Version] | None = None
    retention: Retention = field(default_factory=Retention)
    plugged: bool = True
    dropped: set[Version] = field(default_factory=set)
    removed: RemoveResult | None = None
    reader: Store | None = None
    read: tuple[Path, Version] | None = None
    unlinked: set[str] = field(default_factory=set)  # models of which a kill may have come before the link
    # Versions that have a second copy in packs since the last gc.
    copied: set[Version] = field(default_factory=set)
    moves: int = 0

    def __post_init__(self) -> None:
        copy_tree(self.published.registry, self.registry)
        with self.store() as store:
            store.add_registry("made", self.registry)

    @property
    def home(self) -> Path:
        return self.root / "home"

    @property
    def registry(self) -> Path:
        return self.root / "registry"

    def store(self) -> Store:
        store = Store.open(self.home)
        store.settings = msgspec.structs.replace(
            store.settings, retention=self.retention, lock_timeout_s=20.0, home=store.settings.home
        )
        return store

    def close(self) -> None:
        if self.reader is not None:
            self.reader.close()

    # --- steps ---------------------------------------------------------------------------------

    def step(self, op: Op) -> str:
        """Do a step and check everything.  Returns what was done."""
        act: Callable[[random.Random], Done] = getattr(self, f"_{op.name.replace(' ', '_')}")
        before, stored = dict(self.installed), self.stored()
        done = act(random.Random(op.seed))
        text = done.text
        if done.run is not None:
            outcome = self._killed(op.kill, done) if op.kill else self._run(done)
            text = f"{text}: {outcome}"
            if outcome == "killed":
                self.unlinked |= set(done.may_install)
                self._after_kill(done, before)
            elif outcome == "done":
                self.unlinked -= set(done.may_install) if done.links else set()
        now = self.stored()
        if not done.deletes and not stored <= now:
            raise RefutedError(f"{text}: {sorted(stored - now)} went")
        self.check(text)
        return text

    def _run(self, done: Done) -> str:
        assert done.run is not None
        try:
            with self.store() as store:
                result = done.run(store)
        except YarnstoreError as error:
            self._refused(done, error)
            return f"{type(error).__name__} {error.message}"
        if done.after is not None:
            done.after(result)
        return "done"

    def _refused(self, done: Done, error: YarnstoreError) -> None:
        usual = isinstance(error, (NotFoundError, ConflictError, UsageError)) and not done.must
        if not usual and self.sound is None:
            raise RefutedError(f"{done.text}: {error!r}") from error
        if done.needs is not None and done.needs in (self.sound or ()):
            raise RefutedError(f"{done.text}: {error!r}, although its bytes are there") from error

    def _killed(self, at: int, done: Done) -> str:
        """Run in another process, which ends before the call number `at` that changes something."""
        reading, writing = os.pipe()
        child, leave = os.fork(), os._exit
        if not child:
            os.close(reading)
            code, text = 1, ""
            try:
                die_at(at)
                with self.store() as store:
                    assert done.run is not None
                    done.run(store)
                code = 0
            except YarnstoreError as error:
                code, text = 2, f"{type(error).__name__} {error.message}"
            except BaseException as error:  # noqa: BLE001
                text = repr(error)
            finally:
                os.write(writing, text.encode()[:4000])
                leave(code)
        os.close(writing)
        with os.fdopen(reading) as pipe:
            text = pipe.read()
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if code == 1:
            raise RefutedError(f"{done.text}: {text}")
        if code == 2 and self.sound is None and done.must:
            raise RefutedError(f"{done.text}: {text}")
        return "killed"  # if it ended, that is one of what a kill may leave

    def _after_kill(self, done: Done, before: dict[str, str]) -> None:
        now = self.installed_now()
        for model in MODELS:
            allowed = {before.get(model), *done.may_install.get(model, ())}
            if now.get(model) not in allowed:
                raise RefutedError(
                    f"{done.text}: killed, and {model} {now.get(model)} is installed, not {allowed}"
                )
        self.installed = now
        self.pinned &= set(self.stored()) if done.unpins else self.pinned
        self.copied = set()
        if done.deletes:
            self.removed = None

    # --- what is there -------------------------------------------------------------------------

    def _digests(self) -> dict[str, Version]:
        """The version of each manifest that a ref names."""
        root = self.home / "refs" / "versions"
        return {path.read_text().strip(): (path.parts[-3], path.name) for path in root.glob("*/*/*")}

    def stored(self) -> set[Version]:
        root = self.home / "refs" / "versions"
        return {(path.parts[-3], path.name) for path in root.glob("*/*/*")}

    def installed_now(self) -> dict[str, str]:
        names = self._digests()
        found = {}
        for path in (self.home / "refs" / "installed").glob("*"):
            text = path.read_text().strip()
            if text not in names:
                raise RefutedError(f"{path.name}: what is installed is not in the store")
            found[path.name] = names[text][1]
        return found

    def offered(self, version: Version) -> bool:
        return self.plugged and version[0] != MINE and version not in self.dropped

    # --- checks --------------------------------------------------------------------------------

    def check(self, text: str) -> None:
        stored = self.stored()
        lost = {(model, version) for model, version in self.installed.items()} | self.pinned
        if not lost <= stored:
            raise RefutedError(
                f"{text}: {sorted(lost - stored)} is installed or pinned, and not in the store"
            )
        if self.installed_now() != self.installed:
            raise RefutedError(f"{text}: installed is {self.installed_now()}, not {self.installed}")
        there = self._exportable(text)
        if self.sound is None and there != stored:
            raise RefutedError(f"{text}: {sorted(stored - there)} is lost")
        if self.sound is not None:
            gone = (self.sound & stored) - there
            if gone:
                raise RefutedError(f"{text}: {sorted(gone)} is lost, of which a sound copy was there")
            self.sound = there
        else:
            self._check_served(text)
            self._check_fsck(text)
        if self.read is not None and self.sound is None:
            path, version = self.read
            if tree_hashes(path) != self.published.hashes[version]:
                raise RefutedError(f"{text}: the open view of {version} changed")
        self._check_du(text)

    @contextlib.contextmanager
    def _offline(self) -> Iterator[None]:
        away = self.registry.rename(self.registry.with_name("away"))
        try:
            yield
        finally:
            away.rename(self.registry)

    def _exportable(self, text: str) -> set[Version]:
        """The versions whose bytes the store alone can give."""
        found = set()
        with self._offline(), self.store() as store:
            for model, version in sorted(self.stored()):
                out, notes = self.root / "out", list[str]()
                try:
                    store.export(
                        f"{model}@{version}",
                        f"{out}/",
                        progress=lambda event, to=notes: to.append(event.text),
                    )
                except YarnstoreError as error:
                    self._names_it(text, (model, version), error, notes)
                else:
                    if tree_hashes(out) != self.published.hashes[model, version]:
                        raise RefutedError(f"{text}: {model}@{version} has other bytes")
                    found.add((model, version))
                shutil.rmtree(out, ignore_errors=True)
        return found

    def _names_it(self, text: str, version: Version, error: YarnstoreError, notes: list[str]) -> None:
        said = " ".join([error.message, error.hint or "", str(error.fields), *notes])
        names = [*version, *self.published.hashes[version], "chunk", "manifest"]
        if not any(name in said for name in names):
            raise RefutedError(f"{text}: {version}: {error!r} does not say what is lost")

    def _check_served(self, text: str) -> None:
        for model, version in self.installed.items():
            place = self.home / "models" / model
            if model in self.unlinked and not place.exists():
                continue
            served = tree_hashes(place)
            if served != self.published.hashes[model, version] and model not in self.unlinked:
                raise RefutedError(f"{text}: models/{model} is not {version}")

    def _check_fsck(self, text: str) -> None:
        with self.store() as store:
            found = store.fsck().problems
        wrong = [item for item in found if not (self.unlinked and item.kind in ("link", "state"))]
        if wrong:
            raise RefutedError(f"{text}: fsck finds {wrong}")

    def _check_du(self, text: str) -> None:
        try:
            with self.store() as store:
                told = store.storage().total_bytes
        except YarnstoreError as error:
            if self.sound is None:
                raise RefutedError(f"{text}: du: {error!r}") from error
            return
        seen = {}
        for folder, _, names in os.walk(os.path.realpath(self.home)):
            for place in (folder, *(os.path.join(folder, name) for name in names)):
                stat = os.lstat(place)
                seen[stat.st_ino] = stat.st_blocks * 512
        if abs(told - sum(seen.values())) > 0.01 * told:
            raise RefutedError(f"{text}: du says {told}, and it is {sum(seen.values())}")

    # --- operations ----------------------------------------------------------------------------

    def _install(self, pick: random.Random, how: str = "install") -> Done:
        model, version = pick.choice(MODELS), pick.choice(VERSIONS)
        wait = pick.random() < 0.7
        there = (model, version) in self.stored()
        must = there or self.offered((model, version))

        def after(_: object) -> None:
            self.installed[model] = version
            self._apply_retention()

        return Done(
            f"{how} {model}@{version} wait={wait}",
            lambda store: store.checkout(f"{model}@{version}", wait=wait),
            after,
            links=True,
            deletes=self.retention.is_set,
            must=must,
            needs=(model, version) if there else None,
            may_install={model: {version}},
        )

    def _apply_retention(self) -> None:
        self.copied = set()

    def _update(self, pick: random.Random) -> Done:
        model, wait = pick.choice((TUNED, PARTS)), pick.random() < 0.7

        def after(result: object) -> None:
            self.installed[model] = getattr(result, "version")  # noqa: B009
            self._apply_retention()

        return Done(
            f"update {model} wait={wait}",
            lambda store: store.update_model(model, wait=wait),
            after,
            links=True,
            deletes=self.retention.is_set,
            may_install={model: set(VERSIONS)},
        )

    def _fetch(self, pick: random.Random) -> Done:
        model, version = pick.choice((TUNED, PARTS)), pick.choice(VERSIONS)
        must = self.offered((model, version))
        return Done(f"fetch {model}@{version}", lambda store: store.fetch(f"{model}@{version}"), must=must)

    def _rollback(self, pick: random.Random) -> Done:
        model = pick.choice(MODELS)

        def after(result: object) -> None:
            self.installed[model] = getattr(result, "version")  # noqa: B009
            self._apply_retention()

        return Done(
            f"rollback {model}",
            lambda store: store.rollback_model(model),
            after,
            links=True,
            may_install={model: set(VERSIONS)},
        )

    def _remove(self, pick: random.Random) -> Done:
        model, version, whole = pick.choice(MODELS), pick.choice(VERSIONS), pick.random() < 0.2

        def after(result: object) -> None:
            assert isinstance(result, RemoveResult)
            self.removed = result
            if whole:
                self.installed.pop(model, None)
                self.pinned = {item for item in self.pinned if item[0] != model}

        return Done(
            f"remove {model}" + ("" if whole else f"@{version}"),
            lambda store: store.remove(model if whole else f"{model}@{version}", whole_model=whole),
            after,
            deletes=True,
            unpins=whole,
            may_install={model: {None}} if whole else {},
        )

    def _restore(self, pick: random.Random) -> Done:
        removed, self.removed = self.removed, None
        if removed is None:
            return Done("restore: nothing")

        def after(_: object) -> None:
            self.installed = self.installed_now()

        return Done(
            f"restore {removed.model}",
            lambda store: store.restore(removed),
            after,
            may_install={removed.model: set(VERSIONS)},
        )

    def _pin(self, pick: random.Random) -> Done:
        version = (pick.choice(MODELS), pick.choice(VERSIONS))
        return Done(
            f"pin {version}",
            lambda store: store.pin("@".join(version)),
            lambda _: self.pinned.add(version),
        )

    def _unpin(self, pick: random.Random) -> Done:
        if not self.pinned:
            return Done("unpin: nothing")
        version = pick.choice(sorted(self.pinned))
        return Done(
            f"unpin {version}",
            lambda store: store.unpin("@".join(version)),
            lambda _: self.pinned.discard(version),
            must=True,
        )

    def _import(self, pick: random.Random) -> Done:
        version = pick.choice(VERSIONS)
        source = self.published.source(MINE, version)
        must = (MINE, version) not in self.stored()
        return Done(
            f"import {MINE}@{version}",
            lambda store: store.import_model(source, f"{MINE}@{version}"),
            must=must,
        )

    def _gc(self, pick: random.Random) -> Done:
        keep = pick.choice((0, 1, 2, 3))
        thin = pick.choice((None, None, "*", *self.installed))
        options = {
            "keep": keep,
            "thin": thin,
            "grace_s": pick.choice((0.0, 0.0, None)),
            "repack": pick.random() < 0.2,
            "max_size_bytes": pick.choice((None, None, None, 2_000_000)),
            "unused_s": pick.choice((None, None, None, 0.0)),
        }

        def after(_: object) -> None:
            self.removed = None
            self.copied = {item for item in self.stored() if self._keeps_copy(item)}

        text = ", ".join(f"{name}={value}" for name, value in options.items() if value is not None)
        return Done(f"gc {text}", lambda store: store.gc(**options), after, deletes=True, must=True)  # type: ignore[arg-type]

    def _keeps_copy(self, version: Version) -> bool:
        how = self.retention.keep_copy
        return how == "always" or (how == "imports" and not self.offered(version))

    def _slim(self, pick: random.Random) -> Done:
        return Done("slim", lambda store: store.slim(), must=True)

    def _settings(self, pick: random.Random) -> Done:
        self.retention = Retention(
            keep=pick.choice((None, None, None, 0, 1, 2)),
            keep_copy=pick.choice(("imports", "imports", "always", "never")),
            rollback=pick.choice(("instant", "thin")),
            rollback_of=pick.choice(({}, {PARTS: "thin"}, {TUNED: "instant"})),  # type: ignore[arg-type]
        )
        self.copied = set()
        return Done(f"settings {self.retention}")

    def _unplug(self, pick: random.Random) -> Done:
        if not self.plugged:
            return Done("unplug: nothing")
        self.plugged = False
        self.copied = set()
        return Done("unplug", lambda store: store.remove_registry("made"), must=True)

    def _plug(self, pick: random.Random) -> Done:
        if self.plugged:
            return Done("plug: nothing")
        self.plugged = True
        return Done("plug", lambda store: store.add_registry("made", self.registry), must=True)

    def _drop(self, pick: random.Random) -> Done:
        self.dropped.add((pick.choice((TUNED, PARTS)), pick.choice(VERSIONS)))
        return self._list_anew()

    def _undrop(self, pick: random.Random) -> Done:
        self.dropped.clear()
        return self._list_anew()

    def _list_anew(self) -> Done:
        """Let the registry list all versions but the dropped ones."""
        self.copied = set()
        found = json.loads((self.published.registry / "registry.json").read_bytes())
        for model, version in self.dropped:
            del found["models"][model]["versions"][version]
            found["models"][model].pop("current_version", None)
        (self.registry / "registry.json").write_text(json.dumps(found))
        text = f"the registry lacks {sorted(self.dropped)}"
        if not self.plugged:
            return Done(text)
        return Done(text, lambda store: store.refresh_registries(), must=True)

    def _move(self, pick: random.Random) -> Done:
        self.moves += 1
        target = self.root / f"disk{self.moves}"
        return Done(f"move {target.name}", lambda store: store.move(target), must=self.reader is None)

    def _path(self, pick: random.Random) -> Done:
        version = (pick.choice(MODELS), pick.choice(VERSIONS))
        there = version in self.stored()
        return Done(
            f"path {version}",
            lambda store: store.path("@".join(version)),
            must=there,
            needs=version if there else None,
        )

    def _hold(self, pick: random.Random) -> Done:
        """A program has a view open."""
        self._let_go(pick)
        stored = sorted(self.stored())
        if not stored or self.sound is not None:
            return Done("hold: nothing")
        version = pick.choice(stored)
        self.reader = self.store()
        self.read = Path(os.path.realpath(self.reader.path("@".join(version)))), version
        return Done(f"hold {version}")

    def _let_go(self, pick: random.Random) -> Done:
        self.close()
        self.reader = self.read = None
        return Done("let go")

    def _flip(self, pick: random.Random) -> Done:
        """Flip a bit of a file or a pack; of files often as a disk does that rots unseen."""
        folder = pick.choice(("files", "files", "views", "packs", "packs"))
        files = sorted(
            path
            for path in Path(os.path.realpath(self.home / folder)).rglob("*")
            if path.is_file() and not path.is_symlink() and path.stat().st_size and path.suffix != ".view"
            and (path.suffix != ".idx" or pick.random() < 0.2)
        )  # fmt: skip
        if not files:
            return Done("flip: nothing")
        place = pick.choice(files)
        same = [path for path in files if path.stat().st_ino == place.stat().st_ino]
        before = self._exportable("before a flip")
        self._let_go(pick)
        flip(place, pick.randrange(place.stat().st_size), 1 << pick.randrange(8))
        text = f"flip {place.relative_to(os.path.realpath(self.home))}"
        if pick.random() < 0.5 and place.suffix == "":
            layout = StoreLayout(self.home)
            for digest in {path.name.partition(".")[0] for path in same if path.parent.name == "files"}:
                with contextlib.suppress(YarnstoreError):
                    hashed.note_hashed(layout, Sha256.parse(digest), os.lstat(place))
            text += ", unseen"
        with self.store() as store:
            found = store.fsck().problems
        there = self._exportable(text)
        if folder != "packs":
            lost = (self.copied & before) - there
            if lost:
                raise RefutedError(f"{text}: {sorted(lost)} had no second copy")
        self._check_found(text, place, found, before - there)
        self.sound = there
        self.copied = set()
        return Done(text)

    def _check_found(self, text: str, place: Path, found: list[Problem], lost: set[Version]) -> None:
        if not found:
            raise RefutedError(f"{text}: fsck finds nothing")
        if self.sound is not None:
            return  # earlier damage is there too
        inode = place.stat().st_ino
        for item in found:
            where = self.home / item.where
            if item.kind in ("chunk", "link", "state") or place.is_relative_to(where.resolve()):
                continue
            if not where.exists() or where.stat().st_ino != inode:
                raise RefutedError(f"{text}: fsck finds {item}")
        hurt = {name for item in found for name in item.hurts}
        missing = {f"{model} {version}" for model, version in lost} - hurt
        if missing:
            raise RefutedError(f"{text}: fsck does not say that {missing} are lost: {found}")
        chunks = {name for item in found if item.kind == "chunk" for name in item.hurts}
        beyond = chunks - {f"{model} {version}" for model, version in lost}
        if beyond:
            raise RefutedError(f"{text}: fsck says that {beyond} are lost, and they are not: {found}")

    def _repair(self, pick: random.Random) -> Done:
        def after(result: object) -> None:
            # A repair of a damaged store may not know what a link leads to.
            self.unlinked = {
                name for name in self.installed if not (self.home / "models" / name).is_symlink()
            }
            remaining = result.remaining  # type: ignore[attr-defined]
            if self.sound is None:
                if remaining:
                    raise RefutedError(f"repair of a sound store leaves {remaining}")
                return
            there = self._exportable("repair")
            lost = {item for item in self.stored() - there if self.offered(item)}
            if lost:
                raise RefutedError(
                    f"repair: {sorted(lost)} is in the registry, and was not repaired: {result}"
                )
            # Views of deleted versions are not made again; gc deletes them.
            hurting = [item for item in remaining if item.hurts or item.kind != "view"]
            if bool(hurting) != bool(self.stored() - there):
                raise RefutedError(f"repair: {self.stored() - there} is lost, and {remaining} remains")
            if not remaining:
                self.sound = None

        return Done("repair", lambda store: store.fsck(repair=True), after, must=True)


@dataclass(frozen=True)
class Done:
    """What a step does: `run` with a store, then `after` with the result."""

    text: str
    run: Callable[[Store], object] | None = None
    after: Callable[[object], None] | None = None
    deletes: bool = False  # whether it may delete versions
    unpins: bool = False
    links: bool = False  # whether it sets the links of models anew
    must: bool = False  # whether nothing but damage may stop it
    needs: Version | None = None  # the stored version that it needs
    may_install: dict[str, set[str | None]] | dict[str, set[str]] = field(default_factory=dict)


# --- walks -------------------------------------------------------------------------------------


def walk(published: Published, ops: list[Op], say: Callable[[str], object] = lambda _: None) -> int:
    """Do the steps on a new store, and return how many.  Raises: RefutedError if anything does not hold."""
    root = memory_folder()
    made = Walk(published, root)
    try:
        for op in ops:
            say(f"{op}: {made.step(op)}")
    finally:
        made.close()
        remove_tree(root)
    return len(ops)


def failure(published: Published, ops: list[Op]) -> str | None:
    """What does not hold in a walk, None if all does."""
    try:
        walk(published, ops)
    except RefutedError as error:
        return str(error)
    except YarnstoreError as error:
        return repr(error)
    return None


def shorten(published: Published, ops: list[Op], say: Callable[[str], object]) -> list[Op]:
    """Leave out steps, and kills, as long as the walk still fails."""
    size = max(1, len(ops) // 2)
    while size:
        at = 0
        while at < len(ops):
            fewer = [*ops[:at], *ops[at + size :]]
            if failure(published, fewer) is not None:
                ops = fewer
                say(f"{len(ops)} steps")
            else:
                at += size
        size //= 2
    for n, op in enumerate(ops):
        alive = [*ops[:n], Op(op.name, op.seed), *ops[n + 1 :]]
        if op.kill and failure(published, alive) is not None:
            ops = alive
    return ops


def main(seed: int, steps: int, *, links: bool) -> int:
    from tests.faults import no_links

    root = memory_folder()
    try:
        with contextlib.nullcontext() if links else no_links.refused():
            published = publish(root)
            ops = make_ops(seed, steps)
            told = failure(published, ops)
            if told is None:
                print("nothing found")
                return 0
            print(told)
            short = shorten(published, ops, print)
            with contextlib.suppress(RefutedError):
                walk(published, short, print)
            print(failure(published, short), short, sep="\n")
            return 1
    finally:
        remove_tree(root)


if __name__ == "__main__":
    words = [word for word in sys.argv[1:] if word != "nolinks"]
    numbers = [*map(int, words), 0, 100][:2] if len(words) < 2 else list(map(int, words))
    sys.exit(main(numbers[0], numbers[1] or 100, links="nolinks" not in sys.argv))
