"""The seven commands of established applications, and the table of docs/http-api.md that maps them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.support.services import Running, needs_web, serving
from tests.support.stores import MODEL, make_site
from yarnstore import Store

pytestmark = needs_web

VERSION_FIELDS = {
    *("model_id", "variant", "checksum", "download_url", "size_bytes", "compatibility", "release_date"),
    *("changelog", "deprecated", "minimum_ram_gb", "recommended_ram_gb"),
}
_PAGE = Path(__file__).resolve().parents[3] / "docs" / "http-api.md"
_ROW = re.compile(r"^\| `(\w+)` \| (.*?) \| (.*?) \| `(\w+) (\S+)` \|$", re.MULTILINE)


def schema_name(schema: dict[str, Any]) -> str:
    """The type of an answer as the table writes it."""
    if schema.get("type") == "array":
        return f"list of {schema_name(schema['items'])}"
    return str(schema["$ref"]).rpartition("/")[2]


def test_each_row_of_the_table_is_as_the_api_describes_it(service: Running) -> None:
    document = service.get("/openapi.json").json()
    paths, schemas = document["paths"], document["components"]["schemas"]
    rows = _ROW.findall(_PAGE.read_text(encoding="utf-8"))
    routes = {path.rpartition("/")[2] for path in paths if "/commands/" in path}
    assert {row[0] for row in rows} == routes
    assert len(rows) == 7
    for name, arguments, answer, method, resource in rows:
        operation = paths[f"/api/v1/commands/{name}"]["post"]
        body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
        given = schemas[schema_name(body)] if body else {"properties": {}}
        required = given.get("required", [])
        known = {key + ("" if key in required else "?") for key in given["properties"] if key != "wait"}
        assert set(re.sub("[`,]", "", arguments.replace("none", "")).split()) == known, name
        found = operation["responses"]["200"]["content"]["application/json"]["schema"]
        assert re.sub(r"\[(\w+)\]\(\S+\)", r"\1", answer) == schema_name(found), name
        assert method.lower() in paths["/api/v1" + resource.partition("?")[0]], name


def test_each_command_says_what_its_resource_says(service: Running) -> None:
    def command(name: str, **arguments: object) -> Any:
        return service.post(f"/commands/{name}", json=arguments).json()

    update, resource = command("check_model_updates")[0], service.get("/updates?refresh=true").json()[0]
    assert (update["model_id"], update["current_version"]) == (resource["model"], resource["installed"])
    assert (update["latest_version"], update["update_type"]) == (resource["wanted"], resource["kind"])
    history = service.get(f"/models/{MODEL}/history").json()["versions"]
    versions = command("get_model_version_history", model_id=MODEL)
    keys = ("version", "variant", "size_bytes", "changelog", "release_date")
    assert [[row[key] for key in keys] for row in versions] == [[row[key] for key in keys] for row in history]
    installed, resource = command("list_installed_models")[0], service.get("/models").json()[0]
    keys = ("version", "variant", "size_bytes")
    assert [installed[key] for key in keys] == [resource[key] for key in keys]
    contents, offers = command("get_model_registry")["models"], service.get("/catalogue").json()
    assert {name: entry["current_version"] for name, entry in contents.items()} == {
        offer["model"]: offer["latest"] for offer in offers
    }


def test_the_seven_commands_have_the_fields_that_are_known(own: Running) -> None:
    def command(name: str, **arguments: object) -> object:
        answer = own.post(f"/commands/{name}", json=arguments)
        assert answer.status_code == 200, answer.text
        return answer.json()

    (update,) = command("check_model_updates")  # type: ignore[misc]
    assert update.keys() >= {*VERSION_FIELDS, "current_version", "latest_version", "update_type"}
    assert (update["current_version"], update["latest_version"]) == ("1.0.0", "1.2.0")
    versions = command("get_model_version_history", model_id=MODEL)
    assert [row["version"] for row in versions] == ["1.2.0", "1.1.0", "1.0.0"]  # type: ignore[attr-defined]
    assert all(row.keys() >= {*VERSION_FIELDS, "version"} for row in versions)  # type: ignore[attr-defined]
    (installed,) = command("list_installed_models")  # type: ignore[misc]
    assert installed.keys() >= {
        *(
            "model_id",
            "version",
            "installed_at",
            "last_used",
            "file_path",
            "checksum",
            "size_bytes",
            "variant",
        )
    }
    registry = command("get_model_registry")
    (model,) = registry["models"].values()  # type: ignore[index]
    assert model["current_version"] == "1.2.0"
    assert [row["version"] for row in model["versions"]] == ["1.2.0", "1.1.0", "1.0.0"]
    changed = command("update_model", model_id=MODEL)
    assert (changed["version"], changed["previous_version"]) == ("1.2.0", "1.0.0")  # type: ignore[index]
    assert Path(changed["file_path"]).exists()  # type: ignore[index]
    back = command("rollback_model", model_id=MODEL, version="1.0.0")
    assert (back["version"], back["changed"]) == ("1.0.0", True)  # type: ignore[index]
    rules = command("enable_auto_updates", model_id=MODEL, policy="patch")
    assert [(rule["enabled"], rule["policy"]) for rule in rules["models"]] == [(True, "patch")]  # type: ignore[index]
    assert command("check_model_updates", model_id=MODEL)


def test_of_two_variants_of_one_version_the_installed_one_is_shown(tmp_path: Path) -> None:
    site = make_site(tmp_path, versions=("1.0.0",))
    Store.publish(site.source("1.0.0") / "config.json", f"{MODEL}:small@1.0.0", registry=site.registry)
    with site.store() as store:
        store.refresh_registries()
        store.checkout(f"{MODEL}:small@1.0.0")
    with serving(site.home) as running:
        page = running.get(f"/models/{MODEL}").json()
        assert (page["installed"]["variant"], page["details"]["variant"]) == ("small", "small")
        contents = running.post("/commands/get_model_registry", json={}).json()["models"][MODEL]
    assert {row["variant"]: row["installed"] for row in contents["versions"]} == {
        "default": False,
        "small": True,
    }


@pytest.mark.parametrize("name", ["update_model", "rollback_model"])
def test_a_command_that_fails_answers_with_the_problem(own: Running, name: str) -> None:
    failed = own.post(f"/commands/{name}", json={"model_id": "none-such"})
    assert (failed.status_code, failed.json()["code"]) == (404, "not-found")
    assert failed.headers["content-type"] == "application/problem+json"
    early = own.post(f"/commands/{name}", json={"model_id": "none-such", "wait": False})
    assert early.status_code == 202
    assert early.json()["state"] in ("queued", "running")  # by how soon its thread begins
