"""`/metrics`, and the dashboard for Grafana that asks for them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import httpx

from tests.support.services import Running, needs_web
from tests.support.stores import MODEL
from yarnstore import Store

pytestmark = needs_web

GRAFANA = Path(__file__).resolve().parents[3] / "docs" / "grafana.json"


def test_the_metrics_are_those_of_the_store(service: Running) -> None:
    answer = service.client.get("/metrics")
    assert answer.status_code == 200
    assert f'ystore_installed_version{{model="{MODEL}",variant="default",version="1.0.0"}} 1.0' in answer.text
    assert re.search(r"^ystore_downloaded_bytes_total [1-9]", answer.text, re.MULTILINE)
    assert 'ystore_operation_seconds_count{operation="checkout"} 1.0' in answer.text
    assert re.search(r"^ystore_mirror_up\{.*\} 1\.0$", answer.text, re.MULTILINE)


def test_the_statistics_are_a_route_too(service: Running) -> None:
    found = service.get("/stats").json()
    assert {item["operation"]: item["count"] for item in found["operations"]} == {"checkout": 1, "fetch": 1}
    assert found["download_bytes"] > 0
    assert service.get("/stats?since=1h").json()["download_bytes"] == found["download_bytes"]
    wrong = service.get("/stats?since=soon")
    assert (wrong.status_code, wrong.json()["code"]) == (400, "bad-name")


def test_they_need_the_token(service: Running) -> None:
    assert httpx.get(service.url + "metrics").status_code == 401


def test_the_grafana_dashboard_asks_for_all_metrics_and_no_others(service: Running) -> None:
    there = set(re.findall(r"^# TYPE (\S+) ", service.client.get("/metrics").text, re.MULTILINE))
    panels = json.loads(GRAFANA.read_text())["panels"]
    text = " ".join(target["expr"] for panel in panels for target in panel["targets"])
    asked = {re.sub("_(sum|count)$", "", name) for name in re.findall(r"ystore_\w+", text)}
    assert asked == there


def readable(service: Running) -> dict[str, float]:
    """Which parts of the metrics could be read."""
    answer = service.client.get("/metrics")
    assert answer.status_code == 200, answer.text
    found = re.findall(r'^ystore_readable\{part="(\w+)"\} (\S+)$', answer.text, re.MULTILINE)
    return {part: float(value) for part, value in found}


ALL = dict.fromkeys(("settings", "operations", "sizes", "registries", "installed"), 1.0)


def test_a_damaged_store_has_the_metrics_that_can_be_read(own: Running, home: Path) -> None:
    assert readable(own) == ALL
    for manifest in (home / "manifests").iterdir():
        manifest.chmod(0o644)
        manifest.write_bytes(b"{")
    (home / "manifests" / "more").touch()  # whoever damages a disk in place changes no folder
    assert readable(own) == {**ALL, "sizes": 0}
    text = own.client.get("/metrics").text
    assert "ystore_store_bytes" not in text
    assert re.search(r"^ystore_downloaded_bytes_total [1-9]", text, re.MULTILINE)


def test_settings_that_cannot_be_read_leave_the_metrics(own: Running, home: Path) -> None:
    (home / "config.toml").write_text("= wrong")
    assert readable(own) == {**ALL, "settings": 0}
    (home / "config.toml").unlink()
    assert readable(own) == ALL


def test_what_did_not_change_is_read_once(home: Path) -> None:
    from yarnstore.web.access import Access
    from yarnstore.web.metrics import KEPT_S, Metrics
    from yarnstore.web.service import Service

    now_s = 1000.0
    with Store.open(home) as store:
        service = Service(lambda: store, Access("t"))
        found = Metrics(service, clock=lambda: now_s)

        def value(name: str) -> float:
            (text,) = re.findall(rf"^{name} (\S+)$", found.text().decode(), re.MULTILINE)
            return float(text)

        assert value("ystore_versions") == 2
        manifests = {path: path.read_bytes() for path in (home / "manifests").iterdir()}
        for path in manifests:
            path.chmod(0o644)
            path.write_bytes(b"{")  # in place: nothing says that it has changed
        assert value("ystore_versions") == 2
        for path, data in manifests.items():
            path.write_bytes(data)
        fetched = value(r'ystore_operation_seconds_count\{operation="fetch"\}')
        store.remove(f"{MODEL}@1.1.0")
        now_s += KEPT_S
        assert value("ystore_versions") == 1
        store.fetch(f"{MODEL}@1.2.0")
        assert value("ystore_versions") == 2
        assert value(r'ystore_operation_seconds_count\{operation="fetch"\}') == fetched + 1
