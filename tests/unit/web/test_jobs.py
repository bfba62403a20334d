"""Jobs: in order, at once, paused, cancelled, and after whatever ended the service."""

from __future__ import annotations

import json
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.servers import ScriptedServer, trickling
from tests.support.services import PATIENCE_S, Running, needs_web, serving
from tests.support.stores import MODEL, make_site
from yarnstore import Store
from yarnstore.cli import run
from yarnstore.errors import ConflictError, FormatError, IncompatibleError, YarnstoreError
from yarnstore.store.layout import StoreLayout
from yarnstore.web.events import STREAMS
from yarnstore.web.jobs import Jobs

pytestmark = needs_web

# One for each test, so that they share a service.
MODELS = ("paused", "cancelled", "ordered", "other", "failed", "told", "compared", "freed", MODEL)


@pytest.fixture(scope="module")
def hurry() -> threading.Event:
    """Downloads end once it is set."""
    return threading.Event()


@pytest.fixture(autouse=True)
def unhurried(hurry: threading.Event) -> None:
    """Each test begins with downloads that do not end."""
    hurry.clear()


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory, hurry: threading.Event) -> Iterator[Path]:
    """A store with 1.0.0 of each model installed from a folder; a web server is asked from here on."""
    site = make_site(tmp_path_factory.mktemp("served"), models=MODELS, versions=("1.0.0", "1.1.0"))
    with ScriptedServer(trickling(site.registry, hurry)) as server:
        with site.store() as store:
            for model in MODELS:
                store.checkout(f"{model}@1.0.0")
            store.remove_registry("made")
            store.add_registry("made", server.url)
        yield site.home
        hurry.set()


@pytest.fixture
def home(prepared: Path, tmp_path: Path) -> Path:
    """A copy of that store."""
    return Path(shutil.copytree(prepared, tmp_path / "home", symlinks=True))


@pytest.fixture(scope="module")
def busy(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A service over another copy."""
    home = shutil.copytree(prepared, tmp_path_factory.mktemp("busy") / "home", symlinks=True)
    with serving(Path(home)) as service:
        yield service
        assert service.stop() == 0
    whole(Path(home))


def installed(service: Running, model: str) -> str:
    """The version of a model that is installed."""
    (found,) = [item for item in service.get("/models").json() if item["model"] == model]
    return str(found["version"])


def from_file(home: Path) -> Jobs:
    """The jobs of a store, as a service reads them at its start."""
    jobs = Jobs(StoreLayout(home), lambda: Store.open(home), lambda _: None)
    jobs.open()
    return jobs


def whole(home: Path) -> None:
    with Store.open(home) as store:
        assert store.fsck().problems == []


def wait_for_bytes(service: Running, identity: str) -> dict[str, Any]:
    """A job that downloads, and has some of it."""
    give_up_s = time.monotonic() + PATIENCE_S
    while True:
        job: dict[str, Any] = service.get(f"/jobs/{identity}").json()
        if job["phase"] == "download" and job["bytes_done"] > 20_000:
            return job
        assert job["state"] in ("queued", "running"), job
        assert time.monotonic() < give_up_s, job
        time.sleep(0.01)


def test_a_job_is_paused_and_goes_on(busy: Running, hurry: threading.Event) -> None:
    service, model = busy, "paused"
    identity = service.post(f"/models/{model}/update", json={}).json()["id"]
    job = wait_for_bytes(service, identity)
    assert job["bytes_total"] > job["bytes_done"]
    assert service.post(f"/jobs/{identity}/pause").status_code == 200
    paused = service.wait_for(identity, "paused")
    assert (paused["finished_ms"], paused["error"]) == (None, None)
    assert installed(service, model) == "1.0.0"
    # What is paused is in nobody's way.
    assert service.done(service.post(f"/models/{model}/fetch", json={"version": "1.0.0"}))
    hurry.set()
    assert service.post(f"/jobs/{identity}/resume").json()["state"] in ("queued", "running")
    done = service.wait_for(identity, "done", "failed")
    assert (done["state"], done["result"]["version"]) == ("done", "1.1.0")
    assert service.post(f"/jobs/{identity}/pause").status_code == 409


def test_a_job_is_cancelled_and_removed(busy: Running) -> None:
    service, model = busy, "cancelled"
    identity = service.post(f"/models/{model}/update", json={}).json()["id"]
    wait_for_bytes(service, identity)
    assert service.request("DELETE", f"/jobs/{identity}").status_code == 409
    service.post(f"/jobs/{identity}/cancel")
    cancelled = service.wait_for(identity, "cancelled")
    assert cancelled["finished_ms"] is not None
    assert service.request("DELETE", f"/jobs/{identity}").status_code == 204
    assert service.get(f"/jobs/{identity}").status_code == 404
    assert installed(service, model) == "1.0.0"


def test_one_model_in_order_and_two_at_once(busy: Running, hurry: threading.Event) -> None:
    service, model = busy, "ordered"
    first = service.post(f"/models/{model}/update", json={}).json()["id"]
    wait_for_bytes(service, first)
    second = service.post(f"/models/{model}/rollback", json={"version": "1.0.0"}).json()
    other = service.post("/models/other/rollback", json={"version": "1.0.0"}).json()
    assert second["state"] == "queued"
    assert service.wait_for(other["id"], "done", "failed")["state"] == "done"
    assert service.get(f"/jobs/{first}").json()["state"] == "running"
    hurry.set()
    ended = service.wait_for(second["id"], "done", "failed")
    assert ended["started_ms"] >= service.get(f"/jobs/{first}").json()["finished_ms"]
    assert ended["result"]["previous"] == "1.1.0"
    queued = [service.post(f"/models/{model}/fetch", json={}).json()["id"] for _ in range(2)]
    service.post(f"/jobs/{queued[1]}/cancel")
    assert service.wait_for(queued[1], "cancelled", "done")


def test_kill_9_during_an_update(home: Path, hurry: threading.Event) -> None:
    with serving(home) as service:
        identity = service.post(f"/models/{MODEL}/update", json={}).json()["id"]
        wait_for_bytes(service, identity)
        service.process.kill()
        service.process.wait(PATIENCE_S)
    whole(home)
    (left,) = json.loads((home / "jobs.json").read_text())["jobs"]
    assert (left["id"], left["state"]) == (identity, "running")
    hurry.set()
    with serving(home) as service:
        job = service.wait_for(identity, "done", "failed")
        assert (job["state"], job["result"]["version"]) == ("done", "1.1.0")
        assert any("killed" in note for note in job["notes"])
        assert installed(service, MODEL) == "1.1.0"
    whole(home)


def test_kill_9_during_a_round_of_auto_update(home: Path, hurry: threading.Event) -> None:
    with Store.open(home) as store:
        store.set_auto_update(MODEL, enabled=True, policy="minor", jitter="0")

    def rounds(service: Running) -> list[dict[str, Any]]:
        return [job for job in service.get("/jobs").json() if job["kind"] == "auto-update"]

    with serving(home) as service:
        service.until(lambda: rounds(service))
        (job,) = rounds(service)
        assert job["scheduled"] is True
        wait_for_bytes(service, job["id"])
        service.process.kill()
        service.process.wait(PATIENCE_S)
    whole(home)
    (left,) = json.loads((home / "jobs.json").read_text())["jobs"]
    assert (left["id"], left["kind"], left["state"]) == (job["id"], "auto-update", "running")
    hurry.set()
    with serving(home) as service:
        done = service.wait_for(job["id"], "done", "failed")
        assert (done["state"], done["scheduled"]) == ("done", True)
        assert [(row["model"], row["status"]) for row in done["result"]["models"]] == [(MODEL, "updated")]
        assert any("killed" in note for note in done["notes"])
        assert installed(service, MODEL) == "1.1.0"
        assert len(rounds(service)) == 1, "the schedule starts no other beside it"
    whole(home)


def test_a_service_that_is_stopped_goes_on_later(home: Path, hurry: threading.Event) -> None:
    with serving(home) as service:
        running = service.post(f"/models/{MODEL}/update", json={}).json()["id"]
        queued = service.post(f"/models/{MODEL}/fetch", json={"version": "1.0.0"}).json()["id"]
        wait_for_bytes(service, running)
        assert service.stop() == 0
    states = {job["id"]: job["state"] for job in json.loads((home / "jobs.json").read_text())["jobs"]}
    assert states == {running: "interrupted", queued: "queued"}
    hurry.set()
    with serving(home) as service:
        job = service.wait_for(running, "done", "failed")
        assert any("stopped" in note for note in job["notes"])
        assert service.wait_for(queued, "done", "failed")["state"] == "done"


def test_a_rollback_that_was_killed_is_not_done_again_unasked(home: Path) -> None:
    job = {
        "id": "a" * 16,
        "kind": "rollback",
        "state": "running",
        "created_ms": 1,
        "arguments": {"model": MODEL},
    }
    later = {**job, "id": "b" * 16, "kind": "of-a-later-release"}
    (home / "jobs.json").write_text(json.dumps({"jobs": [job, later], "format": 1}))
    jobs = from_file(home)
    (found,) = jobs.all()
    assert (found.state, found.kind) == ("interrupted", "rollback")
    assert any("killed" in note for note in found.notes)
    jobs.cancel(found.id)
    jobs.close()
    (kept,) = json.loads((home / "jobs.json").read_text())["jobs"]
    assert kept["state"] == "cancelled"


def test_the_results_of_a_few_comparisons_are_kept(home: Path) -> None:
    jobs = from_file(home)
    for number in range(14):
        ended = threading.Event()
        job = jobs.add("diff", {"old": f"none-such@1.0.{number}", "new": "none-such@2.0.0"})
        jobs.when_ended(job.id, ended.set)
        assert ended.wait(PATIENCE_S)
    kept = [job.subject for job in jobs.all()]
    assert 10 <= len(kept) <= 11
    assert kept[0] == "none-such@1.0.13 → none-such@2.0.0"
    jobs.close()


def test_what_waits_never_outgrows_what_is_read_again(home: Path) -> None:
    large = [f"m{number}" for number in range(45_000)]
    waiting = [
        {
            "id": f"{i}" * 16,
            "kind": "update-all",
            "state": state,
            "created_ms": 1,
            "arguments": {"models": large},
        }
        for i, state in enumerate(["paused", "paused", "paused", "cancelled"])
    ]
    (home / "jobs.json").write_text(json.dumps({"jobs": waiting, "format": 1}))
    jobs = from_file(home)
    for more in (lambda: jobs.add("update-all", {"models": large}), lambda: jobs.resume("3" * 16)):
        with pytest.raises(ConflictError, match="3 jobs are waiting"):
            more()
    jobs.cancel("0" * 16)
    assert jobs.add("fsck", {"quick": True}).kind == "fsck"
    jobs.close()


@pytest.mark.parametrize(
    ("text", "error"),
    [('{"jobs": [3]}', FormatError), ("\x00", FormatError), ('{"jobs": [], "format": 9}', IncompatibleError)],
    ids=["3", "0", "9"],
)
def test_jobs_that_cannot_be_read_are_told_and_kept(
    home: Path, text: str, error: type[YarnstoreError]
) -> None:
    (home / "jobs.json").write_text(text)
    with pytest.raises(error, match=r"jobs\.json"):
        from_file(home)
    assert (home / "jobs.json").read_text() == text


@pytest.mark.parametrize(
    "strange",
    [
        {"arguments": {"model": 5}},
        {"arguments": {"model": "../x"}},
        {"kind": "update-all", "arguments": {"models": 5}},
        {"kind": "auto-update", "arguments": {"models": [3]}},
        {"kind": "fsck", "arguments": {"sample": "x"}},
        {"kind": "restore", "arguments": {"model": MODEL, "removed": [3]}},
        {"state": "x"},
        {"undo": {"x": 1}},
    ],
    ids=str,
)
def test_a_job_that_cannot_be_read_does_not_hide_the_others(tmp_path: Path, strange: dict[str, Any]) -> None:
    job: dict[str, Any] = {"id": "a" * 16, "kind": "update", "state": "paused", "created_ms": 1}
    job["arguments"] = {"model": MODEL}
    (tmp_path / "home").mkdir()
    rows = [{**job, "id": "b" * 16, **strange}, job]
    (tmp_path / "home" / "jobs.json").write_text(json.dumps({"jobs": rows, "format": 1}))
    jobs = from_file(tmp_path / "home")
    assert [found.id for found in jobs.all()] == ["a" * 16]
    jobs.close()


def test_two_services_do_not_keep_the_jobs_of_one_store(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(home):
        assert run(["serve", "--home", str(home)]) == 8
        assert "--read-only" in capsys.readouterr().err
        with serving(home, "--read-only") as reader:
            assert len(reader.get("/models").json()) == len(MODELS)


def test_what_fails_says_why_and_is_tried_again(busy: Running) -> None:
    service, model = busy, "failed"
    failed = service.finished(service.post("/models/none-such/fetch", json={}))
    assert (failed["state"], failed["error"]["code"], failed["error"]["status"]) == (
        "failed",
        "not-found",
        404,
    )
    again = service.post(f"/jobs/{failed['id']}/resume").json()
    assert again["state"] in ("queued", "running")
    assert service.wait_for(failed["id"], "failed")
    bad = service.post(f"/models/{model}/fetch", json={"version": "not a version!"})
    assert (bad.status_code, bad.json()["code"]) == (400, "bad-spec")


def listen(
    service: Running, path: str, *until: str, begun: threading.Event | None = None
) -> list[tuple[str, Any]]:
    """The events of a stream, up to the last of these texts in their order."""
    found: list[tuple[str, Any]] = []
    missing = list(until)
    with service.client.stream("GET", f"/api/v1{path}") as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        name = ""
        for line in stream.iter_lines():
            if begun is not None:
                begun.set()
            if line.startswith("event: "):
                name = line.removeprefix("event: ")
            elif line.startswith("data: "):
                found.append((name, json.loads(line.removeprefix("data: "))))
                if missing[0] in line:
                    del missing[0]
                if not missing:
                    break
    return found


def test_events_tell_of_each_step(busy: Running, hurry: threading.Event) -> None:
    service, model = busy, "told"
    hurry.set()
    service.request("PATCH", "/settings", json={"limit_rate": "200k"}).raise_for_status()
    found: list[tuple[str, Any]] = []
    begun = threading.Event()
    done_text = f'"model":"{model}","subject":"{model}","state":"done"'

    def follow() -> None:
        found.extend(listen(service, "/events", done_text, '{"changed":true}', begun=begun))

    listener = threading.Thread(target=follow)
    listener.start()
    assert begun.wait(PATIENCE_S)
    identity = service.post(f"/models/{model}/update", json={}).json()["id"]
    one = listen(service, f"/jobs/{identity}/events", '"state":"done"')
    listener.join(PATIENCE_S)
    service.request("PATCH", "/settings", json={"limit_rate": None}).raise_for_status()
    assert {name for name, _ in one} == {"job"}
    assert one[-1][1]["id"] == identity
    jobs = [job for name, job in found if name == "job" and job["id"] == identity]
    assert {job["state"] for job in jobs} >= {"running", "done"}
    loading = [job for job in jobs if job["phase"] == "download"]
    done = [job["bytes_done"] for job in loading]
    assert len(done) > 2
    assert done == sorted(done)
    assert any(job["bytes_per_s"] and job["seconds_left"] is not None for job in loading)
    assert found[-1][0] == "store"
    assert service.get("/jobs/none/events").status_code == 404


def test_streams_end_with_the_service(home: Path) -> None:
    with serving(home) as service:
        begun, ended = threading.Event(), threading.Event()

        def follow() -> None:
            client = httpx.Client(headers=service.client.headers, timeout=PATIENCE_S)
            with client, client.stream("GET", f"{service.url}api/v1/events") as stream:
                begun.set()
                for _ in stream.iter_lines():
                    pass
            ended.set()

        thread = threading.Thread(target=follow)
        thread.start()
        assert begun.wait(PATIENCE_S)
        assert service.stop() == 0
        thread.join(PATIENCE_S)
        assert ended.is_set()


def test_any_number_of_streams_leaves_connections_for_requests(busy: Running) -> None:
    client = busy.client.base_url

    def opened() -> tuple[socket.socket, bytes]:
        stream = socket.create_connection((client.host, client.port or 0), PATIENCE_S)
        head = f"GET /api/v1/events HTTP/1.1\r\nHost: {client.host}:{client.port}\r\n"
        stream.sendall(f"{head}Authorization: {busy.client.headers['authorization']}\r\n\r\n".encode())
        return stream, stream.recv(12)

    streams, answers = zip(*(opened() for _ in range(STREAMS + 2)), strict=True)
    assert answers.count(b"HTTP/1.1 200") <= STREAMS
    assert answers[-1] == b"HTTP/1.1 429"
    assert busy.get("/models").status_code == 200
    for stream in streams:
        stream.close()

    def opens_again() -> bool:
        stream, answer = opened()
        stream.close()
        return answer == b"HTTP/1.1 200"

    busy.until(opens_again)


def test_a_comparison_is_whole_where_it_is_asked_for_and_short_in_lists(
    busy: Running, hurry: threading.Event
) -> None:
    hurry.set()
    service, model = busy, "compared"
    service.done(service.post(f"/models/{model}/fetch", json={"version": "1.1.0"}))
    job = service.finished(service.post("/diff", json={"old": f"{model}@1.0.0", "new": "@1.1.0"}))
    assert job["result"]["totals"]["bytes_changed"] > 0
    assert service.get("/jobs").json()[0]["result"] is None
    for path in ("/etc/passwd", "../x", "./config.toml", model):
        refused = service.post("/diff", json={"old": path, "new": f"{model}@1.0.0"})
        assert refused.status_code == 400, path


def test_gc_does_what_was_shown(busy: Running, hurry: threading.Event) -> None:
    hurry.set()
    service, model = busy, "freed"
    service.done(service.post(f"/models/{model}/fetch", json={"version": "1.1.0"}))
    plan = service.post("/gc/plans", json={"keep": 0, "grace_s": 0}).json()
    assert f"{model}@1.1.0" in [item["what"] for item in plan["items"] if item["kind"] == "version"]
    service.request("PUT", f"/models/{model}/pin", json={"spec": "1.1.0"})
    refused = service.post(f"/gc/plans/{plan['id']}/apply")
    assert (refused.status_code, refused.json()["code"]) == (409, "conflict")
    service.request("DELETE", f"/models/{model}/pin", params={"spec": "1.1.0"})
    plan = service.post("/gc/plans", json={"max_size_bytes": 0, "grace_s": 0}).json()
    assert "the limit is 0 B" in {item["what"]: item["why"] for item in plan["items"]}[f"{model}@1.1.0"]
    done = service.done(service.post(f"/gc/plans/{plan['id']}/apply"))
    assert sorted(done["versions"]) == sorted(i["what"] for i in plan["items"] if i["kind"] == "version")
    assert done["freed_bytes"] == plan["freed_bytes"]
    assert service.post(f"/gc/plans/{plan['id']}/apply").status_code == 404
