"""Rounds of auto-update: windows, policies, and a window that closes meanwhile, by a fake clock."""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.support.registries import amend, publish
from tests.support.servers import Reply, ScriptedServer, Seen, files
from tests.support.stores import Site, make_site, make_version
from yarnstore import Progress, Store
from yarnstore.errors import ConfigError, NoRegistryError, NotFoundError
from yarnstore.ops.installing.auto_update import AutoUpdateRound, Clockwork, auto_update_status, run_round
from yarnstore.ops.session.clock import LocalZone, zone_of
from yarnstore.ops.session.session import Session
from yarnstore.registry.host import Host
from yarnstore.registry.policies import AutoPolicy, AutoRule, AutoRules, parse_auto_update
from yarnstore.registry.windows import Window

SATURDAY_3_AM = datetime(2024, 5, 4, 3, 0, tzinfo=UTC).timestamp()
FRIDAY_NOON = datetime(2024, 5, 3, 12, 0, tzinfo=UTC).timestamp()
NIGHT = Window.parse("Sat,Sun 02:00-05:00")
CLOCKWORK = Clockwork(draw=lambda: 0.5, sleep=lambda _: None)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """phi-3-mini and whisper 1.0.0 installed; 1.0.1, 1.1.0 and 2.0.0 published."""
    site = make_site(
        tmp_path_factory.mktemp("auto"),
        models=("phi-3-mini", "whisper"),
        versions=("1.0.0", "1.0.1", "1.1.0", "2.0.0"),
    )
    with site.store() as store:
        for model in site.models:
            store.checkout(f"{model}@1.0.0")
    return site


@pytest.fixture
def site(made: Site, tmp_path: Path) -> Site:
    return made.copy(tmp_path, registry=True)


def rules(policy: AutoPolicy = "minor", *windows: Window, jitter_s: float = 0.0) -> AutoRules:
    return AutoRules(AutoRule(True, policy, windows), jitter_s=jitter_s, timezone="UTC")


@contextmanager
def session_at(site: Site, now: float) -> Iterator[Session]:
    with site.store() as store, store._session() as session:
        session.activity.clock = lambda: now
        yield session


def use_own_registry(site: Site) -> None:
    """Have the store use the site's copy of the registry."""
    with site.store() as store:
        store.remove_registry("made")
        store.add_registry("made", site.registry)


def run(
    site: Site, rules_: AutoRules, now: float = SATURDAY_3_AM, *, at_once: bool = False
) -> AutoUpdateRound:
    with session_at(site, now) as session:
        return run_round(session, rules_, now_at_once=at_once, clockwork=CLOCKWORK)


def versions(site: Site) -> dict[str, str]:
    with site.store() as store:
        return {item.model: item.version for item in store.list_installed_models()}


def statuses(done: AutoUpdateRound) -> dict[str, str]:
    return {item.model: item.status for item in done.models}


@pytest.mark.parametrize(
    ("policy", "status", "version"),
    [
        ("notify", "available", "1.0.0"),
        ("patch", "updated", "1.0.1"),
        ("minor", "updated", "1.1.0"),
        ("security", "available", "1.0.0"),
    ],
)
def test_each_policy(site: Site, policy: AutoPolicy, status: str, version: str) -> None:
    done = run(site, rules(policy, NIGHT))
    assert statuses(done) == {"phi-3-mini": status, "whisper": status}
    assert versions(site) == {"phi-3-mini": version, "whisper": version}
    if policy == "notify":
        assert {item.version for item in done.models} == {"1.1.0"}
        packs = (site.home / "packs", site.root / "home" / "packs")
        assert len(set(packs[0].glob("*.pack"))) == len(set(packs[1].glob("*.pack"))), (
            "it downloaded something"
        )


def test_a_security_update_is_installed_by_that_policy(site: Site) -> None:
    Store.publish(
        make_version(site.home.parent / "1.1.1", "1.1.1"),
        "phi-3-mini@1.1.1",
        registry=site.registry,
        security=True,
    )
    registry = json.loads((site.registry / "registry.json").read_text())
    registry["models"]["phi-3-mini"]["current_version"] = "2.0.0"
    (site.registry / "registry.json").write_text(json.dumps(registry))
    use_own_registry(site)
    done = run(site, rules("security"))
    assert statuses(done) == {"phi-3-mini": "updated", "whisper": "available"}
    assert versions(site) == {"phi-3-mini": "1.1.1", "whisper": "1.0.0"}


def test_never_a_major_one(site: Site) -> None:
    with site.store() as store:
        for model in site.models:
            store.checkout(f"{model}@1.1.0")
    done = run(site, rules("minor"))
    assert statuses(done) == {"phi-3-mini": "available", "whisper": "available"}
    assert {(item.version, item.kind) for item in done.models} == {("2.0.0", "major")}
    assert set(versions(site).values()) == {"1.1.0"}


def test_off_is_off(site: Site) -> None:
    assert run(site, AutoRules(), at_once=True) == AutoUpdateRound(False, 0.0, None, [])
    only = AutoRules(AutoRule(), {"whisper": AutoRule(True, "minor")})
    assert statuses(run(site, only)) == {"whisper": "updated"}
    assert versions(site) == {"phi-3-mini": "1.0.0", "whisper": "1.1.0"}


def test_outside_of_its_window_nobody_is_asked(site: Site) -> None:
    (site.registry / "registry.json").unlink()  # asking would fail
    done = run(site, rules("minor", NIGHT), FRIDAY_NOON)
    assert statuses(done) == {"phi-3-mini": "closed", "whisper": "closed"}
    assert (done.checked, done.opens) == (False, "2024-05-04T02:00:00Z")
    assert json.loads((site.home / "local-state.json").read_text())["last_check"] is None


def test_at_once_needs_no_window_and_waits_for_none(site: Site) -> None:
    done = run(site, rules("minor", NIGHT, jitter_s=1800), FRIDAY_NOON, at_once=True)
    assert (done.checked, done.waited_s) == (True, 0.0)
    assert set(versions(site).values()) == {"1.1.0"}
    assert json.loads((site.home / "local-state.json").read_text())["last_check"] == "2024-05-03T12:00:00Z"


def test_models_have_windows_of_their_own(site: Site) -> None:
    day = AutoRule(True, "minor", (Window.parse("Fri 11:00-13:00"),))
    both = AutoRules(AutoRule(True, "minor", (NIGHT,)), {"whisper": day}, timezone="UTC")
    assert statuses(run(site, both, FRIDAY_NOON)) == {"phi-3-mini": "closed", "whisper": "updated"}


def test_jitter_waits_within_the_window(site: Site) -> None:
    waited: list[float] = []
    clockwork = Clockwork(draw=lambda: 0.5, sleep=waited.append)
    with session_at(site, SATURDAY_3_AM) as session:
        run_round(session, rules("notify", NIGHT, jitter_s=600), clockwork=clockwork)
        run_round(session, rules("notify", NIGHT, jitter_s=1e6), clockwork=clockwork)
    assert waited == [300, 1800 * 2 / 2]


def test_a_window_that_closes_starts_no_further_model(site: Site) -> None:
    now = [SATURDAY_3_AM]

    def tell(event: Progress) -> None:
        if "phi-3-mini 1.1.0" in event.subject and event.phase == "write":
            now[0] += 3 * 3600  # it closes while the first is being installed

    with Store.open(site.home, progress=tell) as store, store._session() as session:
        session.activity.clock = lambda: now[0]
        done = run_round(session, rules("minor", NIGHT), clockwork=CLOCKWORK)
    assert statuses(done) == {"phi-3-mini": "updated", "whisper": "stopped"}
    assert versions(site) == {"phi-3-mini": "1.1.0", "whisper": "1.0.0"}


def test_a_window_that_closes_ends_a_download_and_keeps_what_came(site: Site) -> None:
    now = [SATURDAY_3_AM]
    arrived: list[int] = []

    def tell(event: Progress) -> None:
        if event.phase == "download":
            arrived.append(event.bytes_done)
            if 0 < event.bytes_done < event.bytes_total:
                now[0] = SATURDAY_3_AM + 3 * 3600

    with Store.open(site.home, progress=tell) as store, store._session() as session:
        session.activity.clock = lambda: now[0]
        done = run_round(session, rules("minor", NIGHT), clockwork=CLOCKWORK)
        now[0] = SATURDAY_3_AM
        assert statuses(done) == {"phi-3-mini": "stopped", "whisper": "stopped"}
        assert versions(site) == {"phi-3-mini": "1.0.0", "whisper": "1.0.0"}
        came = max(arrived)
        assert came > 0
    done = run(site, rules("minor", NIGHT))
    assert statuses(done) == {"phi-3-mini": "updated", "whisper": "updated"}
    first, second = done.models
    assert first.download_bytes is not None
    assert second.download_bytes is not None
    assert first.download_bytes <= second.download_bytes - came * 0.9, "it downloaded again what had come"


def test_a_broken_model_leaves_the_others_be(site: Site) -> None:
    registry = json.loads((site.registry / "registry.json").read_text())
    registry["models"]["phi-3-mini"]["versions"]["1.1.0"]["manifest"] = "sha256:" + "0" * 64
    (site.registry / "registry.json").write_text(json.dumps(registry))
    use_own_registry(site)
    done = run(site, rules("minor"))
    assert statuses(done) == {"phi-3-mini": "failed", "whisper": "updated"}
    assert done.models[0].error is not None
    assert versions(site) == {"phi-3-mini": "1.0.0", "whisper": "1.1.0"}


def test_a_link_that_a_killed_run_left_behind_is_set_by_the_next(site: Site) -> None:
    links = {model: site.home / "models" / model for model in site.models}
    before = {model: os.readlink(link) for model, link in links.items()}
    run(site, rules("minor"))
    after = {model: os.readlink(link) for model, link in links.items()}
    links["phi-3-mini"].unlink()
    links["whisper"].unlink()
    links["whisper"].symlink_to(before["whisper"])
    assert not any(item.changed for item in run(site, rules("minor")).models)
    assert {model: os.readlink(link) for model, link in links.items()} == after
    with site.store() as store:
        assert store.fsck().problems == []


def test_what_was_rolled_back_does_not_come_again(site: Site) -> None:
    assert set(statuses(run(site, rules("minor"))).values()) == {"updated"}
    with site.store() as store:
        store.rollback_model("whisper")
    done = run(site, rules("minor"))
    assert statuses(done)["whisper"] == "available"
    assert "was rolled back" in (done.models[1].note or "")
    assert versions(site)["whisper"] == "1.0.0"


def test_a_patch_that_was_rolled_back_does_not_come_again(site: Site) -> None:
    assert set(statuses(run(site, rules("patch"))).values()) == {"updated"}
    with site.store() as store:
        assert store.rollback_model("whisper").version == "1.0.0"
    for _ in range(2):
        assert statuses(run(site, rules("patch")))["whisper"] == "available"
    assert versions(site) == {"phi-3-mini": "1.0.1", "whisper": "1.0.0"}
    assert statuses(run(site, rules("minor")))["whisper"] == "updated", "what is newer than it may come"


def test_a_self_check_that_fails_is_not_tried_every_night(site: Site) -> None:
    with (site.home / "config.toml").open("a") as file:
        file.write('[models.whisper]\nverify_command = ["false"]\n')
    done = run(site, rules("minor"))
    assert statuses(done) == {"phi-3-mini": "updated", "whisper": "failed"}
    assert done.models[1].error is not None
    assert done.models[1].error["code"] == "self-check"
    assert statuses(run(site, rules("minor")))["whisper"] == "available"
    assert versions(site) == {"phi-3-mini": "1.1.0", "whisper": "1.0.0"}


def test_a_pin_holds(site: Site) -> None:
    with site.store() as store:
        store.pin("whisper")
    assert statuses(run(site, rules("minor")))["whisper"] == "pinned"
    assert versions(site)["whisper"] == "1.0.0"


def test_without_a_registry(site: Site) -> None:
    with site.store() as store:
        store.remove_registry("made")
    with pytest.raises(NoRegistryError):
        run(site, rules("minor"))


# --- through the API -----------------------------------------------------------------------------


def test_switching_is_kept_and_told(site: Site) -> None:
    with site.store() as store:
        assert not store.auto_update_status().enabled
        found = store.set_auto_update(enabled=True, policy="patch", windows=["sat 2:00-3:00"], jitter="5m")
        assert (found.enabled, found.policy, found.windows, found.jitter_s) == (
            True, "patch", ("Sat 02:00-03:00",), 300.0,
        )  # fmt: skip
        assert [item.model for item in found.models] == ["phi-3-mini", "whisper"]
        store.set_auto_update("whisper", enabled=False)
    state = json.loads((site.home / "local-state.json").read_text())
    assert state["auto_update_enabled"] is True
    again = Store.open(site.home)
    assert {item.model: item.enabled for item in again.auto_update_status().models} == {
        "phi-3-mini": True,
        "whisper": False,
    }
    again.set_auto_update(enabled=False)
    assert json.loads((site.home / "local-state.json").read_text())["auto_update_enabled"] is False
    assert again.run_auto_update(now=True).models == []


def test_status_says_when(site: Site) -> None:
    with session_at(site, SATURDAY_3_AM) as session:
        found = auto_update_status(session, rules("minor", NIGHT), ("whisper",)).models
        assert [(item.model, item.is_open, item.opens, item.closes) for item in found] == [
            ("whisper", True, None, "2024-05-04T05:00:00Z")
        ]
    with session_at(site, FRIDAY_NOON) as session:
        (row, _) = auto_update_status(session, rules("minor", NIGHT)).models
        assert (row.is_open, row.opens, row.closes) == (False, "2024-05-04T02:00:00Z", None)
        (row, _) = auto_update_status(session, rules("minor")).models
        assert (row.is_open, row.opens, row.closes) == (True, None, None)


def test_zones() -> None:
    assert str(zone_of(AutoRules(timezone="Europe/Berlin"))) == "Europe/Berlin"
    for name in ("Europe/Nowhere", "../etc/passwd", "\0"):
        with pytest.raises(ConfigError):
            zone_of(AutoRules(timezone=name))


@pytest.mark.parametrize("month", [1, 3, 7, 10])
def test_the_machines_own_zone(month: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    try:
        berlin, own = zone_of(AutoRules(timezone="Europe/Berlin")), LocalZone()
        for day in range(1, 32):
            for hour in range(24):
                instant = datetime(2024, month, day, hour, 30, tzinfo=UTC)
                ours, theirs = instant.astimezone(own), instant.astimezone(berlin)
                assert (ours.replace(tzinfo=None), ours.fold) == (theirs.replace(tzinfo=None), theirs.fold)
                assert ours.utcoffset() == theirs.utcoffset()
                assert ours.astimezone(UTC) == instant
    finally:
        monkeypatch.undo()
        time.tzset()


def test_the_rules_of_a_config_that_nobody_can_read_end_the_command(site: Site) -> None:
    (site.home / "config.toml").write_text("[auto_update]\npolicy = 'major'\n")
    with pytest.raises(ConfigError):
        Store.open(site.home)
    with pytest.raises(ConfigError):
        parse_auto_update({"auto_update": {"policy": "major"}})


def test_what_the_application_is_too_old_for_is_not_offered(site: Site) -> None:
    def change(models: dict[str, Any]) -> None:
        for version in ("1.0.1", "1.1.0", "2.0.0"):
            models["whisper"]["versions"][version]["compatibility"] = [">=2.0.0"]

    amend(site.registry, change)
    use_own_registry(site)
    with site.store() as store, store._session() as session:
        old = msgspec.structs.replace(session, host=Host(app_version="1.5.0"))
        done = run_round(old, rules("minor"), now_at_once=True, clockwork=CLOCKWORK)
    assert statuses(done) == {"phi-3-mini": "updated", "whisper": "held"}
    assert "needs application version >=2.0.0; yours is 1.5.0" in (done.models[1].note or "")


def test_enabling_asks_for_a_model_that_exists(site: Site) -> None:
    told: list[str] = []
    use_own_registry(site)
    with site.store() as store:
        store.progress = lambda event: told.append(event.text)
        with pytest.raises(NotFoundError) as caught:
            store.set_auto_update("whispr", enabled=True)
        assert "whisper" in caught.value.message
        assert not store.auto_update_status().enabled
        site.registry.rename(site.registry.parent / "elsewhere")
        assert store.set_auto_update("whispr", enabled=True).models[0].enabled
    assert any(text.startswith("cannot check whether whispr exists") for text in told)


def test_a_model_that_nobody_installed(site: Site) -> None:
    publish(site.registry, "llama@1.0.0")
    use_own_registry(site)
    with site.store() as store:
        store.set_auto_update("llama", enabled=True)
        assert [item.model for item in store.auto_update_status().models] == [
            "llama",
            "phi-3-mini",
            "whisper",
        ]
        assert store.run_auto_update().models == []
        with pytest.raises(NotFoundError):
            store.check_for_updates("llama")


@pytest.mark.parametrize("way", ["packs", "plain"])
def test_a_window_that_closes_does_not_wait_for_a_slow_server(way: str, tmp_path: Path) -> None:
    """Progress is told chunk by chunk, and a chunk can take minutes."""
    bodies = {version: random.Random(version).randbytes(60_000) for version in ("1.0.0", "1.1.0")}
    tree: dict[str, bytes] = {}
    entries = {}
    for version, body in bodies.items():
        tree[f"{version}.pack"] = body
        checksum = "sha256:" + hashlib.sha256(body).hexdigest()
        entries[version] = {"checksum": checksum, "download_url": f"{version}.pack"}
        if way == "packs":
            (tmp_path / "model.bin").write_bytes(body)  # one chunk
            Store.publish(tmp_path / "model.bin", f"phi@{version}", registry=tmp_path / "registry")
    models = {"phi": {"current_version": "1.1.0", "versions": entries}}
    tree["registry.json"] = json.dumps({"models": models}).encode()
    for path in (tmp_path / "registry").rglob("*"):
        if path.is_file():
            tree[path.relative_to(tmp_path / "registry").as_posix()] = path.read_bytes()
    good, now = files(tree), [SATURDAY_3_AM]

    def slow(seen: Seen) -> Reply:
        reply = good(seen)
        if not seen.path.endswith(".pack") or not isinstance(reply.body, bytes):
            return reply
        now[0] = SATURDAY_3_AM + 3 * 3600  # while it is being answered
        return replace(
            reply, body=[reply.body[n : n + 100] for n in range(0, len(reply.body), 100)], pause_s=0.2
        )

    with ScriptedServer(good) as server, Store.open(tmp_path / "slow") as store:
        store.add_registry("made", server.url)
        store.checkout("phi@1.0.0")
        server.rescript(slow)
        with store._session() as session:
            session.activity.clock = lambda: now[0]
            started = time.monotonic()
            done = run_round(session, rules("minor", NIGHT), clockwork=CLOCKWORK)
            assert time.monotonic() - started < 5
            assert statuses(done) == {"phi": "stopped"}
        server.rescript(good)
        with store._session() as session:
            session.activity.clock = lambda: SATURDAY_3_AM
            assert statuses(run_round(session, rules("minor", NIGHT), clockwork=CLOCKWORK)) == {
                "phi": "updated"
            }


def test_one_round_runs_at_a_time(site: Site) -> None:
    """The other one says which process runs it, and does nothing; afterwards it can."""

    def meanwhile(_: float) -> None:
        command = [
            sys.executable,
            "-m",
            "yarnstore",
            "--home",
            str(site.home),
            "auto-update",
            "run",
            "--json",
        ]
        ran = subprocess.run([*command, "--now"], capture_output=True, text=True, check=False)
        assert ran.returncode == 0, ran.stderr
        found = json.loads(ran.stdout)
        assert (found["running_in"], found["checked"], found["models"]) == (
            f"process {os.getpid()}",
            False,
            [],
        )

    with site.store() as store:
        store.set_auto_update(enabled=True)
    clockwork = Clockwork(draw=lambda: 0.5, sleep=meanwhile)
    with session_at(site, SATURDAY_3_AM) as session:
        done = run_round(session, rules("minor", NIGHT, jitter_s=60.0), clockwork=clockwork)
        assert [item.status for item in done.models] == ["updated", "updated"]
        assert run_round(session, rules("minor", NIGHT)).running_in is None


def test_the_next_round_is_due_as_a_window_opens_and_each_hour_while_it_is_open(site: Site) -> None:
    def due(now: float, *windows: Window) -> str | None:
        with session_at(site, now) as session:
            return auto_update_status(session, rules("minor", *windows)).due

    assert due(FRIDAY_NOON, NIGHT) == "2024-05-04T02:00:00Z"
    assert due(SATURDAY_3_AM, NIGHT) == "2024-05-04T03:00:00Z"
    assert due(FRIDAY_NOON) == "2024-05-03T12:00:00Z"
    with session_at(site, SATURDAY_3_AM) as session:
        run_round(session, rules("notify"))
        assert auto_update_status(session, AutoRules()).due is None
    assert due(SATURDAY_3_AM + 60, NIGHT) == "2024-05-04T04:00:00Z"
    assert due(SATURDAY_3_AM + 60) == "2024-05-04T04:00:00Z"
    assert due(SATURDAY_3_AM + 5400, NIGHT) == "2024-05-04T04:30:00Z"
    assert due(SATURDAY_3_AM - 600, NIGHT) == "2024-05-04T02:50:00Z"  # the clock was put back
    assert due(FRIDAY_NOON + 7 * 86_400, NIGHT) == "2024-05-11T02:00:00Z"
