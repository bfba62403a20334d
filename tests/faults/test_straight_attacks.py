"""Installs that write straight into their files, where drafts are the only place of what arrived: damaged
drafts, two processes, another variant, and other content under the same version."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.servers import Reply, ScriptedServer, Seen, files, throttled
from tests.support.stores import (
    MODEL,
    Site,
    assert_serves,
    assert_whole,
    command,
    copy_tree,
    flip,
    make_site,
    make_version,
    problems,
    quiet_env,
    tree_hashes,
)
from yarnstore import Store
from yarnstore.errors import BackendError, IntegrityError

SPEC = f"{MODEL}@1.0.0"


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return make_site(tmp_path_factory.mktemp("published"), versions=("1.0.0", "1.1.0"))


@pytest.fixture
def site(published: Site, tmp_path: Path) -> Site:
    """A registry of its own, and an empty store."""
    copy_tree(published.registry, tmp_path / "registry")
    return replace(published, registry=tmp_path / "registry", home=tmp_path / "home")


def tree_of(registry: Path) -> dict[str, bytes]:
    found = [path for path in registry.rglob("*") if path.is_file()]
    return {path.relative_to(registry).as_posix(): path.read_bytes() for path in found}


class Breaking:
    """A server whose packs come in part, once, while `broken`."""

    def __init__(self, registry: Path) -> None:
        self.broken = True
        self._asked = False
        self._serve = files(tree_of(registry))

    def __call__(self, seen: Seen) -> Reply:
        if not self.broken or not seen.path.endswith(".pack"):
            return self._serve(seen)
        asked, self._asked = self._asked, True
        return Reply(status=404) if asked else replace(self._serve(seen), cut_at=600_000)


@pytest.fixture
def server(site: Site) -> Iterator[ScriptedServer]:
    with ScriptedServer([]) as server, Store.open(site.home) as store:
        server.rescript(Breaking(site.registry))
        store.add_registry("made", server.url)
        yield server


def begin(site: Site, server: ScriptedServer, spec: str = SPEC) -> Path:
    """Install until the connection breaks; the draft that was kept.  The server is well afterwards."""
    breaking = Breaking(site.registry)
    server.rescript(breaking)
    with site.store() as store, pytest.raises((BackendError, IntegrityError)):
        store.checkout(spec)
    breaking.broken = False
    drafts = sorted((site.home / "tmp").glob("*.draft"), key=lambda path: path.stat().st_size)
    assert drafts, "nothing came: the test says nothing"
    return drafts[-1]


def finish(site: Site, spec: str = SPEC) -> int:
    """Install, and check everything; how many bytes came."""
    with site.store() as store:
        done = store.checkout(spec)
    assert_serves(site.home, site, spec.partition("@")[2])
    assert_whole(site.home, site)
    return done.download_bytes


# --- drafts that changed between two runs ----------------------------------------------------------------


def _cut(draft: Path) -> None:
    os.truncate(draft, draft.stat().st_size // 2)


def _grow(draft: Path) -> None:
    with draft.open("ab") as file:
        file.write(b"x" * 2_000_000)


def _shift(draft: Path) -> None:
    draft.write_bytes(b"x" + draft.read_bytes())


def _swap(draft: Path) -> None:
    draft.write_bytes(bytes(reversed(draft.read_bytes())))


def _read_only(draft: Path) -> None:
    draft.chmod(0o444)


def _gone(draft: Path) -> None:
    draft.unlink()


_CHANGES = {
    "flip": lambda draft: [flip(draft, at) for at in range(0, draft.stat().st_size, 50_000)],
    "cut": _cut,
    "grow": _grow,
    "shift": _shift,
    "swap": _swap,
    "read-only": _read_only,
    "gone": _gone,
}


@pytest.mark.parametrize("how", list(_CHANGES))
def test_a_draft_that_changed_costs_what_it_had_and_no_more(
    how: str, site: Site, server: ScriptedServer
) -> None:
    _CHANGES[how](begin(site, server))
    assert problems(site.home) == []
    finish(site)
    assert not list((site.home / "tmp").glob("*.draft"))


def _link(draft: Path, outside: Path) -> None:
    draft.symlink_to(outside)


def _hard_link(draft: Path, outside: Path) -> None:
    os.link(outside, draft)


def _folder(draft: Path, outside: Path) -> None:
    draft.mkdir()


def _pipe(draft: Path, outside: Path) -> None:
    os.mkfifo(draft)


@pytest.mark.parametrize("plant", [_link, _folder, _pipe])
def test_gc_deletes_what_is_in_the_place_of_a_draft_and_is_no_file(
    plant: Callable[[Path, Path], None], tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.touch()
    with Store.open(tmp_path / "home") as store:
        store.import_model(outside, "mine@1.0.0")
        for name in (f"{'0a' * 32}.draft", f"{'0b' * 32}.download"):
            plant(store.home / "tmp" / name, outside)
        store.gc()
        assert not list((store.home / "tmp").iterdir())
    assert outside.exists()


@pytest.mark.parametrize("plant", [_link, _folder, _pipe])
def test_what_is_in_the_place_of_a_draft_is_no_file(
    plant: Callable[[Path, Path], None], site: Site, server: ScriptedServer, tmp_path: Path
) -> None:
    """Nothing is written through a link, and nothing waits for a pipe."""
    outside = tmp_path / "outside"
    outside.write_bytes(b"of the user")
    draft = begin(site, server)
    draft.unlink()
    plant(draft, outside)
    words = command(site.home, "checkout", SPEC)
    environment = {**os.environ, **quiet_env()}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done
    finish(site)
    assert outside.read_bytes() == b"of the user"


def test_a_damaged_draft_of_a_file_that_came_whole_is_not_trusted(site: Site, server: ScriptedServer) -> None:
    """As a kill leaves it between the last chunk and the file's name."""
    server.rescript(files(tree_of(site.registry)))
    finish(site)
    place = max((site.home / "files").iterdir(), key=lambda path: path.stat().st_size)
    draft = site.home / "tmp" / f"{place.name}.draft"
    data = place.read_bytes()
    with site.store() as store:
        store.remove(MODEL, whole_model=True)
        store.gc(keep=0, grace_s=0)
    assert not place.exists()
    draft.write_bytes(data)
    flip(draft, len(data) // 2)
    assert 0 < finish(site) < len(data)


# --- another version, another variant, other content ------------------------------------------------------


@pytest.mark.parametrize("other", [f"{MODEL}@1.1.0", f"{MODEL}:small@1.0.0"])
def test_another_version_is_installed_before_the_draft_is_finished(
    other: str, site: Site, server: ScriptedServer, tmp_path: Path
) -> None:
    """It shares chunks with the draft; both are whole in the end, and the draft has not lost its part."""
    small = make_version(tmp_path / "small", "1.0.0")
    (small / "config.json").write_text("small\n")
    Store.publish(small, f"{MODEL}:small@1.0.0", registry=site.registry)
    begin(site, server)
    server.rescript(files(tree_of(site.registry)))
    with site.store() as store:
        store.refresh_registries()
        store.checkout(other)
        if ":" in other:
            assert tree_hashes(Path(store.path(MODEL))) == tree_hashes(small)
        store.gc(keep=3)
        whole = sum(path.stat().st_size for path in site.source("1.0.0").rglob("*"))
        assert store.checkout(f"{MODEL}:default@1.0.0").download_bytes < whole - 300_000
        assert tree_hashes(Path(store.path(MODEL))) == site.contents("1.0.0")
    assert problems(site.home) == []


@pytest.mark.parametrize("same_file", [True, False])
def test_a_version_has_other_content_when_its_install_goes_on(
    same_file: bool, site: Site, server: ScriptedServer, tmp_path: Path
) -> None:
    """Nothing of it was installed, so the new content is taken, and nothing of the old is in it."""
    begin(site, server)
    changed = make_version(tmp_path / "changed", "1.0.0")
    if same_file:
        (changed / "config.json").write_text("changed\n")
    else:
        (changed / "model.bin").write_bytes(os.urandom(700_000))
    registry = tmp_path / "changed-registry"
    Store.publish(changed, SPEC, registry=registry)
    server.rescript(files(tree_of(registry)))
    with site.store() as store:
        store.refresh_registries()
        store.checkout(SPEC)
        assert tree_hashes(Path(store.path(MODEL))) == tree_hashes(changed)
        assert store.fsck().problems == []
        store.gc()
        assert store.fsck().problems == []


# --- two processes ---------------------------------------------------------------------------------------


def _install_at_once(site: Site, specs: tuple[str, ...], *, kill_s: float | None = None) -> None:
    """Install in as many processes at once, of which the first is killed after a while."""
    environment = {**os.environ, **quiet_env()}
    with ScriptedServer(throttled(tree_of(site.registry), pause_s=0.01)) as server:
        with Store.open(site.home) as store:
            store.add_registry("made", server.url)
        running = [
            subprocess.Popen(
                command(site.home, "checkout", spec),
                env=environment,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
            for spec in specs
        ]
        for n, process in enumerate(running):
            if n == 0 and kill_s is not None:
                try:
                    process.wait(kill_s)
                except subprocess.TimeoutExpired:
                    process.kill()
            err = process.communicate(timeout=300)[1]
            assert process.returncode == 0 or (n == 0 and kill_s is not None), err
        assert problems(site.home) == []
        for spec in set(specs):
            finish(site, spec)
        with Store.open(site.home) as store:
            store.gc(keep=3)
        assert_whole(site.home, site)
        assert not list((site.home / "tmp").glob("*.file"))


def test_a_slower_process_leaves_no_draft_of_a_file_that_another_made(site: Site, tmp_path: Path) -> None:
    serve, go_on, asked = files(tree_of(site.registry)), threading.Event(), threading.Event()

    def answer(seen: Seen) -> Reply:
        """The first pack stops in the middle."""
        reply = serve(seen)
        if not seen.path.endswith(".pack") or asked.is_set() or not isinstance(reply.body, bytes):
            return reply
        asked.set()
        middle = len(reply.body) * 3 // 4
        return replace(reply, body=[reply.body[:middle], reply.body[middle:]], pause_s=600, hurry=go_on)

    with ScriptedServer(answer) as server, ThreadPoolExecutor(1) as pool:
        with Store.open(site.home) as store:
            store.add_registry("made", server.url)
        slow = pool.submit(lambda: Store.open(site.home).checkout(SPEC))
        assert asked.wait(300)
        deadline = time.monotonic() + 300
        while not list((site.home / "tmp").glob("*.draft")):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        with Store.open(site.home) as store:
            store.checkout(SPEC)
        go_on.set()
        slow.result()
    assert not list((site.home / "tmp").iterdir())
    assert_whole(site.home, site)
    # As a kill leaves it that comes then: it is of no use to anybody.
    place = max((site.home / "files").iterdir(), key=lambda path: path.stat().st_size)
    (site.home / "tmp" / f"{place.name}.draft").write_bytes(place.read_bytes())
    with Store.open(site.home) as store:
        store.gc()
    assert not list((site.home / "tmp").iterdir())


_PAIRS = [(SPEC, SPEC), (SPEC, f"{MODEL}@1.1.0")]


@pytest.mark.parametrize("specs", _PAIRS)
def test_two_processes_install_at_once(specs: tuple[str, ...], site: Site) -> None:
    _install_at_once(site, specs)


@pytest.mark.deep
@pytest.mark.parametrize("specs", _PAIRS)
def test_two_processes_install_at_once_and_one_is_killed(
    specs: tuple[str, ...], site: Site, tmp_path: Path
) -> None:
    for n in range(25):
        _install_at_once(replace(site, home=tmp_path / f"home{n}"), specs, kill_s=0.4 + 0.08 * n)
