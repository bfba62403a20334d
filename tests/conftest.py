"""What every test stands on: hypothesis profiles, the `deep` marker, made models, a home of its own, skips.

`HYPOTHESIS_PROFILE=deep` runs each property long and lets tests marked `deep` run; under it every
property test counts as `deep`, so `make deep`, which is `-m deep`, runs them too.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

REPO = Path(__file__).resolve().parents[1]
if str(REPO) not in sys.path:
    # So that `tests.support.models` and `fixtures.made` import under a bare `pytest` as well.
    sys.path.insert(0, str(REPO))

from fixtures.made import make_phi3  # noqa: E402

# Skips on Windows the tests of tests/windows/skips.txt.
pytest_plugins = ["tests.windows.plugin"]

PROFILE = os.environ.get("HYPOTHESIS_PROFILE", "quick")
# CI must not fail today on what passed yesterday; a new example is found where someone looks at it.
settings.register_profile("quick", max_examples=50, deadline=None, derandomize=bool(os.environ.get("CI")))
settings.register_profile(
    "deep",
    max_examples=2000,
    stateful_step_count=50,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.load_profile(PROFILE)

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell that starts the tests in the background has them ignore Ctrl-C, and all that they start.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)  # before pytest's own -m looks at the markers
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave `deep` tests out unless they are asked for, by `-m` or by the profile."""
    if PROFILE == "deep":
        for item in items:
            if getattr(getattr(item, "obj", None), "is_hypothesis_test", False):
                item.add_marker("deep")
        return
    if "deep" in config.getoption("-m"):
        return
    left_out = [item for item in items if item.get_closest_marker("deep")]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if not item.get_closest_marker("deep")]


_USER_FOLDERS = ("XDG_DATA_HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_STATE_HOME", "XDG_RUNTIME_DIR")
# The user's settings, and proxies, which would stand between a test and its server on loopback.
_FOREIGN = ("YSTORE_", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "NETRC")
_KEPT = ("YSTORE_TEST_",)


@pytest.fixture(scope="session", autouse=True)
def _no_user_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Take the user's home, store and settings out of every test's and subprocess's sight."""
    fake = tmp_path_factory.mktemp("user")
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.upper().startswith(_FOREIGN) and not name.startswith(_KEPT):
                patch.delenv(name)
        for name in ("HOME", "USERPROFILE", "APPDATA", "LOCALAPPDATA"):
            patch.setenv(name, str(fake))
        for name in _USER_FOLDERS:
            patch.setenv(name, str(fake / name.lower()))
        yield


# Made by the tools of the checkout, which may run beside the tests.
_OF_TOOLS = ("__pycache__", "build", "dist")


@pytest.fixture(autouse=True)
def _nothing_left_in_the_working_folder() -> Iterator[None]:
    """Fail a test during which new files came into the working folder, which is the checkout."""
    folder = Path.cwd()
    before = set(os.listdir(folder))
    yield
    fresh = set(os.listdir(folder)) - before
    left = sorted(name for name in fresh if not name.startswith((".", *_OF_TOOLS)))
    assert left == [], f"this test, or one beside it, left files in {folder}"


@pytest.fixture
def tmp_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store home of this test's own, in `YSTORE_HOME`; not made yet, as on a first run."""
    home = tmp_path / "ystore-home"
    monkeypatch.setenv("YSTORE_HOME", str(home))
    return home


@pytest.fixture(scope="session")
def made_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of `phi-3-mini/<version>/…`, 4 MB a version.  Shared: copy what you change."""
    root = tmp_path_factory.mktemp("models")
    make_phi3(root, size_mb=4)
    return root
