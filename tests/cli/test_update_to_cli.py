"""`update` to a version that is named, `update` alone, and `outdated` on a terminal."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import subprocess
from pathlib import Path

import pytest

from tests.cli.conftest import YSTORE, Ystore
from tests.support.registries import mark
from yarnstore import Store


def installed(home: Path) -> dict[str, str]:
    with Store.open(home) as store:
        return {item.model: item.version for item in store.list_installed_models()}


@pytest.mark.parametrize("words", [["a", "1.1.0"], ["a@1.1.0"], ["a", "v1.1.0"], ["a", "^1"], ["a@~1.1"]])
def test_update_goes_to_the_version_that_is_named(
    site: Path, ystore: Ystore, tmp_home: Path, words: list[str]
) -> None:
    ystore("update", "--major", "a")
    down = ystore("update", *words, people=True)
    assert (down.code, installed(tmp_home)) == (0, {"a": "1.1.0", "b": "1.0.0"})
    assert "a 2.0.0 → 1.1.0, which is older" in down.err
    assert ystore("update", *words).table[0][1] == "current"
    ystore("checkout", "a@1.0.0")
    up = ystore("update", *words, "--json").json
    assert (up["status"], up["kind"], up["previous"], up["version"]) == ("updated", "minor", "1.0.0", "1.1.0")
    assert [change["version"] for change in up["changes"]] == ["1.1.0"]
    assert ystore("rollback", "a", "--json").json["version"] == "1.0.0"


def test_update_to_a_version_crosses_a_major_and_says_so(site: Path, ystore: Ystore, tmp_home: Path) -> None:
    planned = ystore("update", "a", "2.0.0", "--dry-run", "--json").json
    assert (planned["status"], planned["kind"], planned["breaking"]) == ("planned", "major", True)
    assert planned["download_bytes"] > 0
    assert installed(tmp_home)["a"] == "1.0.0"
    done = ystore("update", "a", "latest", people=True)
    assert "which may break existing uses" in done.err
    assert installed(tmp_home)["a"] == "2.0.0"


def test_several_specs_at_once(site: Path, ystore: Ystore, tmp_home: Path) -> None:
    both = ystore("update", "a", "2.0.0", "b")
    assert both.code == 0
    assert [row[:4] for row in both.table] == [
        ["a", "updated", "1.0.0", "2.0.0"],
        ["b", "updated", "1.0.0", "1.1.0"],
    ]
    assert ystore("update", "a@1.1.0", "b@1.0.0").code == 0
    assert installed(tmp_home) == {"a": "1.1.0", "b": "1.0.0"}


def test_a_word_that_is_a_model_is_no_version(site: Path, ystore: Ystore, tmp_home: Path) -> None:
    weights = tmp_home.parent / "w.bin"
    weights.write_bytes(b"weights")
    ystore("import", weights, "2.0.0@1.0.0")
    ystore("checkout", "2.0.0@1.0.0")
    ystore("update", "a", "2.0.0")
    assert installed(tmp_home)["a"] == "1.1.0"  # the newest of its major
    ystore("update", "a@2.0.0")
    assert installed(tmp_home)["a"] == "2.0.0"


def test_an_alias_of_the_model_is_its_version(site: Path, ystore: Ystore, tmp_home: Path) -> None:
    ystore("registry", "alias", "--registry", site, "a", "beta", "2.0.0")
    with Store.open(tmp_home) as store:
        store.refresh_registries()
    assert ystore("update", "a", "beta").code == 0
    assert installed(tmp_home)["a"] == "2.0.0"
    assert ystore("update", "b", "beta").code == 3  # b has no such alias: a model that is not installed


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["a", "9.9.9"], 3, "9.9.9"),
        (["a", "^7"], 3, "^7"),
        (["1.1.0"], 2, "is a version without a model"),
        (["a", "1.1.0", "2.0.0"], 2, "is a version without a model"),
        (["a@1.1.0", "2.0.0"], 2, "is a version without a model"),
        (["a@1.1.0", "a@2.0.0"], 2, "given twice"),
        (["c", "1.1.0"], 3, "no installed model"),
        (["a:int4"], 3, "int4"),
        (["a@1.1.0", "--to", "^1"], 2, "--to"),
        (["a", "x/y/z"], 2, "x/y/z"),
    ],
)
def test_what_cannot_be_updated_to(
    site: Path, ystore: Ystore, tmp_home: Path, words: list[str], code: int, said: str
) -> None:
    failed = ystore("update", *words)
    assert failed.code == code, failed
    assert said in failed.err
    assert installed(tmp_home)["b"] == "1.0.0"


def test_a_pin_forbids_another_version(site: Path, ystore: Ystore, tmp_home: Path) -> None:
    ystore("pin", "a")
    refused = ystore("update", "a", "1.1.0")
    assert refused.code == 1
    assert "ystore unpin a" in refused.err
    assert installed(tmp_home)["a"] == "1.0.0"
    assert ystore("update", "a", "1.0.0").table[0][1] == "current"
    ystore("unpin", "a")
    ystore("pin", "a@~1.0")
    assert ystore("update", "a", "1.1.0").code == 1


def test_update_to_a_version_that_does_not_fit(site: Path, ystore: Ystore, tmp_home: Path) -> None:
    mark(site, "a@1.1.0", minimum_ram_gb=64)
    assert ystore("update", "a", "1.1.0").code == 6
    assert ystore("update", "a", "1.1.0", "--force").code == 0


def test_update_to_a_version_that_only_the_store_has(site: Path, ystore: Ystore, tmp_home: Path) -> None:
    weights = tmp_home.parent / "w.bin"
    weights.write_bytes(b"weights")
    ystore("import", weights, "a@1.0.5")
    assert ystore("update", "a", "1.0.5", "--offline").code == 0
    assert installed(tmp_home)["a"] == "1.0.5"


def test_update_to_another_variant(ystore: Ystore, tmp_path: Path, tmp_home: Path) -> None:
    for version in ("1.0.0", "1.1.0"):
        for variant in ("fp16", "int4"):
            (tmp_path / "w.bin").write_bytes(f"{version} {variant}".encode() * 99)
            Store.publish(tmp_path / "w.bin", f"m:{variant}@{version}", registry=tmp_path / "registry")
    ystore("registry", "add", "yarn", tmp_path / "registry")
    ystore("checkout", "m:fp16@1.0.0")
    assert ystore("update", "m:int4@1.0.0", "--json").json["variant"] == "int4"
    assert ystore("update", "m", "1.1.0", "--json").json["variant"] == "int4"  # it sticks
    changed = ystore("update", "m:fp16", "--json").json
    assert (changed["status"], changed["variant"], changed["version"]) == ("updated", "fp16", "1.1.0")
    ystore("pin", "m:fp16")
    assert ystore("update", "m:int4").code == 1


# --- on a terminal -----------------------------------------------------------------------------


def on_terminal(arguments: list[str], answer: str = "") -> tuple[int, str]:
    """Run `ystore` on a pseudo-terminal where somebody types `answer`."""
    leader, follower = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "160"}
    environment.pop("YSTORE_OUTPUT", None)
    with subprocess.Popen(
        [*YSTORE, *arguments], stdin=follower, stdout=follower, stderr=follower, env=environment
    ) as process:
        os.close(follower)
        os.write(leader, answer.encode())
        written = b""
        with contextlib.suppress(OSError):  # EIO: the other end is closed
            while block := os.read(leader, 65536):
                written += block
        os.close(leader)
        return process.wait(20), written.decode()


def test_update_alone_lists_and_asks(site: Path, ystore: Ystore, tmp_home: Path) -> None:
    code, shown = on_terminal(["update"], "\n")
    assert code == 0
    assert "a 1.0.0 → 1.1.0 (minor)" in shown
    assert "update 2 models" in shown
    assert "[y/N]" in shown
    assert installed(tmp_home) == {"a": "1.0.0", "b": "1.0.0"}
    code, shown = on_terminal(["update"], "y\n")
    assert code == 0
    assert installed(tmp_home) == {"a": "1.1.0", "b": "1.1.0"}
    code, shown = on_terminal(["update"])
    assert (code, "all 2 models are up to date" in shown, "[y/N]" in shown) == (0, True, False)


def test_the_end_of_the_input_at_the_question_is_no_download_that_was_interrupted(
    site: Path, ystore: Ystore, tmp_home: Path
) -> None:
    code, shown = on_terminal(["update"], "\x04")
    assert code == 130
    assert re.search(r"\[y/N\]: (\^D[\x08]*)?\r\n.*error:.* no answer\r\n", shown)
    assert "  nothing was downloaded; `ystore update --all` does not ask\r\n" in shown
    assert "downloaded data is kept" not in shown
    assert installed(tmp_home) == {"a": "1.0.0", "b": "1.0.0"}


def test_update_alone_with_a_dry_run_does_not_ask(site: Path, ystore: Ystore, tmp_home: Path) -> None:
    code, shown = on_terminal(["update", "--dry-run"])
    assert (code, "a 1.0.0 → 1.1.0" in shown, "[y/N]" in shown) == (0, True, False)
    assert installed(tmp_home)["a"] == "1.0.0"


def test_update_alone_in_a_pipe_names_all(site: Path, ystore: Ystore, tmp_home: Path) -> None:
    for more in ((), ("--json",), ("--dry-run",)):
        refused = ystore("update", *more)
        assert refused.code == 2
        assert "--all" in refused.err + refused.out
    # People may read it, but nobody can answer.
    assert ystore("update", people=True).code == 2
    assert installed(tmp_home)["a"] == "1.0.0"


def test_outdated_on_a_terminal_lists_what_is_outdated(site: Path, ystore: Ystore) -> None:
    ystore("update", "b")
    ystore("update", "--major", "b")
    _, shown = on_terminal(["outdated"])
    rows = shown.splitlines()
    assert (rows[0].startswith("MODEL "), [row.split()[0] for row in rows[1:]]) == (True, ["a"])
    assert [row.split()[0] for row in on_terminal(["outdated", "--all"])[1].splitlines()[1:]] == ["a", "b"]
    assert [row[0] for row in ystore("outdated").table] == ["a", "b"]
    assert [row["model"] for row in ystore("outdated", "--json").json] == ["a", "b"]
    ystore("update", "--major", "a")
    assert on_terminal(["outdated"]) == (0, "all 2 models are up to date\r\n")
    assert len(ystore("outdated").table) == 2


def test_outdated_does_not_call_an_import_up_to_date(site: Path, ystore: Ystore, tmp_home: Path) -> None:
    weights = tmp_home.parent / "w.bin"
    weights.write_bytes(b"weights")
    ystore("import", weights, "own@1.0.0")
    ystore("checkout", "own@1.0.0")
    ystore("update", "--all", "--major")
    shown = ystore("outdated", people=True).out
    assert shown == "all 2 models are up to date; 1 model not in any registry   (ystore outdated --all)\n"


def test_outdated_shows_what_was_withdrawn(site: Path, ystore: Ystore) -> None:
    ystore("update", "--all", "--major")
    mark(site, "a@2.0.0", yanked=True)
    shown = ystore("outdated", people=True).out
    assert "withdrawn" in shown
    assert "\nb " not in shown
