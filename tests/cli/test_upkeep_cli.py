"""`auto-update`, `doctor`, `import --from-local-state`, `list --detailed`: what people and programs see."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tomllib
from pathlib import Path

import pytest

from tests.cli.conftest import Ystore
from yarnstore import Store


def test_auto_update_is_off_until_enabled(installed: Ystore) -> None:
    ran = installed("auto-update", "run", "--now", people=True)
    assert (ran.code, ran.out) == (0, "no model is checked automatically   (ystore auto-update enable)\n")
    assert installed("auto-update", "status").table == [["phi-3-mini", "off", "notify", "", ""]]
    assert installed("auto-update", "enable").table == [["phi-3-mini", "on", "notify", "", ""]]
    ran = installed("auto-update", "run")
    assert ran.table[0][:5] == ["phi-3-mini", "available", "1.0.0", "1.1.0", "minor"]
    assert installed("list").table[0][1] == "1.0.0"
    assert installed("auto-update", "disable").table == [["phi-3-mini", "off", "notify", "", ""]]


def test_auto_update_installs_what_its_policy_allows(installed: Ystore, tmp_home: Path) -> None:
    installed("auto-update", "enable", "phi-3-mini", "--policy", "minor", "--window", "Mon-Sun 00:00-24:00",
              "--jitter", "0s")  # fmt: skip
    config = tomllib.loads((tmp_home / "managed.toml").read_text())
    assert config["auto_update"] == {
        "jitter": "0s",
        "models": {"phi-3-mini": {"enabled": True, "policy": "minor", "windows": ["00:00-24:00"]}},
    }
    assert [item["name"] for item in config["registries"]] == ["yarn"]
    ran = installed("auto-update", "run", people=True)
    assert ran.code == 0, ran.err
    assert "phi-3-mini 1.0.0 → 1.1.0 installed" in ran.out
    assert "1 model updated" in ran.out
    assert installed("auto-update", "run", "--json").json["models"][0]["status"] == "current"
    status = installed("auto-update", "status", people=True).out
    assert "installs minor versions and patches, 00:00-24:00 (open now)" in status
    assert "last check: just now" in status or "last check: 1 minute ago" in status


@pytest.mark.skipif(os.name == "nt", reason="the program is a script of a POSIX shell")
def test_auto_update_waits_on_a_metered_network(
    installed: Ystore, tmp_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "bin" / "busctl"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho u 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)
    monkeypatch.setattr(sys, "platform", "linux")
    (tmp_home / "config.toml").write_text('[auto_update]\nenabled = true\nnetwork = "unmetered"\n')
    ran = installed("auto-update", "run", people=True)
    assert (ran.code, ran.out) == (0, "nothing was checked\n")
    assert "the network is metered: auto-update waits" in ran.err
    ran = installed("auto-update", "run")
    assert (ran.code, ran.table) == (0, [])
    assert "the network is metered: auto-update waits" in ran.err
    assert installed("auto-update", "run", "--json").json["postponed"] == "the network is metered"
    assert "only on a network that is not metered" in installed("auto-update", "status", people=True).out
    assert installed("auto-update", "run", "--now").table[0][:2] == ["phi-3-mini", "available"]


@pytest.mark.parametrize(
    "words", [("--window", "nights"), ("--policy", "major"), ("--jitter", "soon"), ("../x",)]
)
def test_auto_update_refuses_what_it_cannot_read(
    installed: Ystore, tmp_home: Path, words: tuple[str, ...]
) -> None:
    before = (tmp_home / "managed.toml").read_bytes()
    ran = installed("auto-update", "enable", *words)
    assert ran.code == 2
    assert ran.err.startswith("error: ")
    assert (tmp_home / "managed.toml").read_bytes() == before


def test_auto_update_that_fails_says_so(installed: Ystore, registry: Path, tmp_home: Path) -> None:
    doc = json.loads((registry / "registry.json").read_text())
    doc["models"]["phi-3-mini"]["versions"]["1.1.0"]["manifest"] = "sha256:" + "0" * 64
    (registry / "registry.json").write_text(json.dumps(doc))
    installed("registry", "remove", "yarn")
    installed("registry", "add", "yarn", registry)
    installed("auto-update", "enable", "--policy", "minor")
    ran = installed("auto-update", "run")
    assert (ran.code, ran.table[0][:3]) == (1, ["phi-3-mini", "failed", "1.0.0"])
    assert ran.table[0][6]
    assert installed("list").table[0][1] == "1.0.0"


def test_a_window_of_any_time_again(installed: Ystore) -> None:
    installed("auto-update", "enable", "--window", "Sat 02:00-03:00")
    assert installed("auto-update", "status").table[0][3] == "Sat 02:00-03:00"
    installed("auto-update", "enable", "--window", "")
    assert installed("auto-update", "status").table[0][3] == ""


def test_install_timer_prints_what_it_wrote(installed: Ystore, tmp_path: Path) -> None:
    ran = installed("auto-update", "install-timer", "--kind", "systemd", "--dir", tmp_path / "t", people=True)
    for path in (tmp_path / "t").iterdir():
        assert str(path) in ran.out
        for line in path.read_text().splitlines():
            assert line in ran.out
    assert "to enable it:" in ran.out
    assert installed("auto-update", "install-timer").code == 0
    assert installed("auto-update", "install-timer", "--json").json["enable"]


def test_the_doctor(installed: Ystore, tmp_home: Path) -> None:
    ran = installed("doctor", people=True)
    assert ran.code == 0, ran.out
    assert ran.out.endswith("no problems found\n")
    (tmp_home / "refs" / "installed" / "phi-3-mini").write_text("sha256:bad\n")
    ran = installed("doctor", people=True)
    assert ran.code == 1
    assert "WRONG  contents: refs/installed/phi-3-mini" in ran.out
    assert "`ystore fsck --repair` repairs what it can" in ran.out
    assert "1 problem found" in ran.out
    told = installed("doctor", "--json")
    assert (told.code, told.json["wrong"]) == (1, 1)
    assert [row[1] for row in installed("doctor").table].count("wrong") == 1


def test_the_doctor_reads_settings_that_nobody_else_can(installed: Ystore, tmp_home: Path) -> None:
    (tmp_home / "config.toml").write_text("= 3\n")
    assert installed("list").code == 2
    ran = installed("doctor")
    assert ran.code == 1
    assert [row[0] for row in ran.table if row[1] == "wrong"] == ["config"]


def test_import_from_local_state(ystore: Ystore, tmp_path: Path) -> None:
    models = {}
    for name in ("good", "bad"):
        (tmp_path / f"{name}.onnx").write_bytes(name.encode() * 1000)
        digest = hashlib.sha256(b"good" * 1000).hexdigest()
        models[name] = {"version": "1.0.0", "file_path": f"{name}.onnx", "checksum": f"sha256:{digest}"}
    state = tmp_path / "local-state.json"
    state.write_text(json.dumps({"installed_models": models}))
    ran = ystore("import", "--from-local-state", state)
    assert ran.code == 4
    assert [row[:3] for row in ran.table] == [["good", "1.0.0", "installed"], ["bad", "1.0.0", "failed"]]
    assert "does not match its digest" in ran.table[1][5]
    ran = ystore("import", "--from-local-state", state, people=True)
    assert "1 model imported, 1 failed" in ran.out
    assert ystore("import", "--from-local-state", state, "--json").json["failed"] == 1
    for words in (("import",), ("import", "x"), ("import", "x", "a@1.0.0", "--from-local-state", "y")):
        assert ystore(*words).code == 2


def test_list_detailed(installed: Ystore) -> None:
    installed("path", "phi-3-mini")
    shown = installed("list", "--detailed", people=True).out.splitlines()
    assert shown[0].split()[-4:] == ["USES", "CHECKSUM", "MANIFEST", "PATH"]
    (item,) = installed("list", "--detailed", "--json").json
    assert item["uses"] == 1
    assert item["checksum"] in shown[1]
    with Store.open() as store:
        assert store.list_installed_models()[0].checksum == item["checksum"]
