"""`ystore` with closed, broken or full standard streams, and without a home folder."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.cli.conftest import YSTORE, Ystore
from yarnstore.cli.streams import open_closed_streams

PATIENCE_S = 120.0
CLOSED = ("<&-", ">&-", "2>&-", "<&- >&- 2>&-")


def shell(text: str, *arguments: str | Path, **environment: str | None) -> subprocess.CompletedProcess[str]:
    """Run a line of bash in which `"$@"` is `ystore` with these arguments; None unsets a variable."""
    merged = {key: value for key, value in {**os.environ, **environment}.items() if value is not None}
    command = ["bash", "-c", text, "bash", *YSTORE, *map(os.fspath, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=PATIENCE_S, check=False, env=merged
    )


@pytest.mark.parametrize("closed", CLOSED)
def test_closed_streams_do_not_stop_an_update(installed: Ystore, tmp_home: Path, closed: str) -> None:
    ran = shell(f'"$@" {closed}', "update", "phi-3-mini")
    assert (ran.returncode, "Traceback" in ran.stderr) == (0, False)
    assert installed("list", "--json").json[0]["version"] == "1.1.0"
    assert installed("fsck").code == 0, "something was written into a file of the store"


@pytest.mark.parametrize("closed", CLOSED)
def test_closed_streams_keep_the_exit_code(installed: Ystore, closed: str) -> None:
    for arguments, code in (
        ("outdated --exit-code", 10),
        ("fetch none", 3),
        ("fetch", 2),
        ("list --json", 0),
    ):
        ran = shell(f'"$@" {closed}', *arguments.split())
        assert (arguments, ran.returncode, "Traceback" in ran.stderr) == (arguments, code, False)


def test_with_all_streams_closed_every_command_works(installed: Ystore, tmp_path: Path) -> None:
    made = tmp_path / "f.bin"
    made.write_bytes(b"1")
    lines = [
        "fetch phi-3-mini@1.1.0", "checkout phi-3-mini@1.1.0", "rollback phi-3-mini", "log phi-3-mini",
        "path phi-3-mini", "compat phi-3-mini --app-version 1.0.0", "queue", "registry list",
        "registry refresh", "search",
        "show phi-3-mini", f"publish {made} m@1.0.0 --registry {tmp_path / 'own'} --changelog x",
        f"registry lint {tmp_path / 'own'}", f"lock phi-3-mini --file {tmp_path / 'y.lock'}",
        "diff phi-3-mini@1.0.0 phi-3-mini@1.1.0", "inspect phi-3-mini@1.0.0", f"import {made} m@1.0.0",
        f"export m@1.0.0 {tmp_path / 'copy'}", "pin phi-3-mini", "unpin phi-3-mini", "remove m@1.0.0",
        "gc --dry-run", "fsck", "status", "auto-update status", "--help", "--version",
    ]  # fmt: skip
    script = "\n".join(f'"$@" {line} <&- >&- 2>&- || echo "{line}: exit $?"' for line in lines)
    ran = shell(script)
    assert (ran.stdout, ran.stderr) == ("", "")


def test_the_null_device_takes_the_place_of_closed_streams() -> None:
    pid = os.fork()
    if pid == 0:  # a process of its own, as it closes what pytest writes to
        for number in range(3):
            os.close(number)
        open_closed_streams()
        null = os.stat(os.devnull).st_rdev
        os._exit(0 if all(os.fstat(number).st_rdev == null for number in range(3)) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


@pytest.mark.parametrize(
    "arguments", ["list", "list --json", "log phi-3-mini", "update --all", "outdated --exit-code", "--help"]
)
@pytest.mark.parametrize("output", ["people", "plain"])
def test_a_reader_that_leaves_is_exit_141_or_0_and_no_message(
    installed: Ystore, arguments: str, output: str
) -> None:
    ran = shell('"$@" | true; exit ${PIPESTATUS[0]}', *arguments.split(), YSTORE_OUTPUT=output)
    codes = (141, 0, 10) if "--exit-code" in arguments else (141, 0)
    assert ran.returncode in codes
    assert not any(word in ran.stderr for word in ("error", "interrupted", "Traceback", "Exception"))


def test_a_broken_pipe_is_exit_141(installed: Ystore) -> None:
    for output in ("people", "plain"):
        wait = '{ sleep 1; "$@"; echo $? >&2; } | true'  # by then nobody reads
        assert shell(wait, "log", "phi-3-mini", YSTORE_OUTPUT=output).stderr == "141\n"


def test_stderr_that_cannot_be_written_stops_nothing(installed: Ystore) -> None:
    ran = shell('{ sleep 1; "$@"; } 2>&1 >/dev/null | true; exit ${PIPESTATUS[0]}', "update", "phi-3-mini")
    assert ran.returncode == 0
    ran = shell('"$@" --progress json 2>/dev/full', "rollback", "phi-3-mini")
    assert ran.returncode == 0
    assert shell('"$@" 2>/dev/full', "fetch", "none").returncode == 3


def without_passwd_entry() -> list[str]:
    """What to put before a command to run it as a user that passwd does not list; may skip."""
    command = ["unshare", "--user", "--map-user=54321"]
    if shutil.which("unshare") is None or subprocess.run([*command, "true"], check=False).returncode:
        pytest.skip("no user namespaces here")
    return command


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        ("list", "YSTORE_HOME"),
        ("fetch m", "--home"),
        ("doctor", "YSTORE_HOME"),
        ("auto-update install-timer --kind systemd --home {tmp}/s", "--dir"),
        ("registry add y ~/registry --home {tmp}/s", "without ~"),
    ],
)
def test_without_a_home_folder_a_sentence_says_what_to_set(tmp_path: Path, arguments: str, hint: str) -> None:
    unset = dict.fromkeys(("HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME", "YSTORE_HOME"))
    prefix = " ".join(without_passwd_entry())
    # ~ in single quotes stays for ystore to read.
    ran = shell(f'{prefix} "$@"', *arguments.format(tmp=tmp_path).split(), **unset)
    assert ran.returncode == 2, ran.stderr
    assert "Traceback" not in ran.stderr
    assert hint in ran.stderr.splitlines()[-1]


def test_a_store_that_is_named_needs_no_home_folder(tmp_path: Path) -> None:
    unset = dict.fromkeys(("HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME"))
    ran = shell(f'{" ".join(without_passwd_entry())} "$@"', "list", YSTORE_HOME=str(tmp_path), **unset)
    assert (ran.returncode, ran.stderr) == (0, "")


def test_a_current_folder_that_was_removed_is_named(tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    for arguments in ("registry add y ./r", "list --home s"):
        ran = shell(f'mkdir -p {tmp_path}/gone; cd {tmp_path}/gone; rmdir ../gone; "$@"', *arguments.split())
        assert ran.returncode in (2, 3), (arguments, ran.stderr)
        assert "the current folder was removed" in ran.stderr
