"""Help, hints for words of other tools, completion in shells, man pages."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest

from tests.cli.conftest import Ystore
from yarnstore.cli import cli
from yarnstore.cli.group import _MEANT, CommonOption, Group, below
from yarnstore.cli.manual import iter_commands

PATIENCE_S = 60.0
ALL = [context.command_path for context in iter_commands(click.Context(cli, info_name="ystore"))]


@pytest.mark.parametrize(
    ("word", "command"),
    [
        ("rm", "remove"), ("ls", "list"), ("info", "show"), ("install", "checkout"), ("pull", "fetch"),
        ("upgrade", "update"), ("cleanup", "gc"), ("uninstall", "remove"), ("history", "log"),
        ("version-update", "update"), ("Install", "checkout"), ("registry rm", "remove"),
        ("queue ls", "list"),
    ],
)  # fmt: skip
def test_words_of_other_tools_lead_to_ours(ystore: Ystore, word: str, command: str) -> None:
    told = ystore(*word.split(), "x")
    assert (told.code, told.out) == (2, "")
    assert f"Did you mean {command}" in told.err


def test_a_word_that_means_a_command_is_no_command_and_its_command_exists() -> None:
    for group, words in _MEANT.items():
        prefix = "ystore" if group == "ystore" else f"ystore {group}"
        for word, command in words.items():
            assert f"{prefix} {command}" in ALL, command
            assert f"{prefix} {word}" not in ALL, word


@pytest.mark.parametrize("path", ALL)
def test_help_shows_what_the_option_shows(ystore: Ystore, path: str) -> None:
    words = path.split()[1:]
    assert ystore("help", *words).out == ystore(*words, "--help").out != ""


@pytest.mark.parametrize(("words", "says"), [("registry nix", "'nix'"), ("list x", "has no subcommands")])
def test_help_of_what_is_no_command(ystore: Ystore, words: str, says: str) -> None:
    told = ystore("help", *words.split())
    assert (told.code, says in told.err) == (2, True)


@pytest.mark.parametrize("command", ["update --all", "gc"])
def test_n_is_a_dry_run(installed: Ystore, command: str) -> None:
    before = installed("list", "--json").out
    assert installed(*command.split(), "-n").out == installed(*command.split(), "--dry-run").out
    assert installed("list", "--json").out == before


def test_every_option_for_a_dry_run_has_its_short_form() -> None:
    for context in iter_commands(click.Context(cli, info_name="ystore")):
        options = [set(option.opts) for option in context.command.params]
        assert all("-n" in names for names in options if "--dry-run" in names), context.command_path


@pytest.mark.parametrize("path", ALL)
def test_no_summary_of_a_command_is_cut_at_80_columns(
    ystore: Ystore, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    shown = ystore(*path.split()[1:], "--help").out.splitlines()
    context = next(c for c in iter_commands(click.Context(cli, info_name="ystore")) if c.command_path == path)
    for each in below(context):
        summary = each.command.get_short_help_str(limit=200)
        (line,) = [line for line in shown if line.split()[:1] == [each.info_name] and line.endswith(summary)]
        assert len(line) <= 80


def test_every_command_stands_in_one_section() -> None:
    assert isinstance(cli, Group)
    names = [name for section in cli.sections.values() for name in section]
    assert sorted(names) == sorted(cli.list_commands(click.Context(cli)))
    assert len(names) == len(set(names))


@pytest.mark.parametrize("path", ALL)
def test_the_options_of_a_command_come_before_the_common_ones(path: str) -> None:
    context = next(c for c in iter_commands(click.Context(cli, info_name="ystore")) if c.command_path == path)
    options = [p for p in context.command.params if isinstance(p, click.Option)]
    common = [isinstance(option, CommonOption) for option in options]
    if path != "ystore":
        assert common == sorted(common)
    shown = context.command.get_help(context)
    assert shown.index("\nOptions:") < shown.index("\nCommon options:") if any(common) else True


# --- man pages --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("man")
    command = [sys.executable, "-m", "yarnstore", "help", "--man", folder]
    subprocess.run(command, check=True, capture_output=True, timeout=PATIENCE_S)
    return folder


def test_each_command_has_a_man_page(pages: Path) -> None:
    assert {path.name for path in pages.iterdir()} == {f"{path.replace(' ', '-')}.1" for path in ALL}
    for path in pages.iterdir():
        text = path.read_text(encoding="ascii")
        assert text.startswith(".TH ")
        assert all(f".SH {section}\n" in text for section in ("NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS"))


@pytest.mark.skipif(shutil.which("groff") is None, reason="groff is not installed")
def test_groff_reads_each_page_without_a_warning(pages: Path) -> None:
    for path in sorted(pages.iterdir()):
        command = ["groff", "-man", "-Tutf8", "-ww", path]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=True)
        assert (path.name, ran.stderr) == (path.name, "")
    plain = ["groff", "-man", "-Tascii", "-P-cbou", pages / "ystore-gc.1"]
    shown = subprocess.run(plain, capture_output=True, text=True, timeout=PATIENCE_S, check=True).stdout
    assert "-n, --dry-run" in shown
    assert "ystore gc --keep 3 --dry-run" in shown


# --- completion -------------------------------------------------------------------------------


def completed(line: str) -> list[str]:
    """What `ystore` answers bash for a line with the cursor at its end."""
    words = line.split()
    number = len(words) if line.endswith(" ") else len(words) - 1
    ask = {"COMP_WORDS": line, "COMP_CWORD": str(number), "_YSTORE_COMPLETE": "bash_complete"}
    ran = subprocess.run(
        [sys.executable, "-m", "yarnstore"],
        env={**os.environ, **ask},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=True,
    )
    assert ran.stderr == ""
    return [item.partition(",")[2] for item in ran.stdout.split()]


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("ystore chec", ["checkout"]),
        ("ystore registry re", ["refresh", "remove"]),
        ("ystore gc --dr", ["--dry-run"]),
        ("ystore checkout ph", ["phi-3-mini"]),
        ("ystore update ", ["phi-3-mini"]),
        ("ystore fetch phi-3-mini@", ["phi-3-mini@1.1.0", "phi-3-mini@1.0.0"]),
        ("ystore fetch phi-3-mini@1.1", ["phi-3-mini@1.1.0"]),
        ("ystore fetch none@", []),
        ("ystore rollback phi-3-mini ", ["1.1.0", "1.0.0"]),
        ("ystore registry refresh ", ["yarn"]),
        ("ystore fetch --registry ", ["yarn"]),
        ("ystore help reg", ["registry"]),
        ("ystore help registry al", ["alias"]),
    ],
)
def test_completes(installed: Ystore, line: str, found: list[str]) -> None:
    assert completed(line) == found


def test_completing_uses_no_network_and_makes_no_store(ystore: Ystore, tmp_home: Path) -> None:
    assert completed("ystore checkout ") == []
    assert not tmp_home.exists()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_prints_the_script_of_a_shell(ystore: Ystore, shell: str) -> None:
    made = ystore("completion", shell)
    assert made.code == 0
    assert f"{shell}_complete" in made.out
    if shutil.which(shell) is not None:
        subprocess.run([shell, "-n"], input=made.out, text=True, check=True, timeout=PATIENCE_S)


@pytest.mark.parametrize(
    ("line", "word", "reply"),
    [
        ("ystore chec", "chec", "checkout"),
        ("ystore checkout phi-3-mini@1.1", "1.1", "1.1.0"),  # readline's word begins behind the @
        ("ystore fetch -q phi-3-mini@", "@", "1.1.0 1.0.0"),
        ("ystore rollback phi-3-mini ", "", "1.1.0 1.0.0"),
    ],
)
def test_bash_replaces_its_own_word(
    installed: Ystore, tmp_path: Path, line: str, word: str, reply: str
) -> None:
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    (bin_ / "ystore").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m yarnstore "$@"\n')
    (bin_ / "ystore").chmod(0o755)
    script = (
        f'eval "$(ystore completion bash)"; COMP_LINE="{line}"; COMP_POINT={len(line)}; '
        f'_ystore_completion ystore "{word}" x; echo "${{COMPREPLY[@]}}"'
    )
    environment = {**os.environ, "PATH": f"{bin_}{os.pathsep}{os.environ['PATH']}"}
    ran = subprocess.run(
        ["bash", "-c", script],
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=True,
    )
    assert (ran.stdout.strip(), ran.stderr) == (reply, "")


def test_a_list_in_a_help_text_keeps_its_lines_in_its_man_page(pages: Path) -> None:
    page = (pages / "ystore-import.1").read_text()
    start = page.index(".nf\nhf://")
    listed = page[start : page.index(".fi", start)].splitlines()[1:]
    assert [line.split(":")[0] for line in listed] == ["hf", "ollama", "lmstudio", "oci", "docker", "https"]
    assert "\b" not in page
