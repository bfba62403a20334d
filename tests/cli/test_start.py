"""What everyday commands do not import, so that they start fast."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.cli.conftest import Ystore

PATIENCE_S = 20.0
NETWORK = (
    "yarnstore.backends.connect",
    "yarnstore.backends.wrappers",
    "yarnstore.ops.session.connections",
    *("httpx", "netrc", "random", "secrets", "ssl", "urllib.request"),
)
ELSEWHERE = (
    "yarnstore.ops.fetching.fetch",
    "yarnstore.ops.session.loadcode",
    "yarnstore.registry.decide",
    "yarnstore.registry.windows",
    "yarnstore.results",
    *("argparse", "base64", "difflib", "locale", "semver", "shutil", "tempfile"),
)
REGISTRIES = ("yarnstore.registry.schema", "yarnstore.registry.standing")
# `locale` comes with gettext's first search for translations, which takes longer than most imports.
UNUSED = {
    "--version": ("dataclasses", "locale", "json", "msgspec", "pathlib", "yarnstore.api", "yarnstore.store"),
    "log": (*NETWORK, *ELSEWHERE, "yarnstore.registry.standing"),
    "list": (*NETWORK, *ELSEWHERE),
    "path": (*NETWORK, *ELSEWHERE, *REGISTRIES, "yarnstore.ops.querying.inventory"),
    "rollback": (*NETWORK, *ELSEWHERE, *REGISTRIES),
}


SCRIPT = """
import sys
before = set(sys.modules)
from yarnstore.cli import run
assert run(sys.argv[1:]) == 0
sys.stderr.write(" ".join(set(sys.modules) - before))
"""


def modules(*arguments: str) -> set[str]:
    """The modules that a run imports."""
    command = [sys.executable, "-c", SCRIPT, *arguments]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=True)
    return set(ran.stderr.rpartition("\n")[2].split())


@pytest.mark.parametrize("command", UNUSED)
def test_a_command_imports_what_it_uses(installed: Ystore, command: str) -> None:
    if command == "rollback":
        assert installed("update", "phi-3-mini").code == 0
    found = modules(command, *(() if command in ("--version", "list") else ("phi-3-mini",)))
    assert "yarnstore.cli" in found
    assert sorted(found.intersection(UNUSED[command])) == []


def test_the_import_check_sees_an_import(installed: Ystore) -> None:
    assert {*NETWORK[:3], "random", "yarnstore.registry.schema"} <= modules("registry", "refresh")
