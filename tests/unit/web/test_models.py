"""Models, the catalogue and settings through the API."""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.services import Running, needs_web, serving
from tests.support.stores import MODEL, Site, flip, remove_tree
from yarnstore import Store
from yarnstore.core.jsonable import jsonable

pytestmark = needs_web


@pytest.fixture(scope="module")
def home(made_site: Site, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the store for these tests."""
    return Path(shutil.copytree(made_site.home, tmp_path_factory.mktemp("own") / "home", symlinks=True))


@pytest.fixture(scope="module")
def running(home: Path) -> Iterator[Running]:
    with serving(home) as service:
        yield service


@pytest.fixture
def own(running: Running) -> Running:
    """A service whose store has 1.0.0 installed and 1.1.0 stored, whatever a test before did."""
    running.done(running.post(f"/models/{MODEL}/fetch", json={"version": "1.1.0"}))
    running.done(running.post(f"/models/{MODEL}/checkout", json={"version": "1.0.0"}))
    return running


def test_answers_are_what_the_python_api_returns(own: Running, home: Path) -> None:
    with Store.open(home) as store:
        for path, value in (
            ("/models", store.list_installed_models()),
            (f"/models/{MODEL}/history", store.get_version_history(MODEL)),
            ("/catalogue", store.search()),
            (f"/catalogue/{MODEL}?version=1.1.0", store.show(f"{MODEL}@1.1.0")),
            (f"/catalogue/{MODEL}/contents?version=1.1.0", store.inspect(f"{MODEL}@1.1.0")),
            ("/settings", store.list_settings()),
            ("/registries", store.list_registries()),
            ("/updates", store.check_for_updates(refresh=False)),
        ):
            assert own.get(path).json() == json.loads(json.dumps(jsonable(value))), path


def test_what_another_process_changes_is_seen_at_once(own: Running, home: Path) -> None:
    (before,) = own.get("/models").json()
    assert (before["version"], before["pinned"]) == ("1.0.0", False)
    with Store.open(home) as store:
        store.path(MODEL)
        assert own.get("/models").json()[0]["uses"] == before["uses"] + 1
        store.pin(MODEL)
        assert own.get("/models").json()[0]["pinned"] is True
        store.unpin(MODEL)
        store.checkout(f"{MODEL}@1.1.0")
        assert own.get("/models").json()[0]["version"] == "1.1.0"
        store.change_settings({"path_grace": "2d"})
        assert {item["name"]: item["value"] for item in own.get("/settings").json()}["path_grace"] == "2d"
        url = store.list_registries()[0].url
        store.remove_registry("made")
        assert own.get("/registries").json() == []
        store.add_registry("made", url)


def test_an_answer_that_did_not_change_is_not_sent_again(own: Running) -> None:
    for path in ("/models", "/jobs", "/updates", "/openapi.json", "/overview", "/status", "/storage"):
        for _ in range(50):  # the space that is free changes as others write to the disk
            first = own.get(path)
            again = own.get(path, headers={"If-None-Match": first.headers["etag"]})
            if again.status_code == 304 or path != "/storage":
                break
        assert (again.status_code, again.content) == (304, b""), path
        assert again.headers["etag"] == first.headers["etag"]
    own.done(own.post(f"/models/{MODEL}/update", json={}))
    changed = own.get("/jobs", headers={"If-None-Match": own.get("/models").headers["etag"]})
    assert changed.status_code == 200


def test_a_removed_version_comes_back(own: Running) -> None:
    assert own.request("DELETE", f"/models/{MODEL}/versions/1.0.0").status_code == 409
    removed = own.request("DELETE", f"/models/{MODEL}/versions/1.1.0").json()
    assert removed["versions"] == ["1.1.0"]
    assert own.get(f"/catalogue/{MODEL}/contents?version=1.1.0").status_code == 404
    back = own.done(own.post(f"/models/{MODEL}/fetch", json={"version": "1.1.0"}))
    assert back["download_bytes"] == 0, "its data was still there"
    assert own.request("DELETE", f"/models/{MODEL}").json()["uninstalled"] is True
    assert own.get("/overview").json()["answer"] == "empty"


def test_a_removal_is_undone_by_what_it_answered(own: Running) -> None:
    own.request("PUT", f"/models/{MODEL}/pin", json={"spec": "^1.0"})
    gone = own.request("DELETE", f"/models/{MODEL}").json()
    body = {"removed": gone["removed"], "pin": gone["pin"]}
    assert (gone["pin"], sorted(row["version"] for row in gone["removed"])) == ("@^1.0", ["1.0.0", "1.1.0"])
    done = own.done(own.post(f"/models/{MODEL}/restore", json=body))
    assert (sorted(done["versions"]), done["installed"]) == (["1.0.0", "1.1.0"], "1.0.0")
    (back,) = own.get("/models").json()
    assert back["pin"] == "@^1.0"
    assert own.request("DELETE", f"/models/{MODEL}/pin").status_code == 200
    row = gone["removed"][0]
    for wrong in ({**row, "version": "^1"}, {**row, "manifest": "x"}, {**row, "more": 1}):
        assert own.post(f"/models/{MODEL}/restore", json={"removed": [wrong]}).status_code == 400, wrong
    other = own.post("/models/other/restore", json={"removed": [row]})
    assert own.finished(other)["error"]["code"] == "usage", "it is the manifest of another model"


def test_mirrors_are_changed(own: Running) -> None:
    own.post("/registries", json={"name": "web", "url": "http://127.0.0.1:1/"})  # refused: nothing answers
    path = "/registries/made/mirrors"
    url = "https://mirror.example.org/"
    changed = own.request("PUT", path, json={"mirrors": [url]}).json()
    assert [(row["url"], row["configured"]) for row in changed["mirrors"]][1:] == [(url, True)]
    assert own.get("/registries").json()[0]["mirrors"] == changed["mirrors"]
    assert len(own.request("PUT", path, json={"mirrors": []}).json()["mirrors"]) == 1
    for wrong in ("/etc", "file:///etc", "x"):
        refused = own.request("PUT", path, json={"mirrors": [wrong]})
        assert (refused.status_code, refused.json()["code"]) == (400, "usage"), wrong
    assert own.request("PUT", "/registries/none/mirrors", json={"mirrors": []}).status_code == 404


def test_the_rule_of_one_model_is_removed(own: Running) -> None:
    own.request("PUT", "/auto-update", json={"enabled": True, "models": [MODEL], "policy": "patch"})
    (rule,) = own.get("/auto-update").json()["status"]["models"]
    assert (rule["own"], rule["enabled"]) == (True, True)
    page = own.request("DELETE", f"/auto-update/models/{MODEL}").json()
    (rule,) = page["status"]["models"]
    assert (rule["own"], rule["enabled"]) == (False, False)
    again = own.request("DELETE", f"/auto-update/models/{MODEL}")
    assert (again.status_code, again.json()["code"]) == (404, "not-found")


def test_the_status_of_a_damaged_store_is_what_can_be_read(home: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(home, tmp_path / "damaged", symlinks=True))
    with Store.open(copy) as store:
        store.checkout(f"{MODEL}@1.0.0")
        store.fetch(f"{MODEL}@1.1.0")
        before = store.status()
    refs = copy / "refs" / "versions" / MODEL / "default"
    (refs / "1.1.0").write_text("nothing of a ref")
    for manifest in (path for path in (copy / "manifests").rglob("*") if path.is_file()):
        if "1.0.0" in manifest.read_text():
            flip(manifest, 0)
    with serving(copy) as service:
        found = service.get("/status")
        assert found.status_code == 200
        status = found.json()
        assert (status["versions"], status["installed"], status["damaged"]) == (2, 1, 3)
        assert (status["stored_bytes"], status["unused_bytes"]) == (before.stored_bytes, 0)
        overview = service.get("/overview").json()
        assert overview["answer"] == "problems"
        assert overview["problems"][0] == "3 refs cannot be read: `ystore fsck --repair` repairs the store"


def test_registries_of_this_machine_are_not_added(own: Running) -> None:
    for url in ("/etc", "file:///etc", "~/x", "s3://x", "x"):
        refused = own.post("/registries", json={"name": "other", "url": url})
        assert (refused.status_code, refused.json()["code"]) == (400, "usage"), url
    gone = own.post("/registries", json={"name": "other", "url": "http://127.0.0.1:1/"})
    assert (gone.status_code, gone.json()["code"]) == (424, "network-transient")


def test_the_overview_has_one_answer(own: Running) -> None:
    first = own.get("/overview").json()
    assert (first["answer"], first["sentence"]) == ("updates", "1 model has an update.")
    own.done(own.post("/fsck", json={"quick": True}))
    own.done(own.post("/updates", json={}))
    after = own.get("/overview").json()
    assert after["read_only"] is False
    assert (after["answer"], after["updates"], after["problems"]) == ("current", 0, [])
    assert after["last_fsck_ms"] is not None
    assert after["last_check_ms"] is not None


def test_the_overview_does_not_wait_for_a_registry(made_site: Site, tmp_path: Path) -> None:
    home = Path(shutil.copytree(made_site.home, tmp_path / "home", symlinks=True))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        (home / "config.toml").write_text(
            f'[[registries]]\nname = "silent"\nurl = "http://127.0.0.1:{silent.getsockname()[1]}/"\n'
        )
        with serving(home) as service:
            found = service.get("/overview").json()
    assert found["problems"] == ["The registry silent has not been read yet: check for updates."]
    assert found["updates"] == 1, "of the other one"


def test_a_store_that_was_removed_under_its_service_is_a_problem(made_site: Site, tmp_path: Path) -> None:
    from yarnstore.web.access import Access
    from yarnstore.web.service import Service

    home = tmp_path / "home"
    shutil.copytree(made_site.home, home, symlinks=True)
    service = Service(lambda: Store.open(home), Access("t"))
    assert service.overview().problems == []
    remove_tree(home)
    found = service.overview()
    assert (found.answer, found.problems) == ("problems", [f"The folder of the store was removed: {home}"])
