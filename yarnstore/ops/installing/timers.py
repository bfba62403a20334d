"""Timer files that run `ystore auto-update run`: systemd, cron, launchd, Task Scheduler.

They are only written; the commands that enable them are printed.  Each starts a run every hour, and whenever
a window opens; a run without an open window ends at once.
"""

from __future__ import annotations

import plistlib
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from xml.sax.saxutils import escape

from yarnstore.errors import UsageError
from yarnstore.ops.session.clock import zone_of
from yarnstore.registry.policies import AutoRules
from yarnstore.registry.windows import DAYS, Window, find_opening
from yarnstore.store import fsio
from yarnstore.store.filepath import Path

_LABEL = "yarnstore-auto-update"
_LAUNCHD_LABEL = "yarnstore.auto-update"
_DAY_NAMES = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


@dataclass(frozen=True)
class TimerFiles:
    """The timer files that were written."""

    kind: str  #: The kind of timer.
    files: dict[str, str]  #: The text of each file, by its path.
    enable: str  #: The command that enables the timer.
    disable: str  #: The command that disables it.


@dataclass(frozen=True)
class _Start:
    """A time to start a run: on `days` (None: every day) at `minute` of `hour` (None: every hour)."""

    days: tuple[int, ...] | None
    hour: int | None
    minute: int


def write_timer(kind: str, folder: Path, home: Path, rules: AutoRules) -> TimerFiles:
    """Write the files of a kind into a folder.  Raises: UsageError, StorageError."""
    if kind not in _KINDS:
        raise UsageError(f"unknown kind of timer {kind!r}", hint=f"use one of {', '.join(_KINDS)}")
    words = [sys.executable, "-m", "yarnstore", "auto-update", "run", "--home", str(home)]
    if any("\n" in word or "\0" in word for word in words):
        raise UsageError(f"a timer cannot contain the path {home}", hint="use a path without line breaks")
    made = _KINDS[kind](words, _starts(rules, datetime.now(UTC)), folder)
    for path, text in made.files.items():
        # Task Scheduler reads only UTF-16.
        data = text.encode("utf-16" if kind == "schtasks" else "utf-8")
        fsio.ensure_dir(folder)
        fsio.write_atomic(Path(path), data, tmp_dir=folder)
    return made


def _starts(rules: AutoRules, now: datetime) -> list[_Start]:
    """Return the times to start a run: every hour, and when a window opens.

    The system's timer uses the machine's time zone.  If the windows use another one, a run starts each hour
    at the minute at which a window opens.
    """
    windows: list[Window] = list(rules.default.windows)
    for rule in rules.models.values():
        windows += rule.windows
    found = [_Start(None, None, 0)]
    for window in windows:
        days = tuple(sorted(window.days)) if len(window.days) < len(DAYS) else None
        start = _Start(days, window.start // 60, window.start % 60)
        if rules.timezone:
            opening = find_opening([window], now, zone_of(rules))
            start = _Start(None, None, opening.opens.astimezone().minute if opening else 0)
        if start not in found and start.minute:  # a run starts at the full hour anyway
            found.append(start)
    return found


def _systemd(words: Sequence[str], starts: Sequence[_Start], folder: Path) -> TimerFiles:
    calendar = "\n".join(f"OnCalendar={_on_calendar(start)}" for start in starts)
    service = f"""\
[Unit]
Description=ystore: check for model updates
Wants=network-online.target
After=network-online.target

[Service]
Type=oneshot
ExecStart={" ".join(map(_systemd_word, words))}
Nice=10
IOSchedulingClass=idle
"""
    timer = f"""\
[Unit]
Description=ystore: scheduled checks for model updates

[Timer]
{calendar}
Persistent=true

[Install]
WantedBy=timers.target
"""
    files = {
        str(folder / f"{_LABEL}.service"): service,
        str(folder / f"{_LABEL}.timer"): timer,
    }
    return TimerFiles(
        "systemd",
        files,
        f"systemctl --user daemon-reload && systemctl --user enable --now {_LABEL}.timer",
        f"systemctl --user disable --now {_LABEL}.timer",
    )


def _on_calendar(start: _Start) -> str:
    days = f"{','.join(DAYS[day] for day in start.days)} " if start.days is not None else ""
    hour = "*" if start.hour is None else f"{start.hour:02}"
    return f"{days}*-*-* {hour}:{start.minute:02}:00"


def _systemd_word(word: str) -> str:
    """Quote a word of ExecStart, in which systemd expands `%` and `$` (systemd.service, systemd.unit)."""
    if _is_plain(word):
        return word
    text = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{text}"'


def _cron(words: Sequence[str], starts: Sequence[_Start], folder: Path) -> TimerFiles:
    # crontab(5) ends a line at %
    program, *arguments = (_shell_word(word).replace("%", "\\%") for word in words)
    tail = " ".join(arguments)
    command = f"{program} {tail}"
    lines = []
    for start in starts:
        hour = "*" if start.hour is None else str(start.hour)
        # cron's Sunday is 0.
        days = "*" if start.days is None else ",".join(str((day + 1) % 7) for day in start.days)
        lines.append(f"{start.minute} {hour} * * {days} {command}")
    path = folder / f"{_LABEL}.cron"
    # The lines of this store, recognised by their endings.
    mine = re.sub(r"([][.*^$\\])", r"\\\1", tail) + "$"
    others = f"crontab -l 2>/dev/null | grep -v -e {_shell_word(mine)}"
    return TimerFiles(
        "cron",
        {str(path): "\n".join(lines) + "\n"},
        f"({others}; cat {_shell_word(str(path))}) | crontab -",
        f"{others} | crontab -",
    )


def _is_plain(word: str) -> bool:
    """Whether a word needs no quoting."""
    return bool(word) and all(char.isalnum() or char in "/._-+:@," for char in word)


def _shell_word(word: str) -> str:
    if _is_plain(word):
        return word
    return "'" + word.replace("'", "'\\''") + "'"


def _launchd(words: Sequence[str], starts: Sequence[_Start], folder: Path) -> TimerFiles:
    intervals: list[dict[str, int]] = []
    for start in starts:
        at = {"Minute": start.minute, **({} if start.hour is None else {"Hour": start.hour})}
        if start.days is None:
            intervals.append(at)
        else:
            intervals += [{**at, "Weekday": (day + 1) % 7} for day in start.days]
    document = {
        "Label": _LAUNCHD_LABEL,
        "ProgramArguments": list(words),
        "StartCalendarInterval": intervals,
        "ProcessType": "Background",
        "LowPriorityIO": True,
        "Nice": 10,
    }
    path = folder / f"{_LAUNCHD_LABEL}.plist"
    return TimerFiles(
        "launchd",
        {str(path): plistlib.dumps(document, sort_keys=False).decode()},
        f"launchctl bootstrap gui/$(id -u) {_shell_word(str(path))}",
        f"launchctl bootout gui/$(id -u)/{_LAUNCHD_LABEL}",
    )


def _schtasks(words: Sequence[str], starts: Sequence[_Start], folder: Path) -> TimerFiles:
    triggers = "\n".join(map(_trigger, starts))
    arguments = escape(" ".join(f'"{word}"' if " " in word else word for word in words[1:]))
    # Task Scheduler requires the schema's order of elements.  By itself it starts nothing on battery power,
    # and ends what runs; the run itself waits for power if the settings say so.
    text = f"""\
<?xml version="1.0" encoding="UTF-16"?>
<Task version="1.2" xmlns="http://schemas.microsoft.com/windows/2004/02/mit/task">
  <RegistrationInfo>
    <Description>ystore: check for model updates</Description>
  </RegistrationInfo>
  <Triggers>
{triggers}
  </Triggers>
  <Settings>
    <MultipleInstancesPolicy>IgnoreNew</MultipleInstancesPolicy>
    <DisallowStartIfOnBatteries>false</DisallowStartIfOnBatteries>
    <StopIfGoingOnBatteries>false</StopIfGoingOnBatteries>
    <StartWhenAvailable>true</StartWhenAvailable>
    <RunOnlyIfNetworkAvailable>true</RunOnlyIfNetworkAvailable>
    <Priority>7</Priority>
  </Settings>
  <Actions>
    <Exec>
      <Command>{escape(words[0])}</Command>
      <Arguments>{arguments}</Arguments>
    </Exec>
  </Actions>
</Task>
"""
    path = folder / f"{_LABEL}.xml"
    return TimerFiles(
        "schtasks",
        {str(path): text},
        f'schtasks /Create /TN {_LABEL} /XML "{path}"',
        f"schtasks /Delete /TN {_LABEL}",
    )


def _trigger(start: _Start) -> str:
    hour = 0 if start.hour is None else start.hour
    repetition = (
        "" if start.hour is not None else "      <Repetition><Interval>PT1H</Interval></Repetition>\n"
    )
    if start.days is None:
        schedule = "<ScheduleByDay><DaysInterval>1</DaysInterval></ScheduleByDay>"
    else:
        days = "".join(f"<{_DAY_NAMES[day]} />" for day in start.days)
        week = f"<DaysOfWeek>{days}</DaysOfWeek><WeeksInterval>1</WeeksInterval>"
        schedule = f"<ScheduleByWeek>{week}</ScheduleByWeek>"
    return (
        "    <CalendarTrigger>\n"
        f"{repetition}"
        f"      <StartBoundary>2024-01-01T{hour:02}:{start.minute:02}:00</StartBoundary>\n"
        f"      {schedule}\n"
        "    </CalendarTrigger>"
    )


_KINDS: dict[str, Callable[[Sequence[str], Sequence[_Start], Path], TimerFiles]] = {
    "systemd": _systemd,
    "cron": _cron,
    "launchd": _launchd,
    "schtasks": _schtasks,
}
TIMER_KINDS = tuple(_KINDS)
