"""docs/operations.md: its commands run in their order, and its settings are read."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.pages import REPO, blocks, shown_commands
from tests.support.stores import make_site
from yarnstore import Store
from yarnstore.settings.load import load_settings

PAGE = REPO / "docs" / "operations.md"


def test_the_commands_run_in_their_order(tmp_path: Path) -> None:
    site = make_site(tmp_path, models=("phi-3-mini", "whisper"), versions=("1.0.0", "1.1.0"))
    with site.store() as store:
        store.checkout("phi-3-mini@1.0.0")
    commands = [command for command, _ in shown_commands(PAGE)]
    assert len(commands) >= 10
    script = "\n".join(
        f"echo '$ {command}'\n{command}" for command in (c.replace("'", '"') for c in commands)
    )
    ran = subprocess.run(
        ["bash", "-e", "-c", f'ystore() {{ "{sys.executable}" -m yarnstore "$@"; }}\nexec 2>&1\n{script}'],
        env={
            **os.environ,
            "YSTORE_HOME": str(site.home),
            "XDG_CONFIG_HOME": str(tmp_path / "config"),
            "HOME": str(tmp_path),
            "PYTHONPATH": str(REPO),
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout
    assert "some failed" not in ran.stdout.replace('|| echo "some failed', "")
    with Store.open(site.home) as store:
        assert [(item.model, item.version) for item in store.list_installed_models()] == [
            ("phi-3-mini", "1.1.0")
        ]
        assert {item.version for item in store.list_versions() if item.model == "whisper"} == {"1.1.0"}
        assert store.auto_update_status("phi-3-mini").models[0].policy == "patch"


@pytest.mark.parametrize("number", range(len(blocks(PAGE, "toml"))))
def test_the_settings_are_read(tmp_path: Path, number: int) -> None:
    text = blocks(PAGE, "toml")[number]
    (tmp_path / "config.toml").write_text(text)
    assert load_settings(tmp_path).home == tmp_path
