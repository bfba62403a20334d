"""What is typed wrong, what is quiet, and sizes in errors."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from tests.cli.conftest import Ystore
from tests.support.servers import ScriptedServer, files
from yarnstore.progress import format_part, format_sizes


@pytest.mark.parametrize(
    "command", ["publish {} m@1.0.0 --registry {}/../own --changelog x", "import {} m@1.0.0"]
)
@pytest.mark.parametrize("folder", ["", "a:b"])
def test_a_name_that_cannot_be_published_is_a_usage_error(
    ystore: Ystore, tmp_path: Path, command: str, folder: str
) -> None:
    source = tmp_path / "source"
    (source / folder).mkdir(parents=True)
    (source / folder / "a:b").write_text("1")
    told = ystore(*command.format(source, source).split())
    assert told.code == 2
    assert "a:b" in told.err
    assert "rename it" in told.err.splitlines()[-1]


@pytest.mark.parametrize("wanted", ["9.0.0", "^9", ">=9"])
def test_an_update_into_a_range_that_nothing_matches_is_not_found(installed: Ystore, wanted: str) -> None:
    told = installed("update", "phi-3-mini", "--to", wanted)
    assert (told.code, told.out) == (3, "")
    assert "it has 1.1.0, 1.0.0" in told.err
    assert installed("update", "phi-3-mini", "--to", "1.0.0").code == 0


PUBLISH = "publish {model} phi-3-mini@2.0.0 --registry {registry}"


@pytest.mark.parametrize(
    "command",
    [
        *(f"{PUBLISH} {option}" for option in (
            "--min-ram nan", "--min-ram inf", "--min-ram -1", "--recommended-ram nan",
            "--download-url nonsense",
            "--download-url ftp://h/f", "--tag EMPTY", "--category LINES", "--name LINES", "--compat ^one",
        )),
        "publish {model} phi-3-mini@2.0.0 --registry https://models.example.org/",
        "registry yank phi-3-mini@1.0.0 --registry https://models.example.org/",
        "export phi-3-mini@1.0.0 s3://bucket/model", "lock phi-3-mini --file https://h/ystore.lock",
        "list --home https://h/store", "auto-update install-timer --dir https://h/",
        "diff phi-3-mini@1.0.0 phi-3-mini@1.0.0 --html https://h/p.html", "help --man https://h/",
        "compat phi-3-mini --app-version new", "auto-update enable --window Foo", "rollback phi-3-mini new",
        "auto-update enable --jitter soon", "gc --keep-within 3x", "list --lock-timeout nan",
        "fetch phi-3-mini --limit-rate nan", "registry add a! {registry}", "pin phi-3-mini@latest",
        "registry deprecate phi-3-mini@1.0.0 --replaced-by 1.0.0 --registry {registry}",
        "export phi-3-mini@1.0.0 EMPTY", "import EMPTY m@1.0.0", "publish EMPTY m@1.0.0 --registry r",
        "publish {model} m@1.0.0 --registry EMPTY", "lock phi-3-mini --file EMPTY", "list --home EMPTY",
        "diff phi-3-mini@1.0.0 phi-3-mini@1.0.0 --html EMPTY", "help --man EMPTY", "registry lint EMPTY",
        "auto-update install-timer --dir EMPTY", "import --from-local-state EMPTY",
        "registry yank phi-3-mini@1.0.0 --registry EMPTY", "registry add a EMPTY", "inspect EMPTY",
        "checkout phi-3-mini@vv1.0.0", "checkout phi-3-mini@^vv1.0", "fetch phi-3-mini@vv1",
        "update phi-3-mini --to >=vv1.0", "pin phi-3-mini@vvv1.0.0", "rollback phi-3-mini vv1.0.0",
        "completion", "completion tcsh", "completion EMPTY",
    ],
)  # fmt: skip
def test_what_is_typed_wrong_is_exit_code_2_with_a_hint(
    installed: Ystore, registry: Path, made_models: Path, tmp_path: Path, command: str
) -> None:
    places = {"registry": registry, "model": made_models / "phi-3-mini" / "1.1.0"}
    words = [word.format(**places) for word in command.split()]
    words = [{"EMPTY": "", "LINES": "a\nb"}.get(word, word) for word in words]
    before = (registry / "registry.json").read_bytes()
    there = sorted(path.name for path in tmp_path.iterdir())
    with contextlib.chdir(tmp_path):
        told = installed(*words)
    assert (told.code, told.out) == (2, "")
    assert len(told.err.splitlines()) > 1, "a hint says what next"
    assert (registry / "registry.json").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == there


@pytest.mark.parametrize("words", [["completion"], ["completion", "tcsh"]])
def test_completion_names_its_shells_on_one_line(ystore: Ystore, words: list[str]) -> None:
    told = ystore(*words).err.splitlines()
    assert all(shell in told[0] for shell in ("bash", "zsh", "fish"))
    assert len(told) == 2


@pytest.mark.parametrize(
    "variable",
    ["RAM_GB", "CONNECTIONS", "OFFLINE", "APP_VERSION", "STALL_TIMEOUT", "LOCK_TIMEOUT", "LIMIT_RATE"],
)
def test_a_setting_that_cannot_be_read_is_exit_code_2_with_a_hint(
    installed: Ystore, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(f"YSTORE_{variable}", "nonsense")
    told = installed("list")
    assert (told.code, told.out) == (2, "")
    assert f"YSTORE_{variable}" in told.err.splitlines()[0]
    assert len(told.err.splitlines()) > 1


def test_a_download_url_may_be_a_file_of_the_registry(
    ystore: Ystore, registry: Path, made_models: Path
) -> None:
    (registry / "files").mkdir()
    (registry / "files" / "model.bin").write_bytes(b"1")
    source = made_models / "phi-3-mini" / "1.1.0"
    done = ystore("publish", source, "m@1.0.0", "--registry", registry, "--download-url", "files/model.bin")
    assert done.code == 0


@pytest.mark.parametrize(
    "spec", ["phi-3-mini@^9", "phi-3-mini@9.0.0", "phi-3-mini:none", "phi-3-mini:none@^1"]
)
@pytest.mark.parametrize("command", [
    "fetch", "fetch --queue", "checkout", "update", "path", "export", "show", "compat", "inspect", "pin",
    "unpin", "lock",
])  # fmt: skip
def test_what_no_version_matches_is_exit_code_3(
    installed: Ystore, tmp_path: Path, command: str, spec: str
) -> None:
    name, *options = command.split()
    where = {"export": [tmp_path / "copy"], "lock": ["--file", tmp_path / "y.lock"]}.get(name, [])
    told = installed(name, *options, spec, *where)
    assert (told.code, told.out) == (3, "")
    assert len(told.err.splitlines()) > 1
    assert installed("queue").out == ""


@pytest.mark.parametrize("words", [["--all"], ["phi-3-mini", "other"]])
def test_an_update_of_several_into_a_range_that_nothing_matches(
    installed: Ystore, registry: Path, made_models: Path, words: list[str]
) -> None:
    installed("publish", made_models / "phi-3-mini" / "1.0.0", "other@9.1.0", "--registry", registry)
    installed("registry", "add", "more", registry)
    assert installed("checkout", "other@9.1.0", "--registry", "more").code == 0
    told = installed("update", *words, "--to", "^9")
    assert told.code == 3
    assert 'phi-3-mini: no version "^9" in phi-3-mini' in told.err
    assert "other\tcurrent\t\t9.1.0" in told.out, "each stands alone"
    assert installed("update", "other", "--to", "^9").code == 0


def test_a_queue_takes_what_cannot_be_asked_for(ystore: Ystore, published: Path) -> None:
    tree = {"registry.json": (published / "registry.json").read_bytes()}
    with ScriptedServer(files(tree)) as server:
        assert ystore("registry", "add", "far", server.url).code == 0
        assert ystore("fetch", "--queue", "phi-3-mini@^9").code == 3
    assert ystore("fetch", "--queue", "phi-3-mini@^9", "--offline").code == 0


@pytest.mark.parametrize("people", [True, False])
@pytest.mark.parametrize("command", ["gc", "gc --keep 1", "fsck", "registry refresh"])
def test_quiet_prints_nothing_where_nothing_is_wrong(installed: Ystore, command: str, people: bool) -> None:
    ran = installed(*command.split(), "-q", people=people)
    assert (ran.code, ran.out, ran.err) == (0, "", "")


QUIET = {
    "publish {model} own@1.0.0 --registry {registry}": 0, "registry add more {registry}": 0,
    "registry refresh": 0, "update -n phi-3-mini": 1, "update -n --all": 1,
    "fetch phi-3-mini@1.1.0": 0, "update phi-3-mini": 0, "rollback phi-3-mini": 0,
    "update --all": 0, "auto-update run --now": 0, "checkout phi-3-mini@1.0.0": 1, "path phi-3-mini": 1,
    "list": 1, "list --all": 2, "outdated": 1, "log phi-3-mini": 2, "compat phi-3-mini": 2, "queue": 0,
    "queue run": 0, "registry list": 2, "search": 2, "search nothing-like-it": 0, "lock phi-3-mini": 1,
    "registry deprecate own@1.0.0 --registry {registry}": 0,
    "registry yank own@1.0.0 --registry {registry}": 0,
    "registry alias own a 1.0.0 --registry {registry}": 0, "import {model} mine@1.0.0": 0,
    "export mine@1.0.0 copy": 0, "pin phi-3-mini": 0, "unpin phi-3-mini": 0, "remove mine@1.0.0": 0,
    "gc -n": None, "fsck": 0, "gc": 0, "registry remove more": 0,
    "auto-update install-timer --kind cron --dir timer": 1,
}  # fmt: skip


@pytest.mark.parametrize("people", [True, False])
def test_quiet_prints_names_and_paths_alone(
    installed: Ystore, registry: Path, made_models: Path, tmp_path: Path, people: bool
) -> None:
    model = made_models / "phi-3-mini" / "1.1.0"
    with contextlib.chdir(tmp_path):
        for command, lines in QUIET.items():
            words = [word.format(registry=registry, model=model) for word in command.split()]
            ran = installed(*words, "-q", people=people)
            assert (command, ran.code, ran.err) == (command, 0, "")
            if lines is None:
                assert (command, bool(ran.out)) == (command, True), "the result of a dry run is its output"
            else:
                assert (command, len(ran.out.splitlines())) == (command, lines), ran.out
            assert not any(" " in line for line in ran.out.splitlines()), (command, ran.out)


def test_a_download_that_is_larger_than_the_file_is_not_a_part_of_it(ystore: Ystore, tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(b"1")
    ystore("publish", tmp_path / "w.bin", "m@1.0.0", "--registry", tmp_path / "reg")
    ystore("registry", "add", "r", tmp_path / "reg")
    told = ystore("fetch", "m@1.0.0", people=True)
    assert "B to download" in told.err
    assert " of " not in told.err
    assert "its one chunk is already stored" in ystore("fetch", "m@1.0.0", people=True).out
    assert format_part(3_000, 2_500_000_000) == "<0.1 MB of 2 500 MB"


@pytest.mark.parametrize(
    ("counts", "shown"),
    [
        ((80_000_000, 1_200_000, 100_000), ["80 000 kB", "1 200 kB", "100 kB"]),
        ((3_000_000, 0), ["3 MB", "0 MB"]),
        ((0, 0), ["0 B", "0 B"]),
        ((12_400, 300), ["12 400 B", "300 B"]),
    ],
)
def test_sizes_in_one_unit_can_be_told_apart(counts: tuple[int, ...], shown: list[str]) -> None:
    assert format_sizes(*counts) == shown
