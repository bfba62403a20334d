"""The fixture `ystore_model`, in a run of pytest of its own."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from tests.support.stores import MODEL, Site, make_site

PLUGIN = "yarnstore.plugins.pytest_fixture"
TESTS = f"""
import os, pytest

@pytest.mark.parametrize("spec", ["{MODEL}@1.0.0", "{MODEL}"])
def test_path(ystore_model, spec):
    with open(os.path.join(ystore_model(spec), "config.json")) as file:
        print("FOUND", spec, file.read())

def test_missing(ystore_model):
    ystore_model("nobody@1.0.0")
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return make_site(tmp_path_factory.mktemp("fixture"))


def outcome(root: Path, site: Site, *options: str) -> str:
    """What a run of pytest in a folder says."""
    (root / "pytest.ini").write_text("[pytest]\n")
    (root / "test_models.py").write_text(TESTS)
    loaded = [entry.value for entry in entry_points(group="pytest11")]
    own = [] if PLUGIN in loaded else ["-p", PLUGIN]  # installed before the plugin was added
    # With a space before the folder, pytest would look for its root there.
    own += ["-p", "no:cacheprovider", f"--ystore-home={site.home}"]
    command = [sys.executable, "-m", "pytest", "-rA", *own]
    done = subprocess.run([*command, *options], cwd=root, capture_output=True, text=True, timeout=120)
    return done.stdout + done.stderr


def test_models_are_downloaded_and_locked_ones_preferred(site: Site, tmp_path: Path) -> None:
    with site.store() as store:
        store.lock(f"{MODEL}@~1.1", file=tmp_path / "ystore.lock")
    said = outcome(tmp_path, site)
    assert f'FOUND {MODEL}@1.0.0 {{"model": "{MODEL}", "version": "1.0.0"}}' in said
    assert f'FOUND {MODEL} {{"model": "{MODEL}", "version": "1.1.0"}}' in said
    assert "2 passed" in said
    assert "1 failed" in said
    assert 'no model "nobody"' in said


def test_a_missing_model_can_skip_its_test(site: Site, tmp_path: Path) -> None:
    assert "1 skipped" in outcome(tmp_path, site, "--ystore-skip-missing", "-k", "missing")
