"""What a lint finds: every fault with its place, and nothing in what is right."""

from __future__ import annotations

import copy
import json
import re
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.support.models import REPO
from yarnstore.registry.lint import Linted, lint_model, lint_registry
from yarnstore.registry.lint.rules import time_fault, url_fault

SHA = "sha256:" + "ab" * 32
OTHER = "sha256:" + "cd" * 32
PACK = "blake3:" + "12" * 32


def version(**changes: Any) -> dict[str, Any]:
    made = {
        "checksum": SHA,
        "manifest": OTHER,
        "packs": [PACK],
        "size_bytes": 10,
        "compatibility": [">=1.0.0"],
        "release_date": "2024-01-01T00:00:00Z",
        "changelog": "First",
        **changes,
    }
    return {key: value for key, value in made.items() if value is not ...}


def registry(versions: dict[str, Any] | None = None, **model: Any) -> dict[str, Any]:
    entry = {
        "model_id": "phi",
        "current_version": "1.0.0",
        "versions": {"1.0.0": version()} if versions is None else versions,
        **model,
    }
    return {"registry_version": "1.0.0", "last_updated": "2024-01-01T00:00:00Z", "models": {"phi": entry}}


def found(raw: dict[str, Any] | str) -> dict[str, tuple[str, str]]:
    data = raw if isinstance(raw, str) else json.dumps(raw)
    return {item.path: (item.severity, item.message) for item in lint_registry(data.encode()).findings}


V = '$.models["phi"].versions["1.0.0"]'


def test_nothing_is_wrong_with_what_is_right() -> None:
    assert found(registry()) == {}


def test_the_example_of_the_page_has_no_errors() -> None:
    text = (REPO / "docs" / "registry.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```json\n(.*?)```", text, re.DOTALL)
    assert [path for path, (severity, _) in found(example).items() if severity == "error"] == []


BAD_VERSIONS: list[tuple[str, dict[str, Any], str]] = [
    ("checksum", {"checksum": "sha256:…"}, "is not sha256: and 64"),
    ("manifest", {"manifest": "md5:12"}, "is not sha256: and 64"),
    ("packs[0]", {"packs": ["12"]}, "is not blake3: and 64"),
    ("packs", {"packs": []}, "cannot be located"),
    ("size_bytes", {"size_bytes": "10"}, "expected int, got str"),
    ("size_bytes", {"size_bytes": -1}, "expected int >= 0"),
    ("release_date", {"release_date": "yesterday"}, "is not an RFC 3339 time"),
    ("release_date", {"release_date": "2024-02-31T00:00:00Z"}, "is not an RFC 3339 time"),
    ("compatibility[1]", {"compatibility": ["*", ">=x.y"]}, "is not a range"),
    ("download_url", {"download_url": "htp//example.org"}, "points outside"),
    ("download_url", {"download_url": "../secret"}, "points outside"),
    ("download_url", {"download_url": "https://me:pw@example.org/a"}, "a user name or password"),
    ("mirrors[0]", {"mirrors": ["ftp://example.org/a"]}, "use http:// or https://"),
    (
        "minimum_ram_gb",
        {"minimum_ram_gb": 8, "recommended_ram_gb": 4},
        "is 8, more than recommended_ram_gb (4)",
    ),
    ("replaced_by", {"deprecated": True, "replaced_by": "9.9.9"}, "which does not exist"),
    ("replaced_by", {"deprecated": True, "replaced_by": "1.0.0"}, "is the version itself"),
    ("model_id", {"model_id": "psi"}, "in the entry of 'phi'"),
    ("files", {"files": [{"path": "../x", "size_bytes": 10, "sha256": SHA}]}, ""),
    ("files[0]", {"files": [{"path": "x", "sha256": SHA}]}, "size_bytes"),
    ("size_bytes", {"files": [{"path": "x", "size_bytes": 9, "sha256": SHA}]}, "the files have 9 bytes"),
    ("checksum", {"files": [{"path": "x", "size_bytes": 10, "sha256": OTHER}]}, "its one file's sha256"),
    (
        "deltas[0].base",
        {"deltas": [{"base": "0.1.0", "base_manifest": SHA, "pack": PACK, "size_bytes": 1}]},
        "which does not exist",
    ),
    (
        "deltas[0].base_manifest",
        {"deltas": [{"base": "1.0.0", "base_manifest": SHA, "pack": PACK, "size_bytes": 1}]},
        "does not belong to 1.0.0",
    ),
    ('variants["default"]', {"variants": {"default": version()}}, "is also the variant"),
    ('variants["gpu"].checksum', {"variants": {"gpu": version(checksum=5)}}, "expected str, got int"),
]


@pytest.mark.parametrize(("place", "changes", "message"), BAD_VERSIONS)
def test_a_fault_of_a_version_is_an_error_with_its_place(
    place: str, changes: dict[str, Any], message: str
) -> None:
    all_found = found(registry({"1.0.0": version(**changes)}))
    assert f"{V}.{place}" in all_found
    severity, said = all_found[f"{V}.{place}"]
    assert severity == "error"
    assert message in said


@pytest.mark.parametrize(
    ("place", "model", "message"),
    [
        ("current_version", {"current_version": "2.0.0"}, "which does not exist"),
        ("current_version", {"current_version": 2}, "expected str, got int"),
        ('aliases["stable"]', {"aliases": {"stable": "3.0.0"}}, "which does not exist"),
        ("tags[1]", {"tags": ["a", 1]}, "expected str, got int"),
        ('versions["1.0"]', {"versions": {"1.0": version()}}, ""),
        ('versions["1.0.0+b"]', {"versions": {"1.0.0": version(), "1.0.0+b": version()}}, "same version as"),
        ("versions", {"versions": []}, "expected object, got array"),
    ],
)
def test_a_fault_of_a_model_is_an_error_with_its_place(
    place: str, model: dict[str, Any], message: str
) -> None:
    severity, said = found(registry(**model))[f'$.models["phi"].{place}']
    assert severity == "error"
    assert message in said


@pytest.mark.parametrize("changelog", [..., "  \n"])
def test_a_missing_changelog_is_a_warning(changelog: object) -> None:
    said = found(registry({"1.0.0": version(changelog=changelog)}))
    assert said[f"{V}.changelog"] == ("warning", "is missing; users read it before they update")


@pytest.mark.parametrize(("fate", "word"), [("yanked", "withdrawn"), ("deprecated", "deprecated")])
def test_the_current_version_is_to_be_usable(fate: str, word: str) -> None:
    said = found(registry({"1.0.0": version(**{fate: True})}))
    assert said['$.models["phi"].current_version'] == ("error", f"is 1.0.0, which is {word}")


def test_what_is_odd_is_a_warning() -> None:
    raw = registry(
        {"1.1.0": version(), "1.0.0": version(release_date=...), "1.2.0": version(deprecated=True)},
        aliases={"old": "1.2.0", "v2": "1.0.0", "latest": "1.0.0"},
        current_version=None,
        homepage="example.org",
    )
    del raw["registry_version"]
    warned = found(raw)
    assert {severity for severity, _ in warned.values()} == {"warning"}
    assert set(warned) == {
        "$.registry_version",
        '$.models["phi"].current_version',
        '$.models["phi"].versions',
        '$.models["phi"].homepage',
        f"{V}.release_date",
        '$.models["phi"].versions["1.2.0"].deprecated',
        *(f'$.models["phi"].aliases["{word}"]' for word in ("old", "v2", "latest")),
    }


def test_all_faults_are_reported_and_not_only_the_first() -> None:
    raw = registry(
        {
            "1.0.0": version(checksum=1, changelog=2, compatibility="*"),
            "1.1.0": version(manifest="x", minimum_ram_gb="much"),
        },
        tags=5,
    )
    raw["models"]["psi"] = 7
    raw["mirrors"] = ["nowhere"]
    raw["last_updated"] = "now"
    places = set(found(raw))
    w = V.replace("1.0.0", "1.1.0")
    assert {
        *("$.mirrors[0]", "$.last_updated", '$.models["psi"]', '$.models["phi"].tags'),
        *(f"{V}.checksum", f"{V}.changelog", f"{V}.compatibility"),
        *(f"{w}.manifest", f"{w}.minimum_ram_gb"),
    } <= places


def test_a_key_that_occurs_twice_has_its_place() -> None:
    text = json.dumps(registry()).replace('"size_bytes": 10', '"size_bytes": 10, "size_bytes": 11')
    assert found(text) == {
        '$.models["phi"].versions["1.0.0"].size_bytes': (
            "error",
            "occurs twice in one object; readers use the last one",
        )
    }


@pytest.mark.parametrize(
    ("text", "path", "message"),
    [
        ("", "$", "is not JSON"),
        ("<html>", "$", "looks like a web page"),
        ("[]", "$", "expected object, got array"),
        ("{}", "$.models", "is missing"),
        ('{"models": 3}', "$.models", "expected object, got int"),
        ('{"models": {}, "registry_version": "2.0"}', "$.registry_version", "has format 2"),
        ('{"models": {"a": {"versions": {}}}, "split": true}', "$.models", "but the registry is split"),
        ('{"models": {"A": {"versions": {}}, "a": {"versions": {}}}}', '$.models["a"]', "only in case"),
        ("[" * 100_000, "$", "nested"),
        ('{"models": NaN}', "$", "NaN"),
        ('{"models": {}, "more": 1e999}', "$", "too large"),
    ],
)
def test_what_is_no_registry_at_all(text: str, path: str, message: str) -> None:
    severity, said = found(text)[path]
    assert severity == "error"
    assert message in said


def test_a_model_by_itself() -> None:
    raw = copy.deepcopy(registry())["models"]["phi"]
    assert lint_model(json.dumps(raw).encode(), model="phi").findings == []
    wrong: Linted = lint_model(json.dumps(raw).encode(), model="psi")
    assert [item.path for item in wrong.findings] == ["$.model_id"]
    del raw["model_id"]
    assert [item.message for item in lint_model(json.dumps(raw).encode()).findings] == ["is missing"]


@pytest.mark.parametrize(
    "text", ["2024-01-01T00:00:00Z", "2024-06-30t23:59:60.5z", "2024-01-01 00:00:00+05:30"]
)
def test_times_of_rfc_3339(text: str) -> None:
    assert time_fault(text) is None


@pytest.mark.parametrize(
    "text", ["2024-01-01", "2024-01-01T00:00:00", "24-01-01T00:00:00Z", "", "2024-01-01T24:00:00Z"]
)
def test_what_is_no_time(text: str) -> None:
    assert time_fault(text)


@pytest.mark.parametrize(
    "text", ["https://example.org/a b", "http:///x", "https://[::1/x", "/etc/passwd", ""]
)
def test_what_is_no_url(text: str) -> None:
    assert url_fault(text, relative=True)


def test_urls_may_be_relative_where_that_is_meant() -> None:
    assert url_fault("files/a.onnx", relative=True) is None
    assert url_fault("files/a.onnx", relative=False)


def test_a_time_in_the_future_binds_the_publisher() -> None:
    now = datetime(2024, 1, 1, tzinfo=UTC)
    for text, warned in (
        ("2024-01-01T00:30:00Z", False),
        ("2024-01-01T05:30:00+05:00", False),
        ("2024-01-02T00:00:00Z", True),
    ):
        data = json.dumps({**registry(), "last_updated": text}).encode()
        found = [item for item in lint_registry(data, now=now).findings if "future" in item.message]
        assert [(item.severity, item.path) for item in found] == ([("warning", "$.last_updated")] * warned)
