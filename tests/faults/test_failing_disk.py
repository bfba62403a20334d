"""What a disk does that fails in part: a sync in the background, a line cut short, no space at all."""

from __future__ import annotations

import os
import random
import resource
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.faults.scenarios import SCENARIOS, prepared_site
from tests.faults.tracing import points, require_strace, trace
from tests.support.servers import ScriptedServer, files
from tests.support.stores import MODEL, command, make_site, problems, quiet_env, refs_of, ystore
from yarnstore import Store
from yarnstore.errors import DiskFullError

# More than is written before a sync begins in the background.
_LARGE_BYTES = 40 << 20


def test_a_background_sync_that_fails_is_an_error(tmp_path: Path) -> None:
    """The last sync may succeed after it: the kernel has told of the lost pages once already."""
    require_strace()
    home, source = tmp_path / "home", tmp_path / "m.bin"
    source.write_bytes(random.Random(1).randbytes(_LARGE_BYTES))
    done = subprocess.run(
        [
            "strace", "-f", "-qq", "-o", os.devnull, "-e", "trace=fdatasync",
            "-e", "inject=fdatasync:error=EIO",
            *command(home, "import", source, "m@1.0.0"),
        ],
        env={**os.environ, **quiet_env()}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 7, done
    assert "Traceback" not in done.stderr
    assert refs_of(home) == {}
    assert list((home / "packs").glob("*.pack")) == []


def test_a_line_of_the_log_that_is_written_in_part_moves_nothing(tmp_path: Path) -> None:
    """`write` may take less than it was given and say no more: the rest must be tried, and fail."""
    site = make_site(tmp_path, versions=("1.0.0", "1.1.0"))
    log = site.home / "logs" / "installed" / MODEL
    with site.store() as store:
        while not log.exists() or log.stat().st_size < 30_000:  # larger than any other file to be written
            for version in site.versions:
                store.checkout(f"{MODEL}@{version}")
        store.path(MODEL)
    before, size = refs_of(site.home), log.stat().st_size
    done = subprocess.run(
        command(site.home, "rollback", MODEL),
        env={**os.environ, **quiet_env()},
        # SIGXFSZ is ignored by Python: the limit is first a short write, and then an error.
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size + 10, size + 10)),
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 7, done
    assert "Traceback" not in done.stderr
    assert refs_of(site.home) == before
    assert ystore(site.home, "rollback", MODEL).returncode == 0
    assert problems(site.home) == []


def test_gc_deletes_refs_before_what_they_name(tmp_path: Path) -> None:
    """A crash in between leaves something that nobody needs, and never a version that lacks its bytes."""
    require_strace()
    site = prepared_site(tmp_path, SCENARIOS["gc"])
    before = set((site.home / "packs").iterdir()) | set((site.home / "manifests").iterdir())
    with site.store() as store:
        # One that shares no chunk with what stays, so that its pack goes whole.
        (tmp_path / "other.bin").write_bytes(random.Random(2).randbytes(100_000))
        store.import_model(tmp_path / "other.bin", "other@1.0.0")
    others = (set((site.home / "packs").iterdir()) | set((site.home / "manifests").iterdir())) - before
    calls = points(trace(command(site.home, "gc", "--keep", "0"), tmp_path / "trace"), site.home)
    gone: dict[str, list[int]] = {}
    for n, call in enumerate(calls):
        if call.name.startswith(("rename", "unlink")):
            place = os.path.relpath(call.paths[0], site.home).split(os.sep)
            gone.setdefault("/".join(place[:2]) if place[0] == "refs" else place[0], []).append(n)
            if site.home / call.paths[0] in others:
                gone.setdefault(f"other's {place[0]}", []).append(n)
    for below in ("manifests", "packs"):
        assert max(gone["refs/versions"]) < min(gone[below]), below
    # A manifest whose files are the place of another version's chunks stays until they have another.
    assert max(gone["other's manifests"]) < min(gone["other's packs"])


@pytest.mark.parametrize("command_", ["fetch", "checkout"])
def test_a_download_that_does_not_fit_is_refused_before_it_begins(
    command_: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = make_site(tmp_path, versions=("1.0.0",))
    tree = {
        path.relative_to(site.registry).as_posix(): path.read_bytes()
        for path in site.registry.rglob("*")
        if path.is_file()
    }
    with ScriptedServer(files(tree)) as server, Store.open(tmp_path / "other") as store:
        store.add_registry("made", server.url)
        monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(total=1 << 30, free=200_000))
        with pytest.raises(DiskFullError) as caught:
            getattr(store, command_)(f"{MODEL}@1.0.0")
        assert caught.value.fields["needed_bytes"] > 700_000
        assert not [seen.path for seen in server.seen if seen.path.endswith(".pack")]
    assert list((store.home / "packs").glob("*")) == []
    assert refs_of(store.home) == {}
