"""What is stored and what it takes: `list --all`, `status`, and what a registry says of a category."""

from __future__ import annotations

from pathlib import Path

from tests.cli.conftest import Ystore
from yarnstore import Store


def pack_bytes(home: Path) -> int:
    return sum(path.stat().st_size for path in (home / "packs").glob("*.pack"))


def test_list_all_shows_what_was_fetched(ready: Ystore) -> None:
    assert "ystore list --all" in ready("list", people=True).out
    assert "nothing is stored" in ready("list", "--all", people=True).out
    ready("fetch", "phi-3-mini@1.0.0")
    header, row = ready("list", "--all", people=True).out.splitlines()
    assert header.split()[:6] == ["MODEL", "VERSION", "VARIANT", "SIZE", "OWN", "SHARED"]
    assert row.split()[:2] == ["phi-3-mini", "1.0.0"]
    assert ready("list", "--all", "-q").out == "phi-3-mini\n"
    assert ready("list").out == ""


def test_list_all_says_what_each_version_takes(installed: Ystore, tmp_home: Path) -> None:
    installed("fetch", "phi-3-mini@1.1.0")
    new, old = installed("list", "--all", "--json").json
    assert [(item["version"], item["installed"]) for item in (new, old)] == [
        ("1.1.0", False),
        ("1.0.0", True),
    ]
    assert old["own_bytes"] + old["shared_bytes"] > old["size_bytes"]  # its files, beside packs
    assert 0 < new["own_bytes"] < new["size_bytes"]
    # What is shared is shared by both: whatever is stored is somebody's own, or shared once.
    files = sum(path.stat().st_size for path in (tmp_home / "files").iterdir())
    total = old["own_bytes"] + new["own_bytes"] + new["shared_bytes"]
    manifests = sum(path.stat().st_size for path in (tmp_home / "manifests").iterdir())
    assert abs(total - files - manifests - pack_bytes(tmp_home)) < 1000
    rows = installed("list", "--all").table
    assert [row[8] for row in rows] == ["", "installed"]
    assert [int(row[4]) for row in rows] == [new["own_bytes"], old["own_bytes"]]
    assert len(installed("list", "--all", "--detailed").table[0]) == 12
    installed("gc")  # what the files of 1.0.0 have is in no pack from here on
    before = pack_bytes(tmp_home)
    installed("remove", "phi-3-mini@1.1.0")
    installed("gc")
    assert abs(before - pack_bytes(tmp_home) - new["own_bytes"]) < 0.3 * before


def test_versions_from_python(tmp_path: Path) -> None:
    with Store.open(tmp_path / "home") as store:
        for n, model in enumerate(("a", "b", "b")):
            (tmp_path / "w.bin").write_bytes(f"{n}".encode() * 5000)
            store.import_model(tmp_path / "w.bin", f"{model}@1.{n}.0")
        assert [(item.model, item.version) for item in store.list_versions()] == [
            ("a", "1.0.0"), ("b", "1.2.0"), ("b", "1.1.0"),
        ]  # fmt: skip
        store.pin("b@1.1.0")
        assert [item.pinned for item in store.list_versions("b")] == [False, True]


def test_status_after_a_removal(installed: Ystore, tmp_home: Path) -> None:
    installed("fetch", "phi-3-mini@1.1.0")
    both = installed("status", "--json").json
    assert both["unused_bytes"] == 0
    installed("remove", "--all", "phi-3-mini")
    gone = installed("status", "--json").json
    assert (gone["raw_bytes"], gone["unique_bytes"]) == (0, 0)
    assert (gone["dedupe_ratio"], gone["compression_ratio"]) == (1.0, 1.0)
    assert gone["unused_pack_bytes"] == gone["stored_bytes"] == pack_bytes(tmp_home)
    assert gone["unused_bytes"] == gone["stored_bytes"] + gone["file_bytes"]
    shown = installed("status", people=True).out
    assert "0 B of models stored as 0 B" in shown
    assert "that no version needs   (ystore gc)" in shown
    installed("gc")
    assert installed("status", "--json").json["unused_bytes"] == 0


def test_status_after_the_removal_of_one_version(installed: Ystore) -> None:
    one = installed("status", "--json").json
    installed("fetch", "phi-3-mini@1.1.0")
    installed("remove", "phi-3-mini@1.1.0")
    left = installed("status", "--json").json
    assert left["unused_bytes"] > 0
    for figure in ("raw_bytes", "unique_bytes", "dedupe_ratio"):
        assert left[figure] == one[figure]
    assert abs(left["compression_ratio"] - one["compression_ratio"]) < 0.01


def test_the_category_is_shown(ystore: Ystore, tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(b"weights")
    registry = tmp_path / "registry"
    Store.publish(tmp_path / "w.bin", "m@1.0.0", registry=registry, category="speech")
    ystore("registry", "add", "yarn", registry)
    assert "category     speech" in ystore("show", "m", people=True).out
    assert ystore("show", "m", "--json").json["category"] == "speech"
    header, row = ystore("search", "SPEECH", people=True).out.splitlines()
    assert row[header.index("CATEGORY") :].startswith("speech")
    assert ystore("search", "--json").json[0]["category"] == "speech"


def test_compat_without_an_application(ready: Ystore, registry: Path) -> None:
    shown = ready("compat", "phi-3-mini", people=True)
    assert (shown.code, shown.out.count(" yes ")) == (0, 2)
    assert "only memory is compared" in shown.err
    piped = ready("compat", "phi-3-mini")
    assert (piped.code, piped.err, [row[2] for row in piped.table]) == (0, "", ["yes", "yes"])
    assert ready("compat", "phi-3-mini", "--json").json["app_version"] is None


def test_compat_without_an_application_goes_by_memory(ystore: Ystore, tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(b"weights")
    for version, gigabytes in (("1.0.0", 1.0), ("2.0.0", 1e5)):
        Store.publish(
            tmp_path / "w.bin", f"m@{version}", registry=tmp_path / "registry",
            minimum_ram_gb=gigabytes, compatibility=(">=9.0.0",),
        )  # fmt: skip
    ystore("registry", "add", "yarn", tmp_path / "registry")
    assert [row[2] for row in ystore("compat", "m").table] == ["no", "yes"]
    assert ystore("compat", "m@2.0.0").code == 6
