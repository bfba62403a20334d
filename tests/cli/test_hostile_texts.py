"""Texts of a registry reach no terminal as they are: no escape, no control, no turned direction."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Ystore

EVIL = "x\x1b[31m\x1b]0;t\x07\x9b2J\u202egnp\u2066\u200f\r\nerror: FORGED\x0b\x0cFORGED\x85\u2028FORGED\ttab"
_RAW = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")

COMMANDS = (
    ("search",),
    ("show", "phi-3-mini@1.1.0"),
    ("show", "phi-3-mini@9.9.9"),
    ("fetch", "phi-3-mini@1.1.0"),
    ("checkout", "phi-3-mini@1.0.0"),
    ("checkout", "phi-3-mini@evil"),
    ("outdated",),
    ("outdated", "--changelog"),
    ("update", "--all", "--dry-run"),
    ("update", "phi-3-mini"),
    ("compat", "phi-3-mini"),
    ("log", "phi-3-mini"),
    ("list",),
    ("list", "--all"),
    ("status",),
    ("registry", "list"),
    ("registry", "refresh"),
    ("auto-update", "run"),
    ("auto-update", "status"),
    ("fetch", "plain@1.0.0"),
    ("doctor",),
    ("fsck",),
    ("fetch", "plain@2.0.0"),
    ("lock", "phi-3-mini"),
)


@pytest.fixture
def hostile(published: Path, tmp_path: Path) -> Path:
    """A registry whose every free text is hostile."""
    root = tmp_path / "hostile"
    shutil.copytree(published, root)
    path = root / "registry.json"
    document: dict[str, Any] = json.loads(path.read_text())
    entry = document["models"]["phi-3-mini"]
    texts = ("name", "description", "category", "license", "homepage")
    entry.update(dict.fromkeys(texts, EVIL), tags=[EVIL, EVIL * 500])
    for version in entry["versions"].values():
        version.update(changelog=EVIL, deprecated=True, deprecated_reason=EVIL, replaced_by=EVIL)
    plain = {"download_url": f"{EVIL}.bin", "checksum": "sha256:" + "0" * 64, "mirrors": [f"http://{EVIL}/"]}
    other = {"download_url": f"{EVIL}/no.bin", "checksum": "sha256:" + "1" * 64}
    document["models"]["plain"] = {"versions": {"1.0.0": plain, "2.0.0": other}}
    document.update(mirrors=[f"http://{EVIL}/", f"{EVIL}"])
    path.write_text(json.dumps(document))
    return root


@pytest.mark.parametrize("output", ["people", "plain", "json"])
def test_nothing_raw_of_a_registry_reaches_the_terminal(
    output: str, hostile: Path, ystore: Ystore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # which `lock` writes into
    assert ystore("registry", "add", "evil", hostile).code == 0
    for command in COMMANDS:
        done = ystore(*command, *(["--json"] if output == "json" else []), people=output == "people")
        assert "Traceback" not in done.err, command
        for shown in (done.out, done.err):
            assert not _RAW.search(shown), (command, shown)
            if output != "json":
                assert not [
                    line for line in shown.split("\n") if line.startswith(("FORGED", "error: FORGED"))
                ]
        if output == "json" and done.out:
            assert json.loads(done.out) is not None


def test_json_has_the_same_value(hostile: Path, ystore: Ystore) -> None:
    ystore("registry", "add", "evil", hostile)
    shown = ystore("show", "phi-3-mini@1.1.0", "--json")
    assert shown.json["homepage"] == EVIL
    assert "\\u009b" in shown.out
    assert "\\u202e" in shown.out


def test_what_is_one_line_stays_one_line(hostile: Path, ystore: Ystore) -> None:
    ystore("registry", "add", "evil", hostile)
    shown = ystore("show", "phi-3-mini@1.1.0", people=True).out
    for key in ("name", "category", "tags", "license", "homepage"):
        after = shown.split(f"\n  {key} ", 1)[1].split("\n")[1]
        assert re.match(r"  [a-z]", after), (key, after)
