"""What auto-update waits for: programs of the system that say whether a network is metered, and the power."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.support.stores import Site, make_site
from yarnstore import Progress, Store
from yarnstore.errors import ConfigError
from yarnstore.ops.installing import conditions
from yarnstore.ops.installing.auto_update import AutoUpdateRound, Clockwork, auto_update_status, run_round
from yarnstore.ops.installing.conditions import is_metered
from yarnstore.registry.policies import AutoRule, AutoRules, parse_auto_update
from yarnstore.store import native

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the programs here are scripts of a POSIX shell")

UNMETERED = AutoRules(AutoRule(True, "minor"), network="unmetered")
METERED, FREE = "echo u 1", "echo u 4"
CLOCKWORK = Clockwork(sleep=lambda _: None)


class System:
    """A folder of programs, the only ones on PATH."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def has(self, name: str, script: str) -> None:
        """Add a program, or replace it."""
        path = self.folder / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> System:
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setattr(sys, "platform", "linux")
    return System(folder)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """phi-3-mini and whisper 1.0.0 installed; 1.1.0 published."""
    site = make_site(tmp_path, models=("phi-3-mini", "whisper"), versions=("1.0.0", "1.1.0"))
    with site.store() as store:
        for model in site.models:
            store.checkout(f"{model}@1.0.0")
    return site


def run(site: Site, rules: AutoRules, *, at_once: bool = False) -> tuple[AutoUpdateRound, list[str]]:
    notes: list[str] = []

    def tell(event: Progress) -> None:
        if event.phase == "note":
            notes.append(event.text)

    with Store.open(site.home, progress=tell) as store, store._session() as session:
        return run_round(session, rules, now_at_once=at_once, clockwork=CLOCKWORK), notes


def statuses(done: AutoUpdateRound) -> list[str]:
    return [item.status for item in done.models]


# --- asking the system ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        *((METERED, True), ("echo u 3", True), ("echo u 2", False), (FREE, False)),
        *(("echo u 0", None), ("echo u 17", None), ("printf '\\377'", None), ("echo u 1; exit 1", None)),
    ],
)
def test_networkmanager_says_whether_the_network_is_metered(
    script: str, expected: bool | None, system: System
) -> None:
    assert is_metered("linux") is None, "there is no such program"
    called = system.folder / "called"
    system.has("busctl", f'echo "$*" > {called}; {script}')
    assert is_metered("linux") is expected
    assert called.read_text().endswith(
        "org.freedesktop.NetworkManager /org/freedesktop/NetworkManager "
        "org.freedesktop.NetworkManager Metered\n"
    )


def test_a_program_that_does_not_answer_is_not_waited_for(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conditions, "_PATIENCE_S", 0.2)
    system.has("busctl", "exec /bin/sleep 600")
    assert is_metered("linux") is None


@pytest.mark.parametrize(
    ("cost", "expected"),
    [("Fixed", True), ("Variable", True), ("Unrestricted", False), ("Unknown", None), ("", None)],
)
def test_windows_says_whether_the_network_is_metered(
    cost: str, expected: bool | None, system: System
) -> None:
    system.has("powershell", f'case "$*" in *GetInternetConnectionProfile*) echo {cost};; esac')
    assert is_metered("win32") is expected


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("eflags=10001080<TXSTART,NOAUTOIPV6LL,EXPENSIVE>", True),
        ("eflags=412008840<ACCEPT_RTADV,TXSTART,NOAUTOIPV6LL>", False),
        ("eflags=80 xflags=4<EXPENSIVE>", False),
        ("mtu 1500", None),
    ],
)
def test_macos_says_whether_the_network_is_expensive(
    flags: str, expected: bool | None, system: System
) -> None:
    assert is_metered("darwin") is None
    system.has("route", "printf '   route to: default\\n  interface: en7\\n      flags: <UP>\\n'")
    assert is_metered("darwin") is None
    system.has("ifconfig", f'[ "$*" = "-v en7" ] && printf "en7: flags=8863<UP>\\n\\t{flags}\\n"')
    assert is_metered("darwin") is expected


# --- runs ----------------------------------------------------------------------------------------


def test_on_a_metered_network_a_run_waits_and_says_why(site: Site, system: System) -> None:
    system.has("busctl", METERED)
    with site.store() as store:
        before = store.auto_update_status().last_check
    done, notes = run(site, UNMETERED)
    assert (done.checked, done.models, done.postponed) == (False, [], "the network is metered")
    assert notes == ["the network is metered: auto-update waits"]
    with site.store() as store:
        assert store.auto_update_status().last_check == before
        assert {item.version for item in store.list_installed_models()} == {"1.0.0"}
    system.has("busctl", FREE)
    done, notes = run(site, UNMETERED)
    assert (done.checked, done.postponed, statuses(done)) == (True, None, ["updated", "updated"])
    assert not any("waits" in note for note in notes)


def test_without_the_setting_nothing_is_asked(site: Site, system: System) -> None:
    system.has("busctl", f"echo asked > {system.folder / 'asked'}; {METERED}")
    done, _ = run(site, AutoRules(AutoRule(True, "minor")))
    assert statuses(done) == ["updated", "updated"]
    assert not (system.folder / "asked").exists()


def test_a_run_at_once_waits_for_nothing(site: Site, system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    system.has("busctl", METERED)
    monkeypatch.setattr(native, "on_battery", lambda: True)
    rules = AutoRules(AutoRule(True, "minor"), network="unmetered", power="mains")
    done, _ = run(site, rules, at_once=True)
    assert (done.postponed, statuses(done)) == (None, ["updated", "updated"])


@pytest.mark.parametrize(("answer", "postponed"), [(True, True), (False, False), (None, False)])
def test_on_battery_power_a_run_waits_if_the_system_says_so(
    answer: bool | None, postponed: bool, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native, "on_battery", lambda: answer)
    done, _ = run(site, AutoRules(AutoRule(True, "notify"), power="mains"))
    assert done.postponed == ("this machine runs on battery power" if postponed else None)
    assert statuses(done) == ([] if postponed else ["available", "available"])


def test_a_network_that_becomes_metered_ends_a_download_and_keeps_what_came(
    site: Site, system: System
) -> None:
    system.has("busctl", FREE)
    now, arrived = [1_700_000_000.0], [0]

    def tell(event: Progress) -> None:
        if event.phase == "download" and 0 < event.bytes_done < event.bytes_total:
            arrived.append(event.bytes_done)
            system.has("busctl", METERED)
            now[0] += 61

    with Store.open(site.home, progress=tell) as store, store._session() as session:
        session.activity.clock = lambda: now[0]
        done = run_round(session, UNMETERED, clockwork=CLOCKWORK)
    assert statuses(done) == ["stopped", "stopped"]
    assert [item.note for item in done.models] == [
        "the network is metered; downloaded data is kept",
        "the network is metered",
    ]
    system.has("busctl", FREE)
    done, _ = run(site, UNMETERED)
    assert statuses(done) == ["updated", "updated"]
    first, second = (item.download_bytes or 0 for item in done.models)
    assert first <= second - max(arrived) * 0.9, "it downloaded again what had come"


# --- settings ------------------------------------------------------------------------------------


def test_the_settings_are_read_and_shown(site: Site) -> None:
    rules = parse_auto_update({"auto_update": {"network": "unmetered", "power": "mains"}})
    assert (rules.network, rules.power) == ("unmetered", "mains")
    assert parse_auto_update({"auto_update": {"enabled": True}}).network == "any"
    with site.store() as store, store._session() as session:
        found = auto_update_status(session, rules)
        assert (found.network, found.power) == ("unmetered", "mains")


@pytest.mark.parametrize(("name", "value"), [("network", "wifi"), ("network", True), ("power", "battery")])
def test_other_values_are_refused(name: str, value: object) -> None:
    with pytest.raises(ConfigError, match=rf"auto_update\.{name} is .*, not one of any, "):
        parse_auto_update({"auto_update": {name: value}})
