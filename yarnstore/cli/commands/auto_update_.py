"""`ystore auto-update`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from yarnstore.cli.after import free_space, wait_option
from yarnstore.cli.command import Invocation, command
from yarnstore.cli.display import arrow, clean, format_iso_age, format_iso_time, one_line, size
from yarnstore.cli.group import Group
from yarnstore.errors import ConfigError
from yarnstore.progress import plural

if TYPE_CHECKING:
    from yarnstore.results import AutoUpdateOutcome, AutoUpdateRound, AutoUpdateStatus, TimerFiles

_POLICIES = ("notify", "patch", "minor", "security")
_TIMERS = ("systemd", "cron", "launchd", "schtasks")
_FAILED = 1


@click.group(
    "auto-update",
    cls=Group,
    epilog='\b\nExample:\n  ystore auto-update enable --policy minor --window "Sat,Sun 02:00-05:00"',
)
def cli() -> None:
    """Check for updates on a schedule and optionally install them.

    Disabled by default.  The default policy only reports updates; major versions are never installed.
    """


@command(
    "enable",
    example="ystore auto-update enable\n"
    'ystore auto-update enable phi-3-mini --policy minor --window "Sat,Sun 02:00-05:00"',
)
@click.argument("models", nargs=-1, metavar="[MODEL]...")
@click.option(
    "--window",
    "windows",
    multiple=True,
    metavar="WINDOW",
    help="When checks may run, such as 'Sat,Sun 02:00-05:00'; may be repeated; '' means at any time.",
)
@click.option(
    "--policy",
    type=click.Choice(_POLICIES),
    help="Updates to install; notify, the default, only reports them.",
)
@click.option(
    "--jitter", metavar="TIME", help="Wait a random time up to TIME before each check, such as 30m."
)
def _enable(
    run: Invocation, models: tuple[str, ...], windows: tuple[str, ...], policy: str | None, jitter: str | None
) -> None:
    """Check all installed models, or those named, on a schedule."""
    given = [text for text in windows if text.strip()] if windows else None
    with run.store() as store:
        found = store.set_auto_update(*models, enabled=True, policy=policy, windows=given, jitter=jitter)
    _show(run, found)
    run.output.say("  `ystore auto-update install-timer` writes the timer that runs the checks")


@command("disable", example="ystore auto-update disable\nystore auto-update disable phi-3-mini")
@click.argument("models", nargs=-1, metavar="[MODEL]...")
def _disable(run: Invocation, models: tuple[str, ...]) -> None:
    """Stop checking all models, or those named."""
    with run.store() as store:
        found = store.set_auto_update(*models, enabled=False)
    _show(run, found)


@command("reset", example="ystore auto-update reset phi-3-mini")
@click.argument("models", nargs=-1, required=True, metavar="MODEL...")
def _reset(run: Invocation, models: tuple[str, ...]) -> None:
    """Remove model-specific settings.

    These models then follow the settings of all models.
    """
    with run.store() as store:
        found = store.reset_auto_update(*models)
    _show(run, found)


@command("status", example="ystore auto-update status")
@click.argument("models", nargs=-1, metavar="[MODEL]...")
def _status(run: Invocation, models: tuple[str, ...]) -> None:
    """Show which models are checked, with which policy, and when."""
    with run.store() as store:
        found = store.auto_update_status(*models)
    _show(run, found)


@command("run", example="ystore auto-update run\nystore auto-update run --now")
@click.option(
    "--now", is_flag=True, help="Run now: outside of maintenance windows too, on any network and power."
)
@wait_option
def _run(run: Invocation, now: bool, no_wait: bool) -> None:
    """Check for updates in a maintenance window; timers run this.

    Does nothing while another process, such as `ystore serve`, is checking for updates.  Exits with 1 if a
    model could not be updated; its installed version stays.
    """
    with run.store() as store:
        done = store.run_auto_update(now=now, wait=False)
        rows = [
            (one.model, one.status, one.installed, one.version, one.kind, one.download_bytes, _note(one))
            for one in done.models
            if one.status == "failed" or not run.output.quiet
        ]
        run.output.report(done, lambda: _round_text(done), rows)
        free_space(run, store, done.models, no_wait=no_wait)
    if any(item.status == "failed" for item in done.models):
        raise click.exceptions.Exit(_FAILED)


@command(
    "install-timer", example="ystore auto-update install-timer\nystore auto-update install-timer --kind cron"
)
@click.option("--kind", type=click.Choice(_TIMERS), help="Kind of timer (default: the one of this system).")
@click.option(
    "--dir",
    "folder",
    type=click.Path(file_okay=False),
    metavar="DIR",
    help="Folder for the files (default: where the system expects them).",
)
def _install_timer(run: Invocation, kind: str | None, folder: str | None) -> None:
    """Write timer files that run `auto-update run`.

    Prints the commands that enable and disable the timer, and runs neither.  The kinds launchd and
    schtasks are not tested on macOS and Windows yet.
    """
    kind = kind or _own_kind()
    with run.store() as store:
        made = store.write_timer(kind, _own_folder(kind, store.home) if folder is None else folder)
    run.output.report(made, lambda: _timer_text(made), [(path,) for path in made.files], hang=None)


def _own_kind() -> str:
    if sys.platform == "darwin":
        return "launchd"
    if sys.platform == "win32":
        return "schtasks"
    return "systemd" if Path("/run/systemd/system").is_dir() else "cron"


def _own_folder(kind: str, home: Path) -> Path:
    """The folder where the system looks for timers; for kinds that are registered by path, the store's."""
    try:
        if kind == "systemd":
            config = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
            return Path(config) / "systemd" / "user"
        if kind == "launchd":
            return Path.home() / "Library" / "LaunchAgents"
    except RuntimeError:
        raise ConfigError(
            "no home folder to write a timer into: HOME is not set, and passwd has no entry for this user",
            hint="give --dir DIR",
        ) from None
    return home


def _show(run: Invocation, found: AutoUpdateStatus) -> None:
    rows = [
        (item.model, "on" if item.enabled else "off", item.policy, ", ".join(item.windows), item.opens)
        for item in found.models
    ]
    run.output.report(found, lambda: _status_text(found), rows)


def _status_text(found: AutoUpdateStatus) -> str:
    if not found.enabled:
        listed = any(item.enabled for item in found.models)
        lines = ["auto-update: off" + (", except as listed below" if listed else "")]
    else:
        times = f" {', '.join(found.windows)}" if found.windows else " at any time"
        lines = [f"auto-update: {_policy(found.policy)},{times}"]
    for item in found.models:
        if not item.enabled:
            lines.append(f"  {item.model}: off")
            continue
        when = ", ".join(item.windows) or "at any time"
        opens = f"opens {format_iso_time(item.opens)}" if item.opens else "never opens"
        state = "open now" if item.is_open else opens
        lines.append(f"  {item.model}: {_policy(item.policy)}, {when} ({state})")
    if found.network == "unmetered":
        lines.append("  only on a network that is not metered")
    if found.power == "mains":
        lines.append("  only on mains power")
    last = format_iso_age(found.last_check) if found.last_check else "never"
    lines.append(f"  last check: {last}")
    return "\n".join(lines)


def _policy(policy: str) -> str:
    return {
        "notify": "reports updates",
        "patch": "installs patches",
        "minor": "installs minor versions and patches",
        "security": "installs security updates",
    }[policy]


def _note(item: AutoUpdateOutcome) -> str:
    if item.error is not None:
        return one_line(str(item.error["message"]))
    if item.status == "closed" and item.opens:
        return f"opens {item.opens}"
    return one_line(item.note)


def _round_text(done: AutoUpdateRound) -> str:
    if done.running_in:
        return f"{done.running_in} is already checking for updates; nothing was done"
    if done.postponed and not done.models:
        return "nothing was checked"  # a note said why
    if not done.models:
        return "no model is checked automatically   (ystore auto-update enable)"
    lines = [_outcome_text(item) for item in done.models]
    updated = sum(item.status == "updated" for item in done.models)
    if updated:
        lines.append(f"{plural(updated, 'model')} updated")
    return "\n".join(lines)


def _outcome_text(item: AutoUpdateOutcome) -> str:
    step = clean(arrow(item.model, item.installed, item.version or "–"))
    got = f", {size(item.download_bytes)}" if item.download_bytes else ""
    match item.status:
        case "updated":
            return f"{step} installed{got}   (back: ystore rollback {item.model})"
        case "available":
            note = f"\n  {one_line(item.note)}" if item.note else ""
            major = "--major " if item.kind == "major" else ""
            return f"{step} is available ({item.kind}{got})   (ystore update {major}{item.model}){note}"
        case "held":
            return f"{item.model} {item.installed} stays: {one_line(item.note)}"
        case "current":
            return f"{item.model} {item.installed} is up to date"
        case "pinned":
            return f"{item.model} {item.installed} is pinned; not updated"
        case "closed":
            opens = f"; the next one opens {format_iso_time(item.opens)}" if item.opens else ""
            return f"{item.model} {item.installed}: no window is open{opens}"
        case "stopped":
            return f"{step}: {one_line(item.note)}; the next run continues"
        case _:
            return f"{item.model} {item.installed}: {_note(item)}"


def _timer_text(made: TimerFiles) -> str:
    lines = []
    for path, text in made.files.items():
        lines += [path, *(f"  {line}" for line in text.splitlines()), ""]
    lines += ["to enable it:   " + made.enable, "to disable it:  " + made.disable]
    return "\n".join(lines)


for _command in (_enable, _disable, _reset, _status, _run, _install_timer):
    cli.add_command(_command)
