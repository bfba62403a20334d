"""What everyday commands import, and nothing else, so that they start fast."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Ystore

PATIENCE_S = 60.0
# Imported by every command, or by what a command cannot do without.
REFERENCE = "import gc, click, json, hashlib, tomllib, blake3, msgspec"


def names(package: str, modules: str) -> set[str]:
    """The full names of a package and its modules."""
    return {package, *(f"{package}.{name}" for name in modules.split())}


VERSION = {
    *names("yarnstore", "_version errors cli"),
    *names("yarnstore.cli", "command display group output streams terminal"),
}
STORE = {
    *VERSION,
    *("contextvars", "fcntl", "pwd"),
    *names("yarnstore", "progress"),
    *names("yarnstore.api", "base installing publishing registries store upkeep"),
    *names("yarnstore.backends", "base urls"),
    *names("yarnstore.cli.commands", ""),
    *names("yarnstore.core", "canonical digest limits manifest names reflog sizes suggestions"),
    *names("yarnstore.ops", ""),
    *names("yarnstore.ops.session", "activity registries session sources stored"),
    *names("yarnstore.registry", "host pins policies ranges spec versions"),
    *names("yarnstore.settings", "files host load network"),
    *names(
        "yarnstore.store", "access filepath folders fsio fsread growing hashed kernel layout lock opentree"
    ),
    *names("yarnstore.store", "moved native paths patience provenance refs trash views"),
}
# What reads the cached index of a registry that lists the model.
REGISTRY = {
    *names("yarnstore.core", "jsoncost"),
    *names("yarnstore.registry", "check entries memory schema select"),
    *names("yarnstore.store", "records registry_cache"),
}
MAY_IMPORT = {
    "--version": VERSION,
    "log": {
        *(*STORE, *REGISTRY, "yarnstore.cli.commands.log_", "yarnstore.core.record"),
        *names("yarnstore.ops.querying", "history"),
    },
    "list": {
        *(*STORE, *REGISTRY, "yarnstore.cli.commands.list_", "yarnstore.core.record"),
        *names("yarnstore.ops.querying", "inventory"),
        *("yarnstore.ops.querying.standing", "yarnstore.registry.standing"),
    },
    "path": {*STORE, "yarnstore.cli.commands.path_", *names("yarnstore.ops.querying", "paths")},
    "rollback": {
        *(*STORE, "yarnstore.cli.commands.rollback_", "yarnstore.core.record"),
        *(*names("yarnstore.ops.installing", "activate"), "yarnstore.ops.session.counting"),
        *names("yarnstore.store", "state statistics trials"),
        # Whether there is disk space to free.
        *("yarnstore.cli.after", *names("yarnstore.ops.upkeep", "retain")),
    },
}


SCRIPT = f"""
import sys
{REFERENCE}
before = set(sys.modules)
from yarnstore.cli import run
assert run(sys.argv[1:]) == 0
after = (name for name in set(sys.modules) - before if not name.startswith("_"))
sys.stderr.write("\\n" + " ".join(after))
"""


def modules(*arguments: str) -> set[str]:
    """The modules that a run imports beside the reference."""
    command = [sys.executable, "-c", SCRIPT, *arguments]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=True)
    return set(ran.stderr.rpartition("\n")[2].split())


@pytest.mark.parametrize("command", MAY_IMPORT)
def test_a_command_imports_only_what_it_uses(installed: Ystore, command: str) -> None:
    if command == "rollback":
        assert installed("update", "phi-3-mini").code == 0
    found = modules(command, *(() if command in ("--version", "list") else ("phi-3-mini",)))
    assert "yarnstore.cli" in found
    assert sorted(found - MAY_IMPORT[command]) == []


def test_the_import_check_sees_an_import(installed: Ystore) -> None:
    found = modules("registry", "refresh")
    assert {"random", "yarnstore.backends.connect", "yarnstore.registry.schema"} <= found


def test_the_version_in_detail() -> None:
    command = [sys.executable, "-m", "yarnstore"]
    for options in (("--version", "-v"), ("--verbose", "--version")):
        ran = subprocess.run([*command, *options], capture_output=True, text=True, timeout=PATIENCE_S)
        assert re.fullmatch(r"ystore, version \S+\nkernels: (c|numpy)\nthreads: \d+\n", ran.stdout), ran


LIGHT = """
import os, sys
from yarnstore.cli import main
try:
    main(["--version"])
except SystemExit:
    pass
import httpx, numpy, yarnstore.ops.fetching.fetch
names = {"rich", "pygments", "pyfastcdc"} & set(sys.modules)
threads = len(os.listdir("/proc/self/task")) if os.path.isdir("/proc/self/task") else 1
sys.stderr.write(f"{sorted(names)} {threads} {'OPENBLAS_NUM_THREADS' in os.environ}")
"""


def test_a_process_of_the_command_starts_no_threads_and_no_command_line_of_its_libraries() -> None:
    clean = {name: value for name, value in os.environ.items() if name != "OPENBLAS_NUM_THREADS"}
    ran = subprocess.run(
        [sys.executable, "-c", LIGHT], capture_output=True, text=True, timeout=PATIENCE_S, env=clean
    )
    assert ran.stderr == "[] 1 False"


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("threads", ["", "3"])
def test_programs_that_are_run_get_the_environment_of_the_user(tmp_home: Path, threads: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "OPENBLAS_NUM_THREADS"}
    if threads:
        environment["OPENBLAS_NUM_THREADS"] = threads
    shown = "import os; print(os.environ.get('OPENBLAS_NUM_THREADS', ''))"
    command = [sys.executable, "-m", "yarnstore", "--home", str(tmp_home)]
    ran = subprocess.run(
        [*command, "run", "phi-3-mini", "--", sys.executable, "-c", shown],
        capture_output=True, text=True, timeout=PATIENCE_S, env=environment, check=True,
    )  # fmt: skip
    assert ran.stdout == f"{threads}\n"


def test_an_update_does_without_masked_arrays(installed: Ystore) -> None:
    # `np.unique` imports them, which takes 13 ms.
    assert installed("list").code == 0
    found = modules("update", "--no-wait", "phi-3-mini")
    assert "yarnstore.ops.fetching.cheapest" in found
    assert "numpy.ma" not in found
