"""Taking over what an older tool installed, by its local-state.json."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

from yarnstore import Store
from yarnstore.errors import FormatError, NotFoundError


def older_tool(folder: Path, models: dict[str, tuple[str, bytes]]) -> dict[str, Any]:
    """A state as the older tools wrote it, with its files."""
    folder.mkdir(parents=True, exist_ok=True)
    installed = {}
    for model, (version, data) in models.items():
        path = folder / f"{model.replace('/', '-')}.onnx"
        path.write_bytes(data)
        installed[model] = {
            "model_id": model,
            "version": version,
            "installed_at": "2024-01-02T03:04:05.678Z",
            "last_used": "2024-02-02T03:04:05.678Z",
            "file_path": str(path),
            "checksum": f"sha256:{hashlib.sha256(data).hexdigest()}",
            "size_bytes": len(data),
        }
    return {"installed_models": installed, "last_check": None, "auto_update_enabled": False}


def write(folder: Path, state: object) -> Path:
    path = folder / "local-state.json"
    path.write_text(json.dumps(state))
    return path


@pytest.fixture
def state(tmp_path: Path) -> dict[str, Any]:
    return older_tool(
        tmp_path / "old",
        {"phi-3-mini": ("1.0.0", b"phi" * 50_000), "org/whisper": ("3.1.0", os.urandom(90_000))},
    )


def test_everything_is_taken_over(state: dict[str, Any], tmp_path: Path) -> None:
    with Store.open(tmp_path / "home") as store:
        done = store.import_local_state(write(tmp_path / "old", state))
        assert [(item.model, item.version, item.status) for item in done.models] == [
            ("phi-3-mini", "1.0.0", "installed"),
            ("org/whisper", "3.1.0", "installed"),
        ]
        assert done.failed == 0
        for model, entry in state["installed_models"].items():
            assert Path(store.path(model)).read_bytes() == Path(entry["file_path"]).read_bytes()
        assert store.fsck().problems == []
        assert [move.operation for move in store.get_version_history("phi-3-mini").moves] == ["import"]
        # Again: nothing changes.
        again = store.import_local_state(tmp_path / "old" / "local-state.json")
        assert {item.status for item in again.models} == {"installed"}
        assert len(store.get_version_history("phi-3-mini").moves) == 1
    ours = json.loads((tmp_path / "home" / "local-state.json").read_text())["installed_models"]
    for model, entry in state["installed_models"].items():
        for key in ("model_id", "version", "checksum", "size_bytes"):
            assert ours[model][key] == entry[key]


def test_a_wrong_checksum_is_an_integrity_error_of_that_one(state: dict[str, Any], tmp_path: Path) -> None:
    bad = Path(state["installed_models"]["phi-3-mini"]["file_path"])
    data = bytearray(bad.read_bytes())
    data[70_000] ^= 1
    bad.write_bytes(data)
    with Store.open(tmp_path / "home") as store:
        done = store.import_local_state(write(tmp_path / "old", state))
        first, second = done.models
        assert (first.status, second.status) == ("failed", "installed")
        assert first.error is not None
        assert first.error["code"] == "integrity"
        assert first.error["expected"] == state["installed_models"]["phi-3-mini"]["checksum"]
        assert first.error["got"] == f"sha256:{hashlib.sha256(data).hexdigest()}"
        assert [item.model for item in store.list_installed_models()] == ["org/whisper"]
        assert store.status().versions == 1
        assert store.fsck().problems == []


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"file_path": "gone.onnx"}, "not-found"),
        ({"size_bytes": 3}, "integrity"),
        ({"checksum": "md5:abc"}, "bad-format"),
        ({"checksum": None}, "bad-format"),
        ({"version": "latest"}, "bad-name"),
        ({"version": None}, "bad-format"),
        ({"file_path": ""}, "bad-format"),
        ({"file_path": "a\0b"}, "bad-format"),
    ],
)
def test_each_stands_alone(state: dict[str, Any], tmp_path: Path, change: dict[str, Any], code: str) -> None:
    state["installed_models"]["phi-3-mini"].update(change)
    with Store.open(tmp_path / "home") as store:
        first, second = store.import_local_state(write(tmp_path / "old", state)).models
        assert first.error is not None
        assert (first.error["code"], second.status) == (code, "installed")


def test_paths_may_be_relative_and_checksums_bare(state: dict[str, Any], tmp_path: Path) -> None:
    entry = state["installed_models"]["phi-3-mini"]
    entry["file_path"] = Path(entry["file_path"]).name
    entry["checksum"] = entry["checksum"].removeprefix("sha256:").upper()
    del entry["size_bytes"]
    with Store.open(tmp_path / "home") as store:
        assert store.import_local_state(write(tmp_path / "old", state)).failed == 0


@pytest.mark.parametrize("named", ["./models/phi.onnx", "models/phi.onnx", "app/models/phi.onnx", "phi.onnx"])
@pytest.mark.parametrize("at", [".", "elsewhere", "app/models"])
def test_paths_relative_to_the_projects_folder_are_found_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str, at: str
) -> None:
    project = tmp_path / "app"
    state = older_tool(project / "models", {"phi": ("1.0.0", b"weights" * 9)})
    state["installed_models"]["phi"]["file_path"] = named
    path = write(project / "models", state)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / at)
    with Store.open(tmp_path / "home") as store:
        done = store.import_local_state(os.path.relpath(path))
        assert [item.error for item in done.models] == [None]
        assert Path(store.path("phi")).read_bytes() == b"weights" * 9


def test_a_list_behind_a_link_is_relative_to_where_it_really_is(tmp_path: Path) -> None:
    state = older_tool(tmp_path / "app" / "models", {"phi": ("1.0.0", b"weights")})
    state["installed_models"]["phi"]["file_path"] = "./models/phi.onnx"
    write(tmp_path / "app" / "models", state)
    (tmp_path / "old").symlink_to(tmp_path / "app" / "models")
    with Store.open(tmp_path / "home") as store:
        assert store.import_local_state(tmp_path / "old" / "local-state.json").failed == 0


def test_of_several_files_of_a_name_the_one_of_the_right_size_is_taken(tmp_path: Path) -> None:
    state = older_tool(tmp_path / "models", {"phi": ("1.0.0", b"weights")})
    state["installed_models"]["phi"]["file_path"] = "models/phi.onnx"
    (tmp_path / "models" / "models").mkdir()
    (tmp_path / "models" / "models" / "phi.onnx").write_bytes(b"another file")
    with Store.open(tmp_path / "home") as store:
        assert store.import_local_state(write(tmp_path / "models", state)).failed == 0


def test_what_is_installed_here_stays(state: dict[str, Any], tmp_path: Path) -> None:
    newer = tmp_path / "newer.onnx"
    newer.write_bytes(b"newer")
    with Store.open(tmp_path / "home") as store:
        store.import_model(newer, "phi-3-mini@2.0.0")
        store.checkout("phi-3-mini@2.0.0")
        first, _ = store.import_local_state(write(tmp_path / "old", state)).models
        assert first.status == "stored"
        assert {item.model: item.version for item in store.list_installed_models()}["phi-3-mini"] == "2.0.0"
        assert store.checkout("phi-3-mini@1.0.0").download_bytes == 0


def test_a_folder_of_this_tools_own_state(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "a.bin").write_bytes(b"a" * 1000)
    (folder / "b.bin").write_bytes(b"b" * 1000)
    with Store.open(tmp_path / "one") as store:
        store.import_model(folder, "pair@1.0.0")
        store.checkout("pair@1.0.0")
    with Store.open(tmp_path / "two") as store:
        done = store.import_local_state(tmp_path / "one" / "local-state.json")
        assert [(item.model, item.status) for item in done.models] == [("pair", "installed")]


def test_it_keeps_the_registrys_variant(tmp_path: Path) -> None:
    source = tmp_path / "m.onnx"
    source.write_bytes(b"m" * 5000)
    Store.publish(source, "phi-3-mini:cpu-int4@1.0.0", registry=tmp_path / "registry")
    state = older_tool(tmp_path / "old", {"phi-3-mini": ("1.0.0", b"m" * 5000)})
    with Store.open(tmp_path / "home") as store:
        store.add_registry("yarn", tmp_path / "registry")
        store.import_local_state(write(tmp_path / "old", state))
        assert store.list_installed_models()[0].variant == "cpu-int4"
        assert store.check_for_updates()[0].kind is None


def test_what_is_no_state(tmp_path: Path) -> None:
    path = tmp_path / "local-state.json"
    with Store.open(tmp_path / "home") as store:
        with pytest.raises(NotFoundError):
            store.import_local_state(path)
        for data in (b"", b"[]", b'{"installed_models": [1]}', b'{"models": {}}'):
            path.write_bytes(data)
            with pytest.raises(FormatError):
                store.import_local_state(path)
        if hasattr(os, "mkfifo"):
            path.unlink()
            os.mkfifo(path)  # nobody will ever write to it
            with pytest.raises(FormatError):
                store.import_local_state(path)
        path.unlink()
        path.write_text('{"installed_models": {}}')
        assert store.import_local_state(path).models == []
