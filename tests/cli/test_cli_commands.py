"""Every command: its happy path, for people, piped, and as JSON."""

from __future__ import annotations

import os
import re
from pathlib import Path

from tests.cli.conftest import Ystore
from yarnstore.cli import COMMANDS
from yarnstore.cli.display import size

# The age of a registry that the session made.
RECENTLY = r"(just now|\d+ minutes? ago)"


def test_registry_add_of_a_folder_that_is_no_registry_says_what_to_give(
    ystore: Ystore, tmp_path: Path
) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    failed = ystore("registry", "add", "yarn", folder)
    assert failed.err.endswith(
        f"{os.sep}registry.json: no such file\n"
        "  give the folder that `ystore publish --registry` wrote, or its address\n"
    )
    assert ystore("registry", "list").out == ""


def test_registry_add_tells_what_it_has(ystore: Ystore, published: Path) -> None:
    added = ystore("registry", "add", "yarn", published, people=True)
    assert (added.code, added.err) == (0, "")
    assert re.fullmatch(rf"yarn: 1 model, 2 versions, updated {RECENTLY}\n", added.out)


def test_registry_list_refresh_remove(ready: Ystore, published: Path) -> None:
    assert ready("registry", "list").table[0][:3] == ["yarn", "1", "2"]
    assert ready("registry", "list", "--json").json[0]["url"] == str(published)
    assert ready("registry", "refresh", people=True).out.startswith("yarn: 1 model, 2 versions")
    assert ready("registry", "refresh", "--json").json[0]["versions"] == 2
    assert ready("registry", "remove", "yarn").out == "yarn\tremoved\n"
    assert (
        ready("registry", "list", people=True).out
        == "no registry is configured   (add one: ystore registry add NAME URL)\n"
    )


def test_mirrors_are_shown_replaced_and_removed(ready: Ystore, published: Path, tmp_path: Path) -> None:
    one, two = "https://one.example.org/", str(tmp_path / "mirror")
    assert ready("registry", "mirrors", "yarn", people=True).out == "yarn has no mirrors\n"
    assert ready("registry", "mirrors", "yarn", one, two).table == [[one, "config", ""], [two, "config", ""]]
    assert ready("registry", "mirrors", "yarn", "-q").out == f"{one}\n{two}\n"
    header, row, _ = ready("registry", "mirrors", "yarn", people=True).out.splitlines()
    assert (header.split(), row.split()) == (["URL", "SET", "BY"], [one, "config"])
    assert ready("registry", "mirrors", "yarn", "--none", one).code == 2
    assert ready("registry", "mirrors", "none-such").code == 3
    info = ready("registry", "mirrors", "yarn", "--none", "--json").json
    assert [mirror["url"] for mirror in info["mirrors"]] == [str(published)]


def test_search(ready: Ystore) -> None:
    header, row = ready("search", "language", people=True).out.splitlines()
    assert header.split() == [
        "MODEL",
        "LATEST",
        "VERSIONS",
        "SIZE",
        "REGISTRY",
        "INSTALLED",
        "CATEGORY",
        "DESCRIPTION",
    ]
    assert row.split()[:3] == ["phi-3-mini", "1.1.0", "2"]
    assert ready("search", "nothing-like-it", people=True).out == "no model matches\n"
    assert ready("search", "LANGUAGE", "-q").out == "phi-3-mini\n"
    assert ready("search", "--json").json[0]["latest"] == "1.1.0"


def test_show(ready: Ystore) -> None:
    shown = ready("show", "phi-3-mini", people=True).out
    assert shown.startswith("phi-3-mini 1.1.0 (default)\n")
    assert "\n  changelog    Better dialogue\n               Fixes repetition\n" in shown
    assert ready("show", "phi-3-mini@1.0.0").facts["changelog"] == "First version"
    assert ready("show", "phi-3-mini", "--json").json["versions"] == ["1.0.0", "1.1.0"]


def test_fetch_says_first_what_it_costs_and_then_what_it_did(ready: Ystore) -> None:
    fetched = ready("fetch", "phi-3-mini@1.0.0", people=True)
    assert re.fullmatch(r"phi-3-mini 1\.0\.0: [\d.]+ MB of 3\.\d MB to download\n", fetched.err)
    assert re.fullmatch(r"phi-3-mini 1\.0\.0: fetched and verified [\d.]+ MB in [\d.]+ s\n", fetched.out)
    again = ready("fetch", "phi-3-mini@1.0.0", people=True)
    assert re.fullmatch(
        r"phi-3-mini 1\.0\.0: all \d+ chunks are already stored, nothing downloaded\n", again.out
    )


def test_fetch_json_has_the_promised_fields(ready: Ystore) -> None:
    first = ready("fetch", "phi-3-mini@1.0.0", "--json").json
    assert list(first) == [
        *("model", "version", "variant", "manifest", "size_bytes", "download_bytes", "chunks_total"),
        *("chunks_fetched", "delta_from", "seconds", "alternate_bytes"),
    ]
    assert (first["model"], first["version"], first["variant"]) == ("phi-3-mini", "1.0.0", "default")
    assert first["chunks_fetched"] == first["chunks_total"] > 0
    assert 0 < first["download_bytes"] < first["size_bytes"]
    both = ready("fetch", "phi-3-mini@1.0.0", "phi-3-mini@^1.1", "--json").json
    assert [item["version"] for item in both] == ["1.0.0", "1.1.0"]
    assert both[0]["download_bytes"] == both[0]["chunks_fetched"] == 0
    assert 0 < both[1]["chunks_fetched"] < both[1]["chunks_total"]


def test_fetch_of_several_prints_each_as_it_is_done(ready: Ystore) -> None:
    two = ready("fetch", "phi-3-mini@1.0.0", "phi-3-mini@9.9.9")
    assert two.code == 3
    assert [row[:2] for row in two.table] == [["phi-3-mini", "1.0.0"]]


def leads_to(ystore: Ystore, home: Path) -> Path:
    """Where the link of the installed version leads; on Windows, which has none, its path."""
    link = home / "models" / "phi-3-mini"
    return link.resolve() if os.name == "posix" else Path(ystore("path", "phi-3-mini").out.strip())


def test_checkout_prints_the_path(ready: Ystore, tmp_home: Path) -> None:
    path = Path(ready("checkout", "phi-3-mini@1.0.0").out.removesuffix("\n"))
    assert (path.parent, path) == (tmp_home / "views", leads_to(ready, tmp_home)), "the version, not the link"
    assert (path / "model.safetensors").stat().st_size > 3_000_000
    again = ready("checkout", "phi-3-mini@1.0.0", people=True)
    assert again.out == f"phi-3-mini 1.0.0 is already installed\n{path}\n"
    newer = ready("checkout", "phi-3-mini@1.1.0", people=True)
    assert (
        newer.out
        == f"phi-3-mini 1.0.0 → 1.1.0   (back: ystore rollback phi-3-mini)\n{leads_to(ready, tmp_home)}\n"
    )
    assert leads_to(ready, tmp_home) != path
    assert ready("checkout", "phi-3-mini@1.0.0", "--json").json["previous"] == "1.1.0"


def test_path_prints_nothing_else(installed: Ystore, tmp_home: Path) -> None:
    here = installed("path", "phi-3-mini", people=True)
    assert (here.out, here.err) == (f"{leads_to(installed, tmp_home)}\n", "")
    assert installed("path", "phi-3-mini@1.0.0").out == here.out
    other = installed("path", "phi-3-mini@1.1.0")
    assert other.out.count("\n") == 1
    assert '"version": "1.1.0"' in (Path(other.out.strip()) / "config.json").read_text()
    assert "to download" in other.err
    assert installed("list").table[0][:2] == ["phi-3-mini", "1.0.0"]


def test_update_and_outdated(installed: Ystore) -> None:
    row = installed("outdated").table[0]
    assert row[:5] == ["phi-3-mini", "1.0.0", "1.1.0", "1.1.0", "minor"]
    assert 0 < int(row[5]) < 4_000_000
    assert installed("outdated", "--exit-code").code == 10
    assert "\n  Better dialogue\n  Fixes repetition\n" in installed("outdated", "-v", people=True).out
    updated = installed("update", "phi-3-mini", people=True)
    assert updated.err.startswith("phi-3-mini 1.0.0 → 1.1.0: Better dialogue\n  Fixes repetition\n")
    assert re.fullmatch(
        r"phi-3-mini 1\.1\.0 installed, [\d.]+ [kM]B downloaded   \(back: ystore rollback phi-3-mini\)\n",
        updated.out,
    )
    assert installed("update", "phi-3-mini", people=True).out == "phi-3-mini 1.1.0 is up to date\n"
    assert installed("update", "phi-3-mini", "--json").json["status"] == "current"
    current = installed("outdated", "--exit-code", people=True)
    assert (current.code, current.out.split()[-3:]) == (0, ["up", "to", "date"])


def test_rollback_downloads_nothing(installed: Ystore) -> None:
    installed("update", "phi-3-mini")
    back = installed("rollback", "phi-3-mini", people=True)
    assert re.fullmatch(
        r"phi-3-mini 1\.1\.0 → 1\.0\.0   in \d+ ms, nothing downloaded"
        r"   \(forward: ystore checkout phi-3-mini@1\.1\.0\)\n",
        back.out,
    )
    assert back.err == ""
    again = installed("rollback", "phi-3-mini", "1.1.0", people=True).out
    assert again.endswith("   (back: ystore checkout phi-3-mini@1.0.0)\n")
    assert installed("rollback", "phi-3-mini", "1.1.0", people=True).out.endswith("nothing downloaded\n")


def test_the_log_tells_forward_from_back_and_a_failed_self_check(installed: Ystore, tmp_home: Path) -> None:
    installed("update", "phi-3-mini")
    installed("rollback", "phi-3-mini")
    installed("rollback", "phi-3-mini", "1.1.0")
    assert "(rolled forward from 1.0.0)" in installed("log", "phi-3-mini", people=True).out
    installed("checkout", "phi-3-mini@1.0.0")
    with (tmp_home / "config.toml").open("a") as file:
        file.write('\n[models."phi-3-mini"]\nverify_command = ["false"]\n')
    assert installed("update", "phi-3-mini").code == 9
    assert "(1.1.0 failed its self-check)" in installed("log", "phi-3-mini", people=True).out
    lines = installed("log", "--moves", "phi-3-mini", people=True).out.splitlines()
    assert [" ".join(line.split()[1:]) for line in lines] == [
        "checkout – → 1.0.0 from yarn",
        "update 1.0.0 → 1.1.0 from yarn",
        "rollback 1.1.0 → 1.0.0",
        "rollback 1.0.0 → 1.1.0 forward",
        "checkout 1.1.0 → 1.0.0 back from yarn",
        "update 1.0.0 → 1.1.0 from yarn",
        "self-check 1.1.0 → 1.0.0 1.1.0 failed its self-check",
    ]
    moves = installed("log", "phi-3-mini", "--json").json["moves"]
    assert [move["direction"] or "" for move in moves] == [
        "",
        "forward",
        "back",
        "forward",
        "back",
        "forward",
        "back",
    ]


def test_log(installed: Ystore) -> None:
    installed("update", "phi-3-mini")
    installed("rollback", "phi-3-mini")
    lines = installed("log", "phi-3-mini", people=True).out.splitlines()
    assert re.match(rf"  1\.1\.0  in the store · published {RECENTLY} · minor · 3\.", lines[0])
    assert lines[0].endswith(" · Better dialogue …")
    installed_now = r"\* 1\.0\.0  installed just now \(rolled back from 1\.1\.0\)"
    assert re.match(rf"{installed_now} · published {RECENTLY}", lines[1])
    assert lines[2:4] == ["", "  changes on this machine"]
    assert [line.split()[1] for line in lines[4:]] == ["rollback", "update", "checkout"]
    assert "         Fixes repetition" in installed("log", "-v", "phi-3-mini", people=True).out.splitlines()
    rows = installed("log", "phi-3-mini").table
    assert [row[0] for row in rows] == ["1.1.0", "1.0.0"]
    assert rows[0][2] == "stored,latest"
    assert rows[1][2] == "stored,installed"
    assert [move["operation"] for move in installed("log", "phi-3-mini", "--json").json["moves"]] == [
        "checkout",
        "update",
        "rollback",
    ]


def test_list(installed: Ystore, tmp_home: Path) -> None:
    header, row = installed("list", people=True).out.splitlines()
    assert header.split() == ["MODEL", "VERSION", "VARIANT", "SIZE", "INSTALLED", "LAST", "USED"]
    assert row.split()[:3] == ["phi-3-mini", "1.0.0", "default"]
    assert str(tmp_home) in installed("list", "--detailed", people=True).out
    plain = installed("list").table[0]
    assert plain[:3] == ["phi-3-mini", "1.0.0", "default"]
    assert all(cell.isdecimal() for cell in plain[3:6])
    assert installed("list", "-q").out == "phi-3-mini\n"


def test_pin_holds_and_unpin_lets_go(installed: Ystore) -> None:
    assert installed("pin", "phi-3-mini", people=True).out == "phi-3-mini 1.0.0: pinned\n"
    assert "1.0.0 (pinned)" in installed("list", people=True).out
    held = installed("update", "phi-3-mini", people=True).out
    assert held == "phi-3-mini 1.0.0 is pinned; not updated   (ystore unpin phi-3-mini)\n"
    assert installed("unpin", "phi-3-mini", people=True).out == "phi-3-mini 1.0.0: no longer pinned\n"
    assert installed("update", "phi-3-mini", "--json").json["status"] == "updated"


def test_import_export_remove_need_no_registry(ystore: Ystore, made_models: Path, tmp_path: Path) -> None:
    source = made_models / "phi-3-mini" / "1.0.0"
    took = ystore("import", source, "mine@0.1.0", people=True)
    assert re.match(r"mine 0\.1\.0: imported 3\.\d MB; [\d.]+ MB added \(\d+ of \d+ chunks new\)\n", took.out)
    out = ystore("export", "mine@0.1.0", tmp_path / "copy", people=True).out
    assert re.fullmatch(r"mine 0\.1\.0: exported 3\.\d MB to \S+/copy \(rebuilt from chunks\)\n", out)
    for path in source.iterdir():
        assert (tmp_path / "copy" / path.name).read_bytes() == path.read_bytes()
    gone = ystore("remove", "mine@0.1.0", people=True).out
    assert gone == "mine 0.1.0: removed; `ystore gc` reclaims the disk space\n"
    freed = ystore("gc", people=True).out
    assert re.match(r"freed [\d.]+ MB: \d+ chunks\nkept: nothing", freed)


def test_a_removal_is_undone_until_gc(installed: Ystore) -> None:
    installed("fetch", "phi-3-mini@1.1.0")
    assert installed("remove", "--all", "phi-3-mini").code == 0
    back = installed("remove", "--undo", "phi-3-mini", people=True).out
    assert back == "phi-3-mini 1.0.0, 1.1.0: in the store again; 1.0.0 is installed\n"
    assert installed("remove", "phi-3-mini@1.1.0").code == 0
    again = installed("remove", "--undo", "phi-3-mini@1.1.0", "--json").json
    assert again == {"model": "phi-3-mini", "versions": ["1.1.0"], "installed": "1.0.0"}
    none = installed("remove", "--undo", "phi-3-mini")
    assert (none.code, "ystore fetch phi-3-mini" in none.err) == (3, True)


def test_gc_says_what_it_would_free_and_frees_that(installed: Ystore) -> None:
    installed("fetch", "phi-3-mini@1.1.0")
    plan = installed("gc", "--keep", "0", "--dry-run", people=True).out
    assert re.match(
        r"would free [\d.]+ [kM]B: 1 version \(phi-3-mini@1\.1\.0\), \d+ chunks?.*\nkept: installed 1\n", plan
    )
    done = installed("gc", "--keep", "0", people=True).out
    assert done == plan.replace("would free", "freed")
    after = installed("gc", "--keep", "0", "--json").json
    assert (after["freed_bytes"], after["versions"]) == (0, [])


def test_fsck(installed: Ystore, tmp_home: Path) -> None:
    good = installed("fsck", people=True)
    assert good.code == 0
    assert re.fullmatch(r"1 model, 1 version, \d+ chunks, [\d.]+ MB checked in [\d.]+ s\n", good.out)
    assert installed("fsck", "--quick").facts["problems"] == ""
    sampled = installed("fsck", "--sample", "5%", people=True)
    assert re.search(r"[\d.]+ k?M?B of [\d.]+ MB checked \(\d+%\) in", sampled.out), sampled.out
    assert installed("fsck", "--sample", "100%", "--json").json["sample"] == 1
    pack = next((tmp_home / "packs").glob("*.pack"))
    data = bytearray(pack.read_bytes())
    data[len(data) // 2] ^= 1
    pack.chmod(0o644)
    pack.write_bytes(data)
    bad = installed("fsck", people=True)
    assert (bad.code, installed("fsck", "--sample", "100%").code) == (4, 4)
    assert "Affects phi-3-mini 1.0.0" in bad.out
    assert bad.out.endswith("`ystore fsck --repair` repairs what it can\n")
    rows = [row for row in installed("fsck").table if row[0] == "problems"]
    assert any(pack.name in cell for row in rows for cell in row)
    mended = installed("fsck", "--repair", people=True)
    assert (mended.code, mended.out.splitlines()[-1]) == (0, "all problems repaired")
    assert installed("fsck").code == 0


def test_status(installed: Ystore, tmp_home: Path) -> None:
    shown = installed("status", people=True).out
    assert shown.startswith(f"{tmp_home}\n  1 model, 1 version; 1 installed, 0 pinned\n")
    files = sum(path.stat().st_size for path in (tmp_home / "files").iterdir())
    packs = sum(path.stat().st_size for path in (tmp_home / "packs").glob("*.pack"))
    assert f"of models stored as {size(files + packs)}\n" in shown  # one version saves nothing
    assert f"  {size(files)} of checked-out files, {size(packs)} in 1 pack (" in shown
    assert " free (" in shown
    facts = installed("status").facts
    assert 0 < int(facts["stored_bytes"]) < int(facts["raw_bytes"])
    doc = installed("status", "--json").json
    promised = {"versions", "chunks", "raw_bytes", "stored_bytes", "dedupe_ratio", "compression_ratio"}
    assert promised | {"free_bytes"} <= set(doc)


def test_status_says_what_chunks_and_deltas_save(ready: Ystore) -> None:
    for version in ("1.0.0", "1.1.0"):
        assert ready("fetch", f"phi-3-mini@{version}").code == 0
    shown = ready("status", people=True).out
    assert re.search(r" of models stored as \S+ MB: saved \S+ .?B by deduplication, \S+ .?B by deltas", shown)
    doc = ready("status", "--json").json
    assert doc["raw_bytes"] >= doc["unique_bytes"] > doc["stored_bytes"]


def test_du(installed: Ystore) -> None:
    shown = installed("du", people=True).out
    assert re.search(r"^phi-3-mini@1\.0\.0 +default +file ", shown, re.MULTILINE)
    assert "gc --thin" not in shown  # nothing is kept for a rollback
    assert re.search(r"^[\d.]+ .?B in total, .* kept in reserve\)$", shown, re.MULTILINE)
    doc = installed("du", "phi-3-mini", "--json").json
    (row,) = doc["models"][0]["versions"]
    assert installed("du").table[-1] == ["total", str(doc["total_bytes"])]
    assert 0 < row["own_bytes"] <= doc["total_bytes"]
    assert installed("du", "other").code == 3


def test_du_and_gc_say_of_a_version_before_and_after_a_rollback_that_it_was_installed_before(
    installed: Ystore,
) -> None:
    assert installed("update", "phi-3-mini").code == 0
    for command in ("outdated", "rollback"):  # the older version was replaced; then the newer one
        installed(command, "phi-3-mini")
        assert re.search(r"^phi-3-mini@\S+ .* previous$", installed("du", people=True).out, re.MULTILINE)
        assert "\nkept: installed 1, previous 1\n" in installed("gc", "-n", people=True).out
        versions = installed("du", "--json").json["models"][0]["versions"]
        assert {row["reason_kept"] for row in versions} == {"installed", "rollback"}
        assert installed("gc", "-n", "--json").json["kept"] == {"installed": 1, "rollback": 1}


def test_publish_with_a_base_says_what_its_deltas_take(ystore: Ystore, tmp_path: Path) -> None:
    registry = tmp_path / "r"
    source = tmp_path / "mine"
    source.mkdir()
    (source / "words.txt").write_text("".join(f"word {n}\n" for n in range(60_000)))
    arguments = ("publish", source, "mine@1.0.0", "--registry", registry)
    assert ystore(*arguments, "--json").json["base"] is None
    (source / "words.txt").write_text("".join(f"word {n}\n" for n in range(1, 60_000)))
    arguments = ("publish", source, "other@1.0.0", "--registry", registry)
    ran = ystore(*arguments, "--base", "auto", people=True)
    assert ran.code == 0
    assert re.search(r"; \S+ k?B of deltas from mine@1\.0\.0\n$", ran.out)
    assert "--base auto: mine@1.0.0, about " in ran.err
    done = ystore(*arguments, "--base", "mine@1.0.0", "--json").json
    assert (done["base"], done["base_bytes"] > 0, done["changed"]) == ("mine@1.0.0", True, False)
    unknown = ystore(*arguments, "--base", "nobody@1.0.0")
    assert unknown.code == 3
    assert "--base takes a version of this registry, such as MODEL@1.0.0, or auto" in unknown.err
    assert ystore(*arguments, "--base", "other@1.0.0").code == 2


def test_publish_in_detail_and_optimize_say_what_deltas_take(ystore: Ystore, tmp_path: Path) -> None:
    registry = tmp_path / "r"
    source = tmp_path / "mine"
    source.mkdir()

    def publish(n: int, *options: str) -> str:
        (source / "words.txt").write_text("".join(f"word {n}\n" for n in range(n, 60_000)))
        spec = f"mine@1.{n}.0"
        return ystore("publish", source, spec, "--registry", registry, *options, people=True).out

    def optimize(*options: str) -> str:
        ran = ystore("registry", "optimize", registry, *options, people=True)
        assert ran.code == 0
        return ran.err.splitlines()[-1]

    publish(0)
    assert "delta" not in publish(1, "--deltas", "0")
    assert re.fullmatch(r"would add about \S+ k?B, drop 0 B", optimize("-n"))
    assert re.fullmatch(r"added \S+ k?B, dropped 0 B", optimize())
    assert optimize() == "nothing to add or drop"
    detailed = publish(2, "-v").splitlines()
    assert [line.rpartition(": ")[0] for line in detailed] == [
        "mine 1.2.0",
        "  delta from 1.1.0",
        "  delta from 1.0.0",
        "  delta back to the version before",
    ]


def test_publish(ystore: Ystore, made_models: Path, tmp_path: Path) -> None:
    source = made_models / "phi-3-mini" / "1.0.0"
    arguments = ("publish", source, "phi-3-mini@1.0.0", "--registry", tmp_path / "r", "--variant", "bf16")
    first = ystore(*arguments, people=True)
    assert re.fullmatch(
        r"phi-3-mini 1\.0\.0: published 3\.\d MB as [\d.]+ MB \((\d+) of \1 chunks new\) in [\d.]+ s\n",
        first.out,
    )
    assert ystore(*arguments, people=True).out == "phi-3-mini 1.0.0: already published; nothing changed\n"
    assert ystore(*arguments, "--json").json["variant"] == "bf16"
    other = made_models / "phi-3-mini" / "1.1.0"
    refused = ystore("publish", other, *arguments[2:])
    assert refused.code == 1
    twice = ystore("publish", source, "phi-3-mini:x@1.0.0", *arguments[3:])
    assert (twice.code, "two variants" in twice.err) == (2, True)


def test_every_command_has_help_with_an_example(ystore: Ystore) -> None:
    for name in (*COMMANDS, "registry add", "registry list", "registry refresh", "registry remove"):
        shown = ystore(*name.split(), "--help")
        assert shown.code == 0
        assert f"Example:\n    ystore {name}" in shown.out or f"Example:\n  ystore {name}" in shown.out, name


def test_check_is_outdated(installed: Ystore) -> None:
    assert installed("check").out == installed("outdated").out
