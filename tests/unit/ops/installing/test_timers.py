"""Timer files say what the systems that read them understand; nothing is switched on."""

from __future__ import annotations

import os
import plistlib
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree

import pytest

from yarnstore import Store
from yarnstore.errors import UsageError
from yarnstore.ops.installing.timers import TIMER_KINDS, TimerFiles, write_timer
from yarnstore.registry.policies import AutoRule, AutoRules
from yarnstore.registry.windows import Window

RULES = AutoRules(
    AutoRule(True, "minor", (Window.parse("Sat,Sun 02:15-05:00"),)),
    {"a": AutoRule(True, "minor", (Window.parse("23:30-01:00"), Window.parse("Sun 04:00-05:00")))},
)


def write(kind: str, tmp_path: Path, *, home: str = "/srv/store") -> TimerFiles:
    made = write_timer(kind, tmp_path, Path(home), RULES)
    for path, text in made.files.items():
        data = Path(path).read_bytes()
        assert data.decode("utf-16" if kind == "schtasks" else "utf-8") == text
    assert sorted(map(str, tmp_path.iterdir())) == sorted(made.files)
    return made


HOME = '/srv/my "models" 50% $HOME'


def test_systemd(tmp_path: Path) -> None:
    made = write("systemd", tmp_path, home=HOME)
    service, timer = made.files.values()
    assert "ExecStart=" in service
    assert '"/srv/my \\"models\\" 50%% $$HOME"' in service
    assert "Type=oneshot" in service
    starts = [line for line in timer.splitlines() if line.startswith("OnCalendar=")]
    assert starts == [
        "OnCalendar=*-*-* *:00:00",
        "OnCalendar=Sat,Sun *-*-* 02:15:00",
        "OnCalendar=*-*-* 23:30:00",
    ]
    assert "enable --now yarnstore-auto-update.timer" in made.enable


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_systemd_understands_it(tmp_path: Path) -> None:
    for line in write("systemd", tmp_path).files[str(tmp_path / "yarnstore-auto-update.timer")].splitlines():
        if line.startswith("OnCalendar="):
            subprocess.run(
                ["systemd-analyze", "calendar", line.partition("=")[2]], check=True, capture_output=True
            )


@pytest.mark.parametrize("home", ["/srv/it's here", "/srv/o'clock", "/srv/a\tb", "/srv/a;b", HOME])
def test_systemd_takes_any_path_as_one_word(home: str, tmp_path: Path) -> None:
    made = write("systemd", tmp_path, home=home)
    path = tmp_path / "yarnstore-auto-update.service"
    (line,) = [line for line in made.files[str(path)].splitlines() if line.startswith("ExecStart=")]
    words = shlex.split(line.partition("=")[2])  # which quotes as systemd does, but for % and $
    assert words[-1].replace("%%", "%").replace("$$", "$") == home
    if shutil.which("systemd-analyze") is not None:
        ran = subprocess.run(["systemd-analyze", "verify", path], capture_output=True, check=False)
        assert b"nbalanced" not in ran.stderr


@pytest.mark.parametrize("kind", ["systemd", "cron"])
def test_windows_by_another_clock_are_met(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """02:30 in Calcutta is 21:00 in UTC, and 02:15 is 20:45: the hours of this machine say nothing."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    windows = tuple(map(Window.parse, ("Sat 02:30-02:40", "02:15-02:25", "05:00-05:10")))
    made = write_timer(
        kind,
        tmp_path,
        Path("/srv/store"),
        AutoRules(AutoRule(True, "minor", windows), timezone="Asia/Kolkata"),
    )
    text = "".join(made.files.values())
    if kind == "cron":
        assert [line.split(" ")[:5] for line in text.splitlines()] == [
            ["0", "*", "*", "*", "*"], ["45", "*", "*", "*", "*"], ["30", "*", "*", "*", "*"],
        ]  # fmt: skip
    else:
        starts = [line for line in text.splitlines() if line.startswith("OnCalendar=")]
        assert starts == [f"OnCalendar=*-*-* *:{minute}:00" for minute in ("00", "45", "30")]


def test_cron(tmp_path: Path) -> None:
    (text,) = write("cron", tmp_path, home=HOME).files.values()
    lines = text.splitlines()
    assert [line.split(" ")[:5] for line in lines] == [
        ["0", "*", "*", "*", "*"],
        ["15", "2", "*", "*", "6,0"],
        ["30", "23", "*", "*", "*"],
    ]
    command = lines[0].split(" ", 5)[5]
    assert "\\%" in command
    assert shlex.split(command.replace("\\%", "%")) == [
        sys.executable, "-m", "yarnstore", "auto-update", "run", "--home", HOME,
    ]  # fmt: skip


@pytest.mark.parametrize("home", ["/srv/store", "/srv/[a].*b^$", "/srv/it's 50% \\ here", HOME])
def test_cron_is_switched_on_again_and_off(home: str, tmp_path: Path) -> None:
    """Lines that are there stay, and its own are never there twice."""
    table, fake = tmp_path / "table", tmp_path / "bin" / "crontab"
    fake.parent.mkdir()
    fake.write_text(
        f'#!/bin/sh\nif [ "$1" = -l ]; then cat {table}; else cat > {table}.new; mv {table}.new {table}; fi\n'
    )
    fake.chmod(0o755)
    env = {**os.environ, "PATH": f"{fake.parent}:{os.environ['PATH']}"}

    def type_in(command: str) -> list[str]:
        subprocess.run(["sh", "-c", command], check=True, env=env)
        return table.read_text().splitlines()

    folder = tmp_path / "files"
    folder.mkdir()
    made = write("cron", folder, home=home)
    mine = "".join(made.files.values()).splitlines()
    other = mine[0] + "-more"
    assert type_in(made.enable) == mine, "without a table"
    table.write_text(f"7 7 * * * mine\n{other}\n")
    for _ in range(2):
        assert type_in(made.enable) == ["7 7 * * * mine", other, *mine]
    assert type_in(made.disable) == ["7 7 * * * mine", other]


def test_launchd(tmp_path: Path) -> None:
    (text,) = write("launchd", tmp_path, home=HOME).files.values()
    document = plistlib.loads(text.encode())
    assert document["ProgramArguments"][-2:] == ["--home", HOME]
    assert document["StartCalendarInterval"] == [
        {"Minute": 0},
        {"Minute": 15, "Hour": 2, "Weekday": 6},
        {"Minute": 15, "Hour": 2, "Weekday": 0},
        {"Minute": 30, "Hour": 23},
    ]
    assert "RunAtLoad" not in document


def test_task_scheduler(tmp_path: Path) -> None:
    made = write("schtasks", tmp_path, home="/srv/a & b")
    ((path, _),) = made.files.items()
    space = "{http://schemas.microsoft.com/windows/2004/02/mit/task}"
    root = ElementTree.fromstring(Path(path).read_bytes())
    assert [child.tag.removeprefix(space) for child in root] == [
        "RegistrationInfo", "Triggers", "Settings", "Actions",
    ]  # fmt: skip
    triggers = list(root.iter(f"{space}CalendarTrigger"))
    assert [next(each.iter(f"{space}StartBoundary")).text for each in triggers] == [
        "2024-01-01T00:00:00",
        "2024-01-01T02:15:00",
        "2024-01-01T23:30:00",
    ]
    assert [each.tag.removeprefix(space) for each in next(triggers[1].iter(f"{space}DaysOfWeek"))] == [
        "Saturday",
        "Sunday",
    ]
    # `power` of the settings decides about battery power.
    for name in ("DisallowStartIfOnBatteries", "StopIfGoingOnBatteries"):
        assert next(root.iter(f"{space}{name}")).text == "false"
    arguments = next(root.iter(f"{space}Arguments")).text or ""
    assert arguments == '-m yarnstore auto-update run --home "/srv/a & b"'


def test_the_calls_are_of_a_command_that_is_there(tmp_path: Path) -> None:
    (text,) = write("cron", tmp_path, home=str(tmp_path / "home")).files.values()
    words = shlex.split(text.splitlines()[0].split(" ", 5)[5])
    ran = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")


def test_other_kinds_and_names_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        Store.open(tmp_path / "home").write_timer("at", tmp_path)
    with pytest.raises(UsageError):
        write_timer("cron", tmp_path, Path("/srv/a\n0 * * * * evil"), RULES)
    assert list(tmp_path.iterdir()) == []
    assert TIMER_KINDS == ("systemd", "cron", "launchd", "schtasks")
