"""docs/migrating.md: each command runs against a registry of the plain schema, as the page says."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.docs.pages import REPO, shown_commands
from tests.support.servers import static_server
from yarnstore import Store
from yarnstore.cli import run

PAGE = REPO / "docs" / "migrating.md"
SCRIPTS = (
    "version-check",
    "version-update",
    "version-rollback",
    "version-history",
    "version-list",
    "version-cleanup",
)
APP = {
    "check_model_updates": "check_for_updates",
    "update_model": "update_model",
    "rollback_model": "rollback_model",
    "get_model_version_history": "get_version_history",
    "list_installed_models": "list_installed_models",
    "get_model_registry": "search",
    "enable_auto_updates": "set_auto_update",
}


def table(heading: str) -> list[list[str]]:
    """The rows of the table under a heading, their cells without backticks."""
    text = PAGE.read_text(encoding="utf-8").partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    rows = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("|")]
    assert len(rows) > 2, heading
    return [[re.sub(r"^`([^`]*)`$", r"\1", cell.strip()) for cell in row] for row in rows[2:]]


@dataclass(frozen=True)
class Place:
    """A served registry in the established schema, an installation of the older tools, and no store yet."""

    root: Path
    url: str
    home: Path
    command: Callable[[str], tuple[int, str]]


def version(version: str, data: bytes, url: str, changelog: str) -> dict[str, Any]:
    return {
        "model_id": "phi-3-mini",
        "version": version,
        "checksum": f"sha256:{hashlib.sha256(data).hexdigest()}",
        "download_url": f"{url}files/phi-3-mini-{version}.onnx",
        "size_bytes": len(data),
        "compatibility": [">=1.0.0"],
        "release_date": "2024-01-01T00:00:00Z",
        "changelog": changelog,
        "deprecated": False,
        "minimum_ram_gb": 0.25,
        "recommended_ram_gb": 0.5,
        "variant": "cpu-int4",
    }


@pytest.fixture
def place(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Place]:
    served = tmp_path / "served"
    (served / "files").mkdir(parents=True)
    contents = {number: os.urandom(200_000) for number in ("1.0.0", "1.1.0")}
    for number, data in contents.items():
        (served / "files" / f"phi-3-mini-{number}.onnx").write_bytes(data)
    old = tmp_path / "models"
    old.mkdir()
    (old / "model.onnx").write_bytes(contents["1.0.0"])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("YSTORE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("YSTORE_OUTPUT", "people")
    with static_server(served) as url:
        first = version("1.0.0", contents["1.0.0"], url, "Initial release")
        registry = {
            "registry_version": "1.0.0",
            "last_updated": "2024-01-01T00:00:00Z",
            "models": {
                "phi-3-mini": {
                    "model_id": "phi-3-mini", "name": "Phi-3 Mini", "description": "A small language model",
                    "current_version": "1.1.0",
                    "tags": ["language-model", "microsoft", "phi-3"], "category": "language-model",
                    "versions": {
                        "1.0.0": first, "1.1.0": version("1.1.0", contents["1.1.0"], url, "Better dialogue"),
                    },
                }
            },
        }  # fmt: skip
        (served / "registry.json").write_text(json.dumps(registry))
        entry = {
            "model_id": "phi-3-mini",
            "version": "1.0.0",
            "installed_at": "2024-01-02T00:00:00Z",
            "last_used": "2024-01-03T00:00:00Z",
            "file_path": "./models/model.onnx",
            "checksum": first["checksum"],
            "size_bytes": first["size_bytes"],
        }
        state = {"installed_models": {"phi-3-mini": entry}, "last_check": None, "auto_update_enabled": False}
        (old / "local-state.json").write_text(json.dumps(state))

        def command(line: str) -> tuple[int, str]:
            words = shlex.split(line.replace("https://models.example.org/", url))
            assert words[0] == "ystore"
            capsys.readouterr()
            code = run(words[1:])
            return code, capsys.readouterr().out

        yield Place(tmp_path, url, tmp_path / "home", command)


def installed(place: Place) -> str:
    state = json.loads((place.home / "local-state.json").read_text())
    found: str = state["installed_models"]["phi-3-mini"]["version"]
    with Store.open(place.home) as store:
        assert [item.version for item in store.list_installed_models()] == [found]
    return found


def take_over(place: Place) -> None:
    for line, _ in shown_commands(PAGE)[:2]:
        code, out = place.command(line)
        assert code == 0, out
    assert installed(place) == "1.0.0"


def test_the_four_everyday_commands(place: Place) -> None:
    take_over(place)
    after = {"fetch": "1.0.0", "checkout": "1.1.0", "rollback": "1.0.0", "log": "1.0.0"}
    rows = table("The everyday commands")
    assert [row[1].split()[1] for row in rows] == list(after)
    for row in rows:
        code, out = place.command(row[1])
        assert code == 0, row[1]
        assert out
        assert installed(place) == after[row[1].split()[1]]
    assert "Better dialogue" in out
    assert "rollback  1.1.0 → 1.0.0" in out


def test_the_six_scripts(place: Place) -> None:
    take_over(place)
    rows = table("The npm scripts")
    assert {row[0].split()[2] for row in rows} == set(SCRIPTS)
    said = {}
    for _, line in rows:
        code, said[line] = place.command(line)
        assert code == 0, line
        wanted = "1.1.0" if line == "ystore update phi-3-mini 1.1.0" else "1.0.0"
        if line == "ystore update phi-3-mini":
            assert installed(place) == "1.1.0", line
            place.command("ystore rollback phi-3-mini")
        assert installed(place) == wanted, line
    assert re.search(r"phi-3-mini +1\.0\.0 +1\.1\.0 +1\.1\.0 +minor", said["ystore outdated"])
    assert "Better dialogue" in said["ystore outdated -v"]
    assert "Better dialogue" not in said["ystore outdated"]
    assert "1.1.0 → 1.0.0" in said["ystore rollback phi-3-mini 1.0.0"]
    assert "update    1.0.0 → 1.1.0" in said["ystore log phi-3-mini"]
    checksum = json.loads((place.home / "local-state.json").read_text())["installed_models"]["phi-3-mini"][
        "checksum"
    ]
    assert checksum in said["ystore list --detailed"]
    assert checksum not in said["ystore list"]


def test_the_seven_commands_of_the_app(place: Place) -> None:
    take_over(place)
    rows = table("The commands of the app")
    assert [row[0] for row in rows] == list(APP)
    for name, line, _ in rows:
        code, out = place.command(line)
        assert code == 0, line
        json.loads(out)
        assert installed(place) == ("1.1.0" if name == "update_model" else "1.0.0")
    assert json.loads((place.home / "local-state.json").read_text())["auto_update_enabled"] is True


def test_the_seven_in_python(place: Place) -> None:
    take_over(place)
    for name, _, call in table("The commands of the app"):
        assert call.startswith(f"store.{APP[name]}("), call
        with Store.open(place.home) as store:
            answer = eval(call, {"store": store})
            assert answer


def test_the_rest_of_the_page(place: Place) -> None:
    take_over(place)
    for line, _ in shown_commands(PAGE)[2:]:
        code, out = place.command(line)
        assert code == 0, line
        assert out
    assert installed(place) == "1.1.0", "minor updates were allowed"
    assert (place.home / "yarnstore-auto-update.cron").exists()


def test_the_keys_on_the_page_are_those_that_are_written(place: Place) -> None:
    take_over(place)
    state = json.loads((place.home / "local-state.json").read_text())
    rows = {row[0]: row[1] for row in table("The keys of `local-state.json`")}
    assert list(rows) == list(state)
    assert re.findall(r"`(\w+)`", rows["installed_models"]) == list(state["installed_models"]["phi-3-mini"])
