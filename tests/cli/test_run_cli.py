"""`ystore run`: a command gets the path of a version, which stays while the command runs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import YSTORE, Ystore
from yarnstore import Store

PATIENCE_S = 120.0

REPORT = """
import os, sys
print(os.environ["YSTORE_MODEL_PATH"], *sys.argv[1:], sep="\\n")
print(os.getppid())
sys.exit(7)
"""
WAIT = "import sys; print('ready', flush=True); sys.stdin.readline()"


def start(home: Path, *words: str) -> subprocess.Popen[str]:
    """`ystore run`, connected by pipes."""
    return subprocess.Popen(
        [*YSTORE, "run", *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "YSTORE_HOME": str(home)},
    )


@pytest.mark.skipif(os.name == "nt", reason="Windows has no exec")
def test_a_command_gets_the_path_and_gives_its_exit_code(installed: Ystore, tmp_home: Path) -> None:
    path = installed("path", "phi-3-mini").out.strip()
    words = ("phi-3-mini", "--", sys.executable, "-c", REPORT, "--model={path}", "{other}", "--json")
    with start(tmp_home, *words) as process:
        out, err = process.communicate(timeout=PATIENCE_S)
    # It is the process that was started, not a child of it.
    assert out.splitlines() == [path, f"--model={path}", "{other}", "--json", str(os.getpid())]
    assert (process.returncode, err) == (7, "")


def test_gc_keeps_the_version_while_the_command_runs(installed: Ystore, tmp_home: Path) -> None:
    with start(tmp_home, "phi-3-mini@1.0.0", "--", sys.executable, "-c", WAIT) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        with Store.open(tmp_home) as store:
            store.remove("phi-3-mini", whole_model=True)
            store.gc(keep=0, grace_s=0)
            views = list((tmp_home / "views").iterdir())
            assert len(views) == 1
            process.communicate("\n", timeout=PATIENCE_S)
            store.gc(keep=0, grace_s=0)
            assert not views[0].exists()


def test_the_command_ends_with_the_process_that_was_started(installed: Ystore, tmp_home: Path) -> None:
    with start(tmp_home, "phi-3-mini", "--", sys.executable, "-c", WAIT) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.kill()
        assert process.stdout.read() == "", "the command still has the pipe"


@pytest.mark.skipif(os.name != "nt", reason="elsewhere the command takes the place of `ystore`")
def test_ctrl_c_is_for_the_command_and_its_exit_code_is_kept(
    installed: Ystore, tmp_home: Path, tmp_path: Path
) -> None:
    said = tmp_path / "said"
    command = f"""
import sys, time
try:
    print("ready", file=open({str(said)!r}, "w"), flush=True)
    time.sleep({PATIENCE_S})
except KeyboardInterrupt:
    sys.exit(9)
"""
    # In a console of its own, in which the key interrupts every process.
    console = f"""
import ctypes, os, signal, subprocess, sys, time
signal.signal(signal.SIGINT, lambda *_: None)
run = subprocess.Popen(sys.argv[1:])
while not os.path.exists({str(said)!r}):
    assert run.poll() is None
    time.sleep(0.1)
time.sleep(1)
ctypes.windll.kernel32.GenerateConsoleCtrlEvent(0, 0)
sys.exit(run.wait({PATIENCE_S}))
"""
    words = [*YSTORE, "run", "phi-3-mini", "--", sys.executable, "-c", command]
    done = subprocess.run(
        [sys.executable, "-c", console, *words],
        env={**os.environ, "YSTORE_HOME": str(tmp_home)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        creationflags=getattr(subprocess, "CREATE_NEW_CONSOLE", 0),
        timeout=PATIENCE_S,
    )
    assert done.returncode == 9, done.stdout


@pytest.mark.skipif(os.name != "nt", reason="programs of Windows")
def test_a_program_that_windows_does_not_find_by_its_name_is_run(
    installed: Ystore, tmp_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tool.cmd").write_bytes(b"@echo %YSTORE_MODEL_PATH% %1\r\n@exit /b 7\r\n")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert shutil.which("tool") is not None
    path = installed("path", "phi-3-mini").out.strip()
    with start(tmp_home, "phi-3-mini", "--", "tool", "word") as process:
        out, err = process.communicate(timeout=PATIENCE_S)
    assert (out.split(), process.returncode, err) == ([path, "word"], 7, "")


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["phi-3-mini", "--", "no-such-program"], 3, 'no command "no-such-program"'),
        (["no-such-model", "--", sys.executable], 3, 'no installed model "no-such-model"'),
        (["phi-3-mini"], 2, "Missing argument"),
    ],
)
def test_what_cannot_be_started(installed: Ystore, words: list[str], code: int, says: str) -> None:
    told = installed("run", *words)
    assert (told.code, told.out) == (code, "")
    assert says in told.err
