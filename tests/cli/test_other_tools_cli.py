"""Imports from other tools, exports to them, copies on a disk: what the commands print."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.cli.conftest import Ystore
from tests.support.images import FakeRegistry
from tests.support.tools import add_snapshot, gguf

MODEL = gguf("Tiny", bytes(range(256)) * 400)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The Hugging Face cache, with one model."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path / "ollama"))
    add_snapshot(tmp_path / "hub", "org/tiny", "a" * 40, {"tiny.gguf": MODEL}, when_s=1)
    return tmp_path / "hub"


def test_import_and_export_of_another_tool(ystore: Ystore, cache: Path) -> None:
    took = ystore("import", "hf://org/tiny", people=True)
    assert re.fullmatch(r"org/tiny 0\.0\.1\+aaaaaaa: imported 103 kB; .* added \(.*\)\n", took.out)
    assert ystore("import", "hf://org/tiny").table == [
        ["org/tiny", "0.0.1+aaaaaaa", "default", "present", str(len(MODEL)), "0"]
    ]
    ystore("checkout", "org/tiny@0.0.1+aaaaaaa")
    assert ystore("export", "org/tiny", "hf://org/tiny", people=True).out.endswith("(nothing to do)\n")
    behind = ystore("export", "--check", "org/tiny", "hf://me/copy", people=True)
    assert (behind.code, "is behind: 3 files to write" in behind.out) == (1, True)
    ystore("export", "--hardlink", "org/tiny", "hf://me/copy")
    done = ystore("export", "--check", "org/tiny", "hf://me/copy", people=True)
    assert (done.code, done.out.endswith("is up to date\n")) == (0, True)
    assert ystore("import", "hf://org/none").code == 3
    assert ystore("import", cache).code == 2


def test_images_in_a_registry(ystore: Ystore, cache: Path) -> None:
    ystore("import", "hf://org/tiny", "tiny@1.0.0")
    with FakeRegistry() as registry:
        place = f"docker://{registry.host}/tiny"
        done = ystore("export", "tiny@1.0.0", place, "--flavour", "docker", people=True)
        assert done.out == f"tiny 1.0.0: exported 103 kB to {place}:1.0.0 (uploaded)\n"
        check = ystore("export", "--check", "tiny@1.0.0", f"{place}:1.0.0", people=True)
        assert (check.code, f"  {place}:1.0.0\n" in check.out) == (1, True)  # it is not ModelPack's
        same = ("export", "--check", "tiny@1.0.0", f"{place}:1.0.0", "--flavour", "docker")
        assert ystore(*same).code == 0
        came = ystore("import", f"{place}:1.0.0", "again", people=True)
        assert re.fullmatch(r"again 0\.0\.1\+[0-9a-f]{7}: imported 103 kB; already stored, .*\n", came.out)
        assert ystore("import", f"{place}:2.0.0").code == 3
        assert ystore("import", "docker://tiny").code == 2
        assert ystore("export", "tiny@1.0.0", "hf://org/tiny", "--flavour", "docker").code == 2
        assert ystore("--offline", "export", "tiny@1.0.0", place).code not in (0, 2)


def test_identify_and_adopt(ystore: Ystore, cache: Path, tmp_path: Path) -> None:
    copies = tmp_path / "copies"
    copies.mkdir()
    for name in ("one.gguf", "two.bin"):
        (copies / name).write_bytes(MODEL)
    told = ystore("identify", copies / "two.bin", people=True).out
    assert told.splitlines()[0].endswith("two.bin: 103 kB, gguf, 102 400 parameters, “Tiny”")
    assert told.splitlines()[-1] == f"  org/tiny {'a' * 40}: tiny.gguf, in the Hugging Face cache"
    plain = copies / "notes.txt"
    plain.write_text("known nowhere")
    assert ystore("identify", plain).out == f"unknown\t\t\t{plain}\t\n"
    plain.unlink()
    folder = ystore("identify", copies)
    assert folder.code == 2
    assert folder.err == (
        f"error: {copies} is a folder\n"
        f"  give a file; `ystore adopt {copies}` lists the model files of a folder\n"
    )
    found = ystore("adopt", copies, cache, people=True).out
    assert found.startswith(
        "3 model files, 308 kB, with 1 distinct content\n2 copies of 1 file: 205 kB\n  org/tiny a"
    )
    assert found.endswith("  replace the copies: add --apply, or --apply --hardlink\n")
    shared = ystore("adopt", copies, cache, "--apply", people=True).out
    without = "skipped" in shared  # on a file system without reflinks
    assert ("  replace them by hard links: ystore adopt DIR… --apply --hardlink\n" in shared) == without
    ystore("adopt", "--undo")
    done = ystore("adopt", copies, cache, "--apply", "--hardlink", people=True).out
    assert done.endswith("2 copies replaced, 205 kB freed\n  take it back: ystore adopt --undo\n")
    assert ystore("adopt", "--undo", people=True).out == "2 files restored\n"
    assert ystore("adopt", "--undo", people=True).out == "nothing to undo: no file was replaced\n"
    for wrong in (["--hardlink", copies], [], ["--undo", copies]):
        assert ystore("adopt", *wrong).code == 2
