"""`/metrics`, and the dashboard for Grafana that asks for them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import httpx

from tests.support.services import Running
from tests.support.stores import MODEL

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
