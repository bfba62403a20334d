"""`ystore serve` from outside: its start, its end, and an update through the API."""

from __future__ import annotations

from pathlib import Path

import httpx

from tests.support.services import needs_web, serving
from tests.support.stores import MODEL, make_site

pytestmark = needs_web


def test_an_update_and_a_rollback_through_the_api(tmp_path: Path) -> None:
    site = make_site(tmp_path)
    with site.store() as store:
        store.checkout(f"{MODEL}@1.0.0")
    with serving(site.home) as service:
        (installed,) = service.get("/models").json()
        assert installed["version"] == "1.0.0"
        (update,) = service.get("/updates").json()
        assert (update["wanted"], update["available"]) == ("1.2.0", True)
        updated = service.finished(service.post(f"/models/{MODEL}/update", json={}))
        assert updated["result"]["version"] == "1.2.0"
        undo = updated["undo"]
        back = service.finished(service.client.request(undo["method"], undo["path"], json=undo["body"]))
        assert (back["kind"], back["result"]["version"]) == ("rollback", "1.0.0")
        assert [job["kind"] for job in service.get("/jobs").json()] == ["rollback", "update"]
        assert service.stop() == 0


def test_a_login_link_works_once(tmp_path: Path) -> None:
    with serving(tmp_path / "home") as service, httpx.Client(base_url=service.url) as browser:
        assert browser.get("/api/v1/models").status_code == 401
        assert browser.get(service.ready["login_url"]).headers["location"] == "/"
        assert browser.get("/api/v1/models").json() == []
        assert httpx.get(service.ready["login_url"]).status_code == 401
