"""Running the command line as a user who is not root, from tests that may run as root."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.stores import quiet_env

NOBODY = 65534

# All is imported before: a user that is not root may not be able to read where Python is.
_SCRIPT = """
import binascii, copy, dataclasses, difflib, grp, heapq, importlib, locale, netrc, os, pkgutil, shutil, sys
import tomllib, unicodedata
import click, httpx, msgspec, numpy.ma, platformdirs, pyfastcdc, tomli_w, zstandard, encodings.idna, semver
import yarnstore
for module in pkgutil.walk_packages(yarnstore.__path__, "yarnstore."):
    elsewhere = ("yarnstore.web", "yarnstore.plugins")  # they need other libraries
    if not module.name.endswith(("__main__", "_windows")) and not module.name.startswith(elsewhere):
        importlib.import_module(module.name)
from yarnstore.cli import main
user, mask = int(sys.argv.pop(1)), int(sys.argv.pop(1), 8)
os.umask(mask)
if user:
    os.setgroups([])
    os.setgid(user)
    os.setuid(user)
sys.argv[0] = "ystore"
sys.exit(main())
"""


def require_root() -> None:
    """Skip where this process cannot become another user."""
    if os.name != "posix" or os.geteuid() != 0:
        pytest.skip("only root can run a command as another user")


def run_as(user: int, home: Path, *words: str | Path, umask: int = 0o022) -> subprocess.CompletedProcess[str]:
    """`ystore --home HOME WORDS` as the user with this number (0 stays who runs the tests)."""
    return subprocess.run(
        [sys.executable, "-c", _SCRIPT, str(user), oct(umask), "--home", str(home), *map(str, words)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd="/" if user else None,
        env={"PATH": os.environ.get("PATH", ""), "HOME": "/nonexistent", **quiet_env()},
    )
