"""`yarnstore.client` against a real service: each method does what that of `Store` does."""

from __future__ import annotations

import inspect
import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.servers import static_server
from tests.support.services import Running, needs_web, serving
from tests.support.stores import MODEL, Site, make_site
from yarnstore import Progress, Store
from yarnstore.client import Client, Job, JobHandle, StoreChanged
from yarnstore.client.handles import RESULTS
from yarnstore.errors import (
    CancelledError,
    ConflictError,
    FormatError,
    LockTimeoutError,
    NotFoundError,
    ReadOnlyError,
    SpecError,
    TransientError,
    UsageError,
)
from yarnstore.web import requests
from yarnstore.web.work import KINDS

OTHER = "org/other"
# A download that an earlier service left paused.
PAUSED = {
    "id": "a" * 16,
    "kind": "fetch",
    "state": "paused",
    "created_ms": 1,
    "arguments": {"model": MODEL, "version": "1.1.0"},
}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A store with 1.0.0 of two models installed."""
    made = make_site(tmp_path_factory.mktemp("client"), models=(MODEL, OTHER), versions=("1.0.0", "1.1.0"))
    with made.store() as store:
        store.checkout(f"{MODEL}@1.0.0")
        store.checkout(f"{OTHER}@1.0.0")
    return made


@pytest.fixture(scope="module")
def service(site: Site) -> Iterator[Running]:
    (site.home / "jobs.json").write_text(json.dumps({"jobs": [PAUSED], "format": 1}))
    with serving(site.home) as running:
        yield running


@pytest.fixture(scope="module")
def client(service: Running) -> Iterator[Client]:
    with Client.from_ready(dict(service.ready)) as connected:
        yield connected


@pytest.mark.parametrize(
    "name", ["list_installed_models", "status", "storage", "search", "list_settings", "list_registries"]
)
@needs_web
def test_an_answer_without_arguments_is_that_of_the_store(site: Site, client: Client, name: str) -> None:
    with site.store() as store:
        expected = getattr(store, name)()
    found = getattr(client, name)()
    assert type(found) is type(expected)
    if name not in ("status", "storage"):  # these have the free bytes of the disk
        assert found == expected


@needs_web
def test_an_answer_about_a_model_is_that_of_the_store(site: Site, client: Client) -> None:
    with site.store() as store:
        assert client.get_version_history(OTHER) == store.get_version_history(OTHER)
        assert client.show(f"{OTHER}@1.1.0") == store.show(f"{OTHER}@1.1.0")
        assert client.inspect(f"{OTHER}@1.0.0") == store.inspect(f"{OTHER}@1.0.0")
        assert client.path(OTHER) == store.path(OTHER)
        assert client.list_installed_models(OTHER) == store.list_installed_models(OTHER)
        assert client.check_for_updates(OTHER, refresh=False) == store.check_for_updates(OTHER, refresh=False)
    assert client.get_model(OTHER).history == client.get_version_history(OTHER)
    assert client.overview().store.installed == 2


def test_parameters_are_those_of_the_store() -> None:
    names = [name for name, item in vars(Client).items() if inspect.isfunction(item) and name[0] != "_"]
    shared = [name for name in names if hasattr(Store, name) and name not in ("start", "close", "gc")]
    assert len(shared) > 20
    for name in shared:
        theirs = set(inspect.signature(getattr(Store, name)).parameters)
        ours = set(inspect.signature(getattr(Client, name)).parameters)
        assert ours <= theirs, name


@pytest.mark.parametrize(
    ("method", "body"),
    [
        *(("plan_gc", requests.GcRequest), ("fsck", requests.FsckRequest)),
        *(("update_model", requests.UpdateRequest), ("fetch", requests.VersionRequest)),
        *(("checkout", requests.VersionRequest), ("set_auto_update", requests.AutoUpdateRequest)),
        *(("update_models", requests.UpdateAllRequest), ("rollback_model", requests.RollbackRequest)),
        *(("add_registry", requests.RegistryRequest), ("diff", requests.DiffRequest)),
        ("set_mirrors", requests.MirrorsRequest),
    ],
)
def test_each_field_of_a_body_is_a_parameter(method: str, body: type[requests.RequestBody]) -> None:
    parameters = set(inspect.signature(getattr(Client, method)).parameters)
    if parameters & {"spec", "model"}:
        parameters |= {"version", "variant"}  # as parts of a spec
    assert set(body.__struct_fields__) <= parameters


@needs_web
def test_long_work_is_a_job_with_progress_and_a_typed_result(site: Site, client: Client) -> None:
    told: list[Progress] = []
    job = client.update_model(MODEL)
    result = job.wait(told.append)
    assert (result.previous, result.version, job.job.state) == ("1.0.0", "1.1.0", "done")
    assert [state.state for state in job][-1] == "done"  # a handle of an ended job says so at once
    assert client.job(job.id).wait() == result
    back = job.undo().wait()
    assert (back.previous, back.version) == ("1.1.0", "1.0.0")
    there = client.update_model(f"{MODEL}@1.1.0").wait()
    assert there.version == "1.1.0"
    assert client.rollback_model(MODEL).wait().version == "1.0.0"
    with pytest.raises(ConflictError, match="cannot be paused"):
        job.pause()
    assert job.id in [known.id for known in client.list_jobs()]
    job.remove()
    with pytest.raises(NotFoundError, match="no job"):
        job.refresh()


@needs_web
def test_each_kind_of_work_has_its_type(client: Client) -> None:
    assert RESULTS.keys() == KINDS.keys()
    assert client.fetch(f"{OTHER}@1.1.0").wait().version == "1.1.0"
    assert client.diff(f"{OTHER}@1.0.0", "@1.1.0").wait().totals
    assert client.fsck(quick=True).wait().problems == []
    assert client.checkout(f"{OTHER}@1.1.0").wait().version == "1.1.0"
    assert client.update_models(OTHER).wait().failed == 0
    assert client.pin(f"{OTHER}@1.1.0").pinned
    assert client.unpin(f"{OTHER}@1.1.0").model == OTHER
    removed = client.remove(f"{OTHER}@1.0.0")
    assert client.restore(removed).wait().versions == ["1.0.0"]
    assert client.remove(f"{OTHER}@1.0.0") == removed
    plan = client.plan_gc(grace_s=0)
    assert client.gc(plan).wait().freed_bytes >= 0
    with pytest.raises(NotFoundError, match="no plan"):
        client.gc(plan)


@needs_web
def test_settings_and_commands(client: Client) -> None:
    changed = client.change_settings({"keep": 3})
    assert {item.name: item.value for item in changed}["keep"] == 3
    assert client.change_settings({"keep": None}) == client.list_settings()
    assert client.set_auto_update(enabled=True, policy="patch").enabled
    assert client.get_auto_update().status.policy == "patch"
    client.set_auto_update(OTHER, enabled=False)
    assert not any(rule.own for rule in client.reset_auto_update(OTHER).models)
    mirrors = client.set_mirrors("made", ["https://mirror.example.org/"]).mirrors
    assert [mirror.url for mirror in mirrors if mirror.configured] == ["https://mirror.example.org/"]
    assert client.set_mirrors("made", []) == client.list_registries()[0]
    (entry, *_) = client.command("list_installed_models")
    assert "file_path" in entry
    assert client.make_login_link().path.startswith("/login?token=")


@needs_web
def test_errors_are_those_of_the_store(service: Running, client: Client) -> None:
    with pytest.raises(NotFoundError) as missing:
        client.fetch("none-such").wait()
    assert missing.value.fields["what"] == "model"
    with pytest.raises(SpecError):
        client.path("not a spec!")
    with pytest.raises(UsageError) as refused:
        client.command("check_model_updates", of_what=1)
    assert refused.value.code == "bad-request"
    with pytest.raises(NotFoundError) as unknown:
        client.command("no_such_command")
    assert unknown.value.code == "no-such-path"
    with Client(service.url, "stranger" * 8) as stranger, pytest.raises(UsageError) as unauthorized:
        stranger.status()
    assert unauthorized.value.code == "unauthorized"
    assert "strangerstranger" not in str(unauthorized.value)


@needs_web
def test_a_job_is_cancelled_and_goes_on(client: Client) -> None:
    job = client.job("a" * 16)
    assert job.job.state == "paused"
    assert job.cancel().state == "cancelled"
    with pytest.raises(CancelledError, match="its state is cancelled") as cancelled:
        job.wait()
    assert cancelled.value.fields["job"] == job.id
    assert job.resume().state in ("queued", "running")
    assert job.wait().version == "1.1.0"
    assert "done" in repr(job)
    with pytest.raises(ConflictError, match="cannot be undone"):
        job.undo()
    failed = client.fetch("none-such")
    for _ in range(2):
        with pytest.raises(NotFoundError):
            failed.wait()
        failed.resume()


@needs_web
def test_what_has_not_changed_is_not_sent_again(service: Running) -> None:
    with Client.from_ready(json.dumps(dict(service.ready))) as client:
        first = client.list_registries()
        seen: list[int] = []
        client._connection._http.event_hooks["response"].append(lambda found: seen.append(found.status_code))
        assert client.list_registries() == first
        assert seen == [304]
        client.change_settings({"keep": 4})
        before = client.list_settings()
        client.change_settings({"keep": None})
        assert client.list_settings() != before


@needs_web
def test_events_tell_of_jobs_and_of_the_store(client: Client, site: Site) -> None:
    told: list[Job | StoreChanged] = []
    heard = threading.Event()

    def listen() -> None:
        for event in client.events():
            told.append(event)
            if isinstance(event, StoreChanged):
                return
            heard.set()

    thread = threading.Thread(target=listen, daemon=True)
    with site.store() as store:
        store.fetch(f"{MODEL}@1.1.0")
        store.pin(f"{MODEL}@1.0.0")
    client.fsck(quick=True).wait()
    thread.start()
    assert heard.wait(30)  # the jobs as they are: somebody listens
    with site.store() as store:
        store.pin(f"{MODEL}@1.1.0")  # another pin of the same model: in the folder that exists
        thread.join(60)
        store.unpin(f"{MODEL}@1.0.0")
        store.unpin(f"{MODEL}@1.1.0")
    assert isinstance(told[-1], StoreChanged)


@needs_web
def test_a_read_only_service_and_one_that_is_gone(site: Site) -> None:
    with serving(site.home, "--read-only") as reader:
        client = Client.from_ready(dict(reader.ready))
        assert client.status().installed == 2
        with pytest.raises(ReadOnlyError) as refused:
            client.fetch(f"{MODEL}@1.1.0")
        assert refused.value.code == "read-only-service"
        reader.stop()
    with pytest.raises(TransientError, match="cannot be reached") as gone:
        client.status()
    assert gone.value.reason == "unreachable"
    client.close()


def test_another_server_is_no_service(tmp_path: Path) -> None:
    with static_server(tmp_path) as url, Client(url, "token") as client, pytest.raises(FormatError) as odd:
        client.status()
    assert "ystore serve" in odd.value.hint
    with pytest.raises(UsageError, match="not the address"):
        Client("127.0.0.1:80", "token")
    with pytest.raises(UsageError, match="ready-json"):
        Client.from_ready("ready")


def test_a_service_that_is_too_busy_is_tried_again_later() -> None:
    def answer() -> None:
        line, _ = server.accept()
        with line:
            line.recv(65536)
            line.sendall(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\nbusy")

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=answer)
        thread.start()
        with Client(f"http://127.0.0.1:{server.getsockname()[1]}/", "token") as client:
            with pytest.raises(TransientError) as busy:
                client.status()
            assert (busy.value.status, busy.value.reason) == (503, "busy")
        thread.join()


@needs_web
def test_a_sidecar_starts_and_ends_with_its_client(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with Client.start(home) as client:
        assert client.sidecar is not None
        assert client.overview().answer == "empty"
        assert isinstance(client.fsck(), JobHandle)
        with pytest.raises(LockTimeoutError) as locked:
            Client.start(home)
        assert "--read-only" in locked.value.hint
    with pytest.raises(UsageError, match="closed"):
        client.status()
    with pytest.raises(NotFoundError, match="no program"):
        Client.start(home, program=("none-such-program",))


def test_the_package_does_not_load_the_client() -> None:
    program = "import sys, yarnstore; yarnstore.Store; print('yarnstore.client' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "False"
