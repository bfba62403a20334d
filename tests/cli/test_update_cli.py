"""`update`, `outdated`, `compat`, `pin`: what is printed, and with which exit code it ends."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Ystore
from tests.support.registries import mark
from yarnstore import Store, errors
from yarnstore.cli.exitcodes import EXIT_CODES, exit_code_of
from yarnstore.cli.output import Output, ProgressView
from yarnstore.progress import Progress


def test_update_all(site: Path, ystore: Ystore) -> None:
    planned = ystore("update", "--all", "--dry-run", people=True)
    assert planned.code == 0
    assert (
        sorted(line for line in planned.out.splitlines() if line.startswith("  1.1.0"))
        == ["  1.1.0 (minor): Has 1.1.0"] * 2
    )
    assert planned.out.splitlines()[-1] == "2 to update"
    done = ystore("update", "--all", people=True)
    assert (done.code, done.out.splitlines()[-1]) == (0, "2 updated")
    assert "b 1.0.0 → 1.1.0: Has 1.1.0\n  And more\n" in done.err
    again = ystore("update", "--all").table
    assert [row[:4] for row in again] == [["a", "current", "", "1.1.0"], ["b", "current", "", "1.1.0"]]
    major = ystore("update", "--major", "a", people=True)
    assert "a 1.1.0 → 2.0.0, which may break existing uses:\n" in major.err


def test_update_all_with_one_that_fails(site: Path, ystore: Ystore) -> None:
    mark(site, "a@1.1.0", manifest=f"sha256:{'0' * 64}")
    piped = ystore("update", "--all")
    assert piped.code == 4
    assert [row[:4] for row in piped.table] == [
        ["a", "failed", "", "1.0.0"],
        ["b", "updated", "1.0.0", "1.1.0"],
    ]
    assert "error: a: " in piped.err
    people = ystore("update", "--all", people=True)
    assert people.code == 4
    assert "a 1.0.0: update failed; still installed: " in people.out
    assert people.out.splitlines()[-1] == "1 up to date, 1 failed"
    document = ystore("update", "--all", "--json")
    assert document.code == 4
    assert (document.json["updated"], document.json["failed"]) == (0, 1)
    assert document.json["results"][0]["error"]["code"] == "integrity"


def test_update_names_models_or_all(site: Path, ystore: Ystore) -> None:
    assert ystore("update").code == 2
    assert ystore("update", "--all", "a").code == 2
    assert ystore("update", "--to", "one", "a").code == 2
    both = ystore("update", "a", "nothing", "--json")
    assert both.code == 3
    assert [result["status"] for result in both.json["results"]] == ["updated", "failed"]


def test_the_gate_of_the_application(site: Path, ystore: Ystore, monkeypatch: pytest.MonkeyPatch) -> None:
    mark(site, "a@1.1.0", compatibility=[">=2.0.0"])
    mark(site, "a@2.0.0", compatibility=[">=3.0.0"])
    ystore("registry", "refresh")
    refused = ystore("checkout", "a@2.0.0", "--app-version", "2.5.0", people=True)
    assert refused.code == 6
    assert refused.err == (
        "error: a 2.0.0 needs application version >=3.0.0; yours is 2.5.0\n"
        "  newest that fits: 1.1.0       ystore checkout a@1.1.0\n"
    )
    monkeypatch.setenv("YSTORE_APP_VERSION", "1.5.0")
    held = ystore("update", "a", "--json")
    assert held.code == 6
    assert held.json["error"] == {
        **held.json["error"],
        "code": "incompatible",
        "needs": ">=2.0.0",
        "has": "1.5.0",
        "newest_that_fits": "1.0.0",
    }
    everything = ystore("update", "--all", people=True)
    assert everything.code == 0
    assert "a 1.0.0 stays; newer versions are not compatible\n" in everything.out
    row = ystore("outdated", "a", "--exit-code")
    assert row.code == 0
    assert row.table[0][2:5] == ["1.0.0", "2.0.0", "major"]
    assert row.table[0][6] == "2.0.0 needs application version >=3.0.0; yours is 1.5.0"
    assert ystore("outdated", "a", "--exit-code", "--app-version", "2.0.0").code == 10
    assert ystore("fetch", "a@2.0.0").code == 0
    assert ystore("checkout", "a@2.0.0", "--app-version", "one").code == 2


def test_the_gate_of_memory(site: Path, ystore: Ystore) -> None:
    mark(site, "a@1.1.0", minimum_ram_gb=16)
    ystore("registry", "refresh")
    assert ystore("checkout", "a@1.1.0").code == 6
    assert ystore("update", "a").code == 6
    assert ystore("update", "a", "--force").code == 0
    assert ystore("checkout", "a@1.1.0", "--force").code == 0


def test_outdated_fails_where_nothing_can_be_asked(site: Path, ystore: Ystore, tmp_home: Path) -> None:
    shutil.rmtree(tmp_home / "registries")
    site.rename(site.with_name("gone"))
    for words in (("outdated",), ("outdated", "--exit-code"), ("check", "-q")):
        assert ystore(*words).code == 5
    row = ystore("outdated", "a").table[0]
    assert row[:6] == ["a", "1.0.0", "1.0.0", "", "", ""]
    assert row[6]
    assert ystore("outdated", "--json").json[0]["error"]["code"] == "network"


def test_a_file_name_is_no_markup(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    with ProgressView(Output()) as view:
        view._on_terminal = True
        view(Progress("read", "x[/bold]", 1, 8))
        view._bars.refresh()


def test_outdated_of_what_was_withdrawn(site: Path, ystore: Ystore) -> None:
    mark(site, "a@1.0.0", yanked=True, deprecated_reason="it is wrong")
    shown = ystore("outdated", "-v", people=True).out
    assert "1.0.0 is withdrawn by its publisher: it is wrong; 2.0.0 is a new major" in shown
    assert "\na 1.1.0 (minor)\n  Has 1.1.0\n  And more\n" in shown
    assert "1.0.0 (withdrawn)" in ystore("list", people=True).out
    assert "  a 1.0.0: withdrawn by its publisher: it is wrong\n" in ystore("status", people=True).out
    assert ystore("list", "--json").json[0]["standing"]["yanked"] is True


def test_piped_lists_say_what_people_are_told(site: Path, ystore: Ystore) -> None:
    mark(site, "a@1.0.0", deprecated=True)
    ystore("registry", "refresh")
    ystore("pin", "a")
    ystore("path", "a")
    row = ystore("list").table[0]
    assert row[0] == "a"
    assert row[7:] == ["pinned,deprecated"]
    detailed = ystore("list", "--detailed").table[0]
    assert detailed[:5] + detailed[6:8] == row[:5] + row[6:8]
    assert detailed[8] == "1"
    assert [text[:7] for text in detailed[9:]] == ["sha256:"] * 2
    ystore("checkout", "a@2.0.0")
    ystore("rollback", "a")
    moves = ystore("log", "--moves", "a").table
    assert [row[1:] for row in moves] == [
        ["checkout", "", "1.0.0", "default", "yarn"],
        ["checkout", "1.0.0", "2.0.0", "default", "yarn"],
        ["rollback", "2.0.0", "1.0.0", "default", "yarn"],
    ]
    assert all(row[0].isdigit() for row in moves)
    people = ystore("log", "--moves", "a", people=True).out.splitlines()
    assert [line.split()[1] for line in people] == ["checkout", "checkout", "rollback"]


def test_compat(site: Path, ystore: Ystore) -> None:
    mark(site, "a@2.0.0", compatibility=[">=2.0.0", "<3"], minimum_ram_gb=4)
    assert ystore("compat", "a").code == 0  # by memory alone
    shown = ystore("compat", "a", "--app-version", "1.5.0", people=True)
    assert shown.code == 0
    assert [" ".join(line.split()) for line in shown.out.splitlines()] == [
        "VERSION VARIANT FITS APPLICATION MEMORY NOTE",
        "2.0.0 (latest) default no >=2.0.0, <3 4 GB needs application version >=2.0.0; yours is 1.5.0",
        "1.1.0 default yes any –",
        "1.0.0 default yes any –",
    ]
    assert ystore("compat", "a@2.0.0", "--app-version", "1.5.0").code == 6
    table = ystore("compat", "a", "--app-version", "2.1.0", "--json").json
    assert [row["usable"] for row in table["rows"]] == [True, True, True]
    assert (table["newest_that_fits"], table["app_version"]) == ("2.0.0", "2.1.0")


def test_compat_of_an_alias(site: Path, ystore: Ystore) -> None:
    path = site / "registry.json"
    raw = json.loads(path.read_text())
    raw["models"]["a"]["aliases"] = {"stable": "1.1.0", "gone": "9.9.9"}
    path.write_text(json.dumps(raw))
    for word, version in (("stable", "1.1.0"), ("latest", "2.0.0")):
        table = ystore("compat", f"a@{word}", "--app-version", "1.0.0").table
        assert [row[0] for row in table] == [version]
    assert ystore("compat", "a@gone", "--app-version", "1.0.0").code == 3


def test_another_variant_is_told_of(site: Path, ystore: Ystore, tmp_path: Path) -> None:
    for variant in ("cpu", "gpu"):
        source = tmp_path / f"{variant}.bin"
        source.write_bytes(variant.encode() * 99)
        Store.publish(source, f"v:{variant}@1.0.0", registry=site)
    ystore("checkout", "v:cpu@1.0.0")
    shown = ystore("checkout", "v:gpu@1.0.0", people=True).out
    assert shown.startswith("v 1.0.0 (cpu) → 1.0.0 (gpu)   (back: ")
    assert ystore("rollback", "v", people=True).out.startswith("v 1.0.0 (gpu) → 1.0.0 (cpu)   in ")
    path = site / "registry.json"
    raw = json.loads(path.read_text())
    old = json.loads(path.read_text().replace("1.0.0", "0.9.0"))
    raw["models"]["v"]["versions"]["0.9.0"] = old["models"]["v"]["versions"]["0.9.0"]
    raw["models"]["v"]["versions"]["1.0.0"]["minimum_ram_gb"] = 16
    path.write_text(json.dumps(raw))
    ystore("remove", "--all", "v")
    assert "ystore checkout v:cpu@0.9.0" in ystore("checkout", "v:cpu@1.0.0").err


def test_pins(site: Path, ystore: Ystore) -> None:
    assert ystore("pin", "a@~1.0", people=True).out == "a@~1.0: pinned\n"
    assert "1.0.0 (pinned to @~1.0)" in ystore("list", people=True).out
    assert ystore("update", "a").table[0][1] == "pinned"
    assert ystore("pin", "a:default").table == [["a", "~1.0", "default", "yes"]]
    assert ystore("unpin", "a", people=True).out == "a: no longer pinned\n"
    assert ystore("update", "a").table[0][1] == "updated"


def test_an_exit_code_is_found_by_the_code_of_its_class() -> None:
    for kind, number in EXIT_CODES:
        assert exit_code_of(kind.code) == number
    assert exit_code_of(errors.DiskFullError.code) == 7
    assert exit_code_of("error") == exit_code_of("none such") == 1


def test_the_progress_of_several_is_one_display(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    with ProgressView(Output()) as view:
        view._on_terminal = True
        for n in range(1, 5):
            for subject in ("a 1.1.0", "b 1.1.0"):
                view(Progress("download", subject, n, 8))
        tasks: dict[Any, Any] = view._tasks
        assert list(tasks) == [("download", "a 1.1.0"), ("download", "b 1.1.0")]
        first = view._bars
        view(Progress("write", "a 1.1.0", 1, 8))
        assert list(tasks) == [("download", "b 1.1.0"), ("write", "a 1.1.0")]
        view(Progress("download", "b 1.1.0", 8, 8))
        assert list(tasks) == [("write", "a 1.1.0")]
        assert view._bars is first
        view(Progress("note", "", text="done"))
        assert view._bars is None
