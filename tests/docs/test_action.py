"""The GitHub Action and the hooks of pre-commit: their commands as written, against a made registry."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.docs.pages import REPO
from tests.support.stores import MODEL, Site, make_site

ACTION = REPO / ".github" / "actions" / "install" / "action.yml"

yaml = pytest.importorskip("yaml", reason="needs pip install pyyaml")


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """A registry, and a workspace beside it with a lock file of 1.1.0."""
    found = make_site(tmp_path)
    (tmp_path / "workspace").mkdir()
    with found.store() as store:
        store.lock(f"{MODEL}@~1.1", file=tmp_path / "workspace" / "ystore.lock")
    (tmp_path / "bin").mkdir()
    command = tmp_path / "bin" / "ystore"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m yarnstore "$@"\n')
    command.chmod(0o755)
    return found


def run(site: Site, script: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "PATH": f"{site.root / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(REPO),
        "GITHUB_WORKSPACE": str(site.root / "workspace"),
        "GITHUB_OUTPUT": str(site.root / "output"),
        "GITHUB_ENV": str(site.root / "env"),
        **variables,
    }
    return subprocess.run(
        ["bash", "-e", "-c", script],
        cwd=site.root / "workspace",
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )


def run_action(site: Site, registry: Path) -> dict[str, str]:
    """Run the steps of the action as its runner does; return the environment of the steps after it."""
    action: dict[str, Any] = yaml.safe_load(ACTION.read_text())
    inputs = {name: str(given.get("default", "")) for name, given in action["inputs"].items()}
    inputs |= {"registry": str(registry), "package": ""}
    settings: dict[str, str] = {}
    for step in action["runs"]["steps"]:
        if "run" not in step:
            assert step["uses"].startswith("actions/cache@")
            continue
        given = {
            name: re.sub(r"\$\{\{ inputs\.([a-z-]+) \}\}", lambda found: inputs[found[1]], value)
            for name, value in step["env"].items()
        }
        assert "${{" not in step["run"], "an input in a script could be any command"
        done = run(site, step["run"], **given, **settings)
        assert done.returncode == 0, done.stderr
        if (site.root / "env").exists():
            settings = dict(line.split("=", 1) for line in (site.root / "env").read_text().splitlines())
    return settings


def test_the_steps_of_the_action_install_the_locked_version(site: Site) -> None:
    settings = run_action(site, site.registry)
    outputs = dict(line.split("=", 1) for line in (site.root / "output").read_text().splitlines())
    assert outputs["home"] == settings["YSTORE_HOME"] == str(site.root / "workspace" / ".ystore")
    assert re.fullmatch(r"(sha256:)?[0-9a-f]{64}", outputs["digest"])
    said = run(site, f"ystore path {MODEL}; ystore list --all", **settings).stdout
    assert "1.1.0" in said
    assert "1.2.0" not in said


def test_the_action_uses_a_cached_store_of_a_registry_that_has_moved(site: Site) -> None:
    run_action(site, site.registry)
    moved = site.registry.rename(site.root / "moved")
    settings = run_action(site, moved)
    assert str(moved) in run(site, "ystore registry list", **settings).stdout
    assert run(site, f"ystore path {MODEL}", **settings).returncode == 0


@pytest.mark.parametrize(
    ("package", "installs"), [(None, f"{ACTION.parent}/../../.."), ("", ""), ("a.whl", "a.whl")]
)
def test_the_action_installs_its_own_copy_by_default(site: Site, package: str | None, installs: str) -> None:
    assert (ACTION.parents[3] / "pyproject.toml").exists()
    action: dict[str, Any] = yaml.safe_load(ACTION.read_text())
    step = action["runs"]["steps"][0]
    python = site.root / "bin" / "python"
    python.write_text('#!/bin/sh\necho "$@"\n')
    python.chmod(0o755)
    given = str(action["inputs"]["package"]["default"]) if package is None else package
    done = run(site, step["run"], PACKAGE=given, GITHUB_ACTION_PATH=str(ACTION.parent))
    assert done.stdout.split() == (["-m", "pip", "install", "--quiet", installs] if installs else [])


@pytest.mark.parametrize("hook", ["ystore-registry-lint", "ystore-lock"])
def test_a_hook_passes_and_fails(site: Site, hook: str) -> None:
    hooks = {item["id"]: item for item in yaml.safe_load((REPO / ".pre-commit-hooks.yaml").read_text())}
    found = hooks[hook]
    lint = hook == "ystore-registry-lint"
    changed = site.registry / "registry.json" if lint else site.root / "workspace" / "ystore.lock"
    assert re.search(found["files"], changed.name)
    given = [str(site.registry)] if lint else ["ystore.lock"]
    command = f"{found['entry']} {shlex.join(given if lint else [*found['args'], *given])}"
    done = run(site, command, YSTORE_HOME=str(site.home))
    assert done.returncode == 0, done.stdout + done.stderr
    changed.write_text(f"<<<<<<< HEAD\n{changed.read_text()}")
    assert run(site, command, YSTORE_HOME=str(site.home)).returncode == 4


def test_the_hook_of_lock_files_asks_the_registry(site: Site) -> None:
    hooks = {item["id"]: item for item in yaml.safe_load((REPO / ".pre-commit-hooks.yaml").read_text())}
    found = hooks["ystore-lock"]
    path = site.root / "workspace" / "ystore.lock"
    command = shlex.join([*shlex.split(found["entry"]), *found["args"], path.name])
    raw = json.loads(path.read_text())
    raw["models"][0]["manifest"] = "0" * 64
    path.write_text(json.dumps(raw))
    done = run(site, command, YSTORE_HOME=str(site.home))
    assert done.returncode == 4
    assert "does not match the lock file" in done.stderr
    assert run(site, shlex.join(["ystore", "lock", "--digest", "--file", path.name])).returncode == 0
