"""What the service does by itself: rounds in their windows, retention, sampled checks, notifications."""

from __future__ import annotations

import json
import os
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import httpx
import pytest

from tests.support.services import HAS_WEB, PATIENCE_S, needs_web, serving
from tests.support.stores import MODEL, Site, make_site
from yarnstore import Store
from yarnstore.store.layout import StoreLayout
from yarnstore.web.records import Job, JobKind, ProblemDetails

if HAS_WEB:
    from yarnstore.web.jobs import Jobs
    from yarnstore.web.notify import command_for, notify
    from yarnstore.web.scheduler import AGAIN_S, CHECK_S, LOOK_S, RETENTION_S, SETTLED_S, Scheduler, news_of

pytestmark = needs_web

HOUR_S = 3600.0


class Bench:
    """A scheduler whose clock the test moves, over real jobs and a real store."""

    def __init__(self, home: Path) -> None:
        self.now_s = time.time() + 120  # never behind the clock of the store, which the test does not move
        self.told: list[str] = []
        self.store = Store.open(home)
        self.jobs = Jobs(StoreLayout(home), lambda: self.store, lambda _: None, clock=lambda: self.now_s)
        self.scheduler = Scheduler(
            lambda: self.store,
            self.jobs,
            clock=lambda: self.now_s,
            draw=lambda: 0.5,
            tell=lambda _, text: self.told.append(text),
        )

    def look(self, after_s: float = 0.0) -> float:
        """Let time pass, do what is due, and wait until it is done."""
        self.now_s += after_s
        sleep_s = self.scheduler.look()
        for job in self.jobs.all():
            ended = threading.Event()
            self.jobs.when_ended(job.id, ended.set)
            assert ended.wait(PATIENCE_S)
        return sleep_s

    def kinds(self) -> list[str]:
        return [job.kind for job in reversed(self.jobs.all())]


@pytest.fixture
def bench(home: Path) -> Iterator[Bench]:
    made = Bench(home)
    yield made
    made.jobs.close()
    made.store.close()


def test_without_settings_it_only_checks_a_sample_each_week(bench: Bench) -> None:
    assert bench.look() == LOOK_S
    assert bench.kinds() == []
    bench.look(SETTLED_S)
    assert bench.kinds() == ["fsck"]
    checked = bench.jobs.all()[0]
    assert (checked.state, checked.scheduled) == ("done", True)
    assert checked.result is not None
    assert checked.result["sample"] == 0.05
    bench.look(CHECK_S - 60)
    assert bench.kinds() == ["fsck"]
    bench.look(61)
    assert bench.kinds() == ["fsck", "fsck"]


def test_a_quick_check_by_hand_does_not_put_the_weekly_one_off(bench: Bench) -> None:
    bench.look()
    bench.look(SETTLED_S)
    bench.look(CHECK_S - 120)
    bench.jobs.add("fsck", {"quick": True})
    bench.look(60)
    assert bench.kinds() == ["fsck", "fsck"]
    bench.look(61)
    assert bench.kinds() == ["fsck", "fsck", "fsck"]


def test_it_sleeps_until_what_is_next_and_looks_again_in_between(bench: Bench) -> None:
    bench.look()
    assert bench.look(SETTLED_S - 10) == pytest.approx(10, abs=1)
    bench.look(10)
    bench.now_s -= 30 * 86_400.0  # the clock is put back: nothing waits for a month
    assert bench.look() == LOOK_S
    bench.look(SETTLED_S)
    assert bench.kinds() == ["fsck", "fsck"]
    bench.look(LOOK_S)
    assert bench.kinds() == ["fsck", "fsck"], "the check before it, of the future, is not the last one"


def test_old_versions_go_each_day_where_a_rule_is_set(bench: Bench) -> None:
    bench.store.change_settings({"keep": 0, "path_grace": "0"})
    bench.look(SETTLED_S)
    assert bench.kinds() == ["fsck", "gc"]
    result = bench.jobs.last_ended("gc")
    assert result is not None
    assert result.result is not None
    assert result.result["versions"] == [f"{MODEL}@1.1.0"]
    bench.look(RETENTION_S - 60)
    assert bench.kinds() == ["fsck", "gc"]
    bench.look(61)
    assert bench.kinds() == ["fsck", "gc", "gc"]


def test_rounds_run_as_a_window_opens_after_their_random_delay(bench: Bench) -> None:
    opens = datetime.now().astimezone() + timedelta(hours=3)
    window = f"{opens:%H:%M}-{opens + timedelta(hours=2):%H:%M}"
    bench.store.set_auto_update(enabled=True, policy="minor", windows=[window], jitter="1m")
    bench.look()
    assert bench.kinds() == []
    in_minutes = opens.replace(second=0, microsecond=0).timestamp()
    sleep_s = bench.look(in_minutes - bench.now_s - 30)
    assert sleep_s == pytest.approx(30, abs=1)
    assert "auto-update" not in bench.kinds()


def test_a_round_updates_tells_and_does_not_come_again_within_the_hour(bench: Bench) -> None:
    bench.store.set_auto_update(enabled=True, policy="minor", jitter="1m")
    assert bench.look() == pytest.approx(30, abs=1)  # half of the random delay
    bench.look(31)
    assert bench.kinds() == ["auto-update"]
    done = bench.jobs.all()[0]
    assert (done.state, done.subject, done.scheduled) == ("done", MODEL, True)
    assert bench.store.list_installed_models()[0].version == "1.2.0"
    wait_until(lambda: bool(bench.told))
    assert bench.told == [f"{MODEL} was updated to 1.2.0"]
    bench.look(HOUR_S / 2)
    assert bench.kinds().count("auto-update") == 1


def test_a_round_that_fails_is_tried_again_in_an_hour_and_told_once(bench: Bench) -> None:
    bench.store.set_auto_update(enabled=True)
    bench.store.remove_registry("made")
    bench.look()
    assert [job.state for job in bench.jobs.all()] == ["failed"]
    assert bench.look(60) == LOOK_S
    assert len(bench.jobs.all()) == 1
    wait_until(lambda: bool(bench.told))
    bench.look(AGAIN_S)
    assert [job.kind for job in bench.jobs.all()].count("auto-update") == 2
    assert len(bench.told) == 1


def test_what_comes_again_and_again_does_not_push_out_what_was_requested(bench: Bench) -> None:
    asked = bench.jobs.add("fsck", {"quick": True})
    for _ in range(14):
        bench.look(CHECK_S + SETTLED_S)
    found = bench.jobs.all()
    assert asked.id in [job.id for job in found]
    assert len(found) <= 12


@pytest.mark.parametrize("wanted", [True, False])
def test_notifications_are_off_by_a_setting(bench: Bench, wanted: bool) -> None:
    bench.store.change_settings({"notifications": wanted})
    bench.store.set_auto_update(enabled=True, policy="notify")
    bench.look()
    if wanted:
        wait_until(lambda: bool(bench.told))
    assert bench.told == ([f"{MODEL} has an update: 1.2.0"] if wanted else [])


def test_a_round_that_an_earlier_service_began_is_told_when_it_goes_on(home: Path) -> None:
    """Also one that was paused, and resumed."""
    with Store.open(home) as store:
        store.set_auto_update(MODEL, enabled=True, policy="minor", jitter="0")
    job = {
        "id": "a" * 16,
        "kind": "auto-update",
        "state": "paused",
        "created_ms": 1,
        "arguments": {"models": [MODEL], "scheduled": True},
    }
    (home / "jobs.json").write_text(json.dumps({"jobs": [job], "format": 1}))
    bench = Bench(home)
    bench.jobs.open()
    assert bench.told == []
    bench.jobs.resume("a" * 16)
    wait_until(lambda: bool(bench.told))
    assert bench.told == [f"{MODEL} was updated to 1.2.0"]
    bench.jobs.close()
    bench.store.close()


def wait_until(holds: Callable[[], bool]) -> None:
    give_up_s = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < give_up_s
        time.sleep(0.02)


def round_job(*models: tuple[str, str, str]) -> Job:
    rows = [{"model": model, "status": status, "version": version} for model, status, version in models]
    return Job(
        id="x", kind="auto-update", model=None, subject="all", state="done", created_ms=1,
        result={"models": rows},
    )  # fmt: skip


def test_news_are_what_was_not_told_before() -> None:
    before = round_job(("a", "available", "1.1.0"), ("b", "current", "1.0.0"))
    after = round_job(("a", "available", "1.1.0"), ("b", "failed", "2.0.0"), ("c", "updated", "1.0.1"))
    assert news_of(before, None) == "a has an update: 1.1.0"
    assert news_of(before, before) == ""
    assert news_of(after, before) == "b could not be updated to 2.0.0\nc was updated to 1.0.1"
    kind: JobKind = "fsck"
    damaged = replace(before, kind=kind, result={"problems": [{"what": "x"}]})
    assert news_of(damaged, before) == "The store has 1 problem: run `ystore fsck --repair`"
    fault = ProblemDetails("", "", 424, "the registry cannot be reached", "unreachable")
    failed = replace(before, state="failed", error=fault)
    assert news_of(failed, None) == "all: the registry cannot be reached"
    assert news_of(failed, failed) == ""


HOSTILE = "$(touch x) `id`; \"quoted\" 'quoted' <b>bold</b> & --help %PATH%\n$env:HOME"


@pytest.mark.parametrize("platform", ["linux", "darwin", "win32"])
def test_text_is_never_part_of_a_command(platform: str) -> None:
    command, data = command_for(platform, "title", HOSTILE)
    plain, _ = command_for(platform, "title", "text")
    changed = [word for word, other in zip(command, plain, strict=True) if word != other]
    if platform == "win32":
        assert (changed, data) == ([], f"title\n{HOSTILE}")
    elif platform == "darwin":
        assert (changed, data) == ([HOSTILE], "")
    else:
        assert command[-3:-1] == ["--", "title"]
        assert len(changed) == 1
        assert "<" not in changed[0]  # which would be markup


def test_without_a_desktop_nothing_happens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert notify("title", "text") is False
    broken = tmp_path / "notify-send"
    broken.write_text("#!/bin/sh\nexit 3\n")
    broken.chmod(0o755)
    if sys.platform == "linux":
        assert notify("title", "text") is False


@pytest.mark.skipif(sys.platform != "linux", reason="the test's program is notify-send")
def test_a_service_updates_in_a_window_that_is_now(tmp_path: Path) -> None:
    """The whole way: settings by the API, a round as a job, the installed version, a notification."""
    site: Site = make_site(tmp_path, versions=("1.0.0", "1.1.0"))
    with site.store() as store:
        store.checkout(f"{MODEL}@1.0.0")
    shown = tmp_path / "shown"
    program = tmp_path / "bin" / "notify-send"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nprintf "%s|" "$@" > {shown}.new && mv {shown}.new {shown}\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    environ = {**os.environ, "PATH": f"{program.parent}:{os.environ['PATH']}"}
    now = datetime.now().astimezone()
    window = f"{now - timedelta(hours=2):%H:%M}-{now + timedelta(hours=2):%H:%M}"
    with serving(site.home, env=environ) as service:
        asked = {"enabled": True, "policy": "minor", "windows": [window]}
        answer: httpx.Response = service.request("PUT", "/auto-update", json=asked)
        assert answer.status_code == 200, answer.text
        wait_until(lambda: any(job["kind"] == "auto-update" for job in service.get("/jobs").json()))
        job = next(job for job in service.get("/jobs").json() if job["kind"] == "auto-update")
        job = service.wait_for(job["id"], "done", "failed")
        assert (job["state"], job["scheduled"]) == ("done", True), job
        assert job["result"]["models"][0]["status"] == "updated"
        assert service.get("/models").json()[0]["version"] == "1.1.0"
        wait_until(shown.exists)
        assert f"{MODEL} was updated to 1.1.0" in shown.read_text()
        assert service.get("/auto-update").json()["status"]["last_check"] is not None
