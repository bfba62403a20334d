"""One word per thing, and nothing in the repository that only one machine understands."""

from __future__ import annotations

import io
import os
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.meta.source import MODULES, REPO, Module, module_id

# A chunk, a pack and a manifest have names; these say none of the three.
AVOIDED = {"blob", "blobs", "artifact", "artifacts", "artefact", "artefacts"}
# A plugin of a library overrides its methods, which have the library's words.
THEIRS = {"yarnstore.plugins.mlflow_repository": {"artifact", "artifacts"}}

# Not spelled out, since this file is searched too.
MACHINE_FOLDERS = ("work", "root", "Users")
MACHINE_PATH = re.compile(r"(?<![\w.>})$*-])/(?:" + "|".join(MACHINE_FOLDERS) + r")/")
SKIPPED = {"__pycache__", "build", "dist"}
KEPT_HIDDEN = {".ci", ".github", ".gitignore", ".gitattributes"}


def words_of(identifier: str) -> set[str]:
    """The lower-case words of a snake_case or CamelCase identifier."""
    return {word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", identifier)}


def word_faults(module: Module) -> Iterator[str]:
    """Identifiers with a word that docs/design.md's list of terms rules out."""
    avoided = AVOIDED - THEIRS.get(module.name, set())
    for token in tokenize.generate_tokens(io.StringIO(module.text).readline):
        if token.type == tokenize.NAME and words_of(token.string) & avoided:
            yield f"{module.name}:{token.start[0]} {token.string}: call it by its term"
    if words_of(module.name) & avoided:
        yield f"{module.name}: call it by its term"


def iter_files(root: Path) -> Iterator[Path]:
    """The files of the repository, without what tools leave beside them."""
    for folder, folders, files in os.walk(root):
        folders[:] = [
            name
            for name in folders
            if name in KEPT_HIDDEN
            or not (name.startswith(".") or name in SKIPPED or name.endswith(".egg-info"))
        ]
        for name in files:
            if name in KEPT_HIDDEN or not name.startswith("."):
                yield Path(folder) / name


def path_faults(root: Path) -> list[str]:
    """Lines of text files that hold an absolute path of a developer's machine."""
    faults: list[str] = []
    for path in sorted(iter_files(root)):
        try:
            text = path.read_bytes().decode()
        except UnicodeDecodeError:
            continue
        faults += [
            f"{path.relative_to(root)}:{number} {line.strip()[:100]}"
            for number, line in enumerate(text.splitlines(), 1)
            if MACHINE_PATH.search(line)
        ]
    return faults


@pytest.mark.parametrize("module", MODULES, ids=module_id)
def test_identifiers_use_the_terms(module: Module) -> None:
    assert list(word_faults(module)) == []


def test_no_path_of_a_machine_is_in_the_repository() -> None:
    assert path_faults(REPO) == []


@pytest.mark.parametrize(
    "text", ["blob = 1", "def read_blobs(): ...", "class ArtifactStore: ...", "x.blobId = 1", "BLOB_DIR = 1"]
)
def test_the_check_sees_an_avoided_word(text: str) -> None:
    assert list(word_faults(Module("yarnstore.core.x", text))), "checker is broken"


def test_the_check_lets_prose_and_other_words_be() -> None:
    assert list(word_faults(Module("yarnstore.core.x", "# a blob\nx = 'blob'\nproblobe = 1"))) == []


@pytest.mark.parametrize("folder", MACHINE_FOLDERS)
@pytest.mark.parametrize(
    "line", ["cd {}", "path = '{}x'", "see {}a/b", "PATH=/bin:{}bin", "file://{}a", "`{}`"]
)
def test_the_check_sees_a_path(tmp_path: Path, folder: str, line: str) -> None:
    (tmp_path / ".ci").mkdir()
    (tmp_path / ".ci" / "run").write_text(line.format(f"/{folder}/") + "\n")
    assert len(path_faults(tmp_path)) == 1, "checker is broken"


@pytest.mark.parametrize(
    "line", ["https://example.org{}", "a{}b", "../x{}b", "$HOME{}x", "{{home}}{}x", "$(pwd){}x"]
)
def test_the_check_lets_other_paths_be(tmp_path: Path, line: str) -> None:
    (tmp_path / "a.txt").write_text(line.format(f"/{MACHINE_FOLDERS[1]}/"))
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "b.txt").write_text(f"/{MACHINE_FOLDERS[0]}/")
    (tmp_path / "c.bin").write_bytes(b"\xff/" + MACHINE_FOLDERS[0].encode() + b"/")
    assert path_faults(tmp_path) == []
