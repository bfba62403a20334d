"""The pytest fixture `ystore_model`: paths of models for tests.

    def test_it_loads(ystore_model):
        session = onnxruntime.InferenceSession(ystore_model("phi-3-mini@1.1.0"))

pytest loads this module by its entry point, so that it imports nothing heavy before a test asks for a model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of the fixture."""
    group = parser.getgroup("ystore", "models of ystore")
    group.addoption("--ystore-home", metavar="DIR", help="the store of the fixture ystore_model")
    group.addoption(
        "--ystore-skip-missing",
        action="store_true",
        help="skip tests whose model is neither stored nor can be downloaded",
    )


@pytest.fixture(scope="session")
def ystore_model(pytestconfig: pytest.Config) -> Iterator[Callable[[str], str]]:
    """Return the path of a version by its spec, as `ystore path`; it is downloaded if it is not stored.

    A model without a version is the one of `ystore.lock` in the root of the tests, if that locks it, else the
    installed one.
    """
    from yarnstore import Store
    from yarnstore.errors import BackendError, NotFoundError, YarnstoreError

    with Store.open(pytestconfig.getoption("--ystore-home")) as store:

        def find(spec: str) -> str:
            try:
                return store.path(_locked(pytestconfig.rootpath / "ystore.lock", spec))
            except YarnstoreError as error:
                hint = f"\n{error.hint}" if error.hint else ""
                text = f"ystore_model({spec!r}): {error.message}{hint}"
                missing = isinstance(error, NotFoundError | BackendError)
                if missing and pytestconfig.getoption("--ystore-skip-missing"):
                    pytest.skip(text)
                pytest.fail(text, pytrace=False)

        yield find


def _locked(file: Path, spec: str) -> str:
    """Return the locked version of a model that is given without one."""
    from yarnstore.registry.lockfile import LockFile

    if "@" in spec or not file.is_file():
        return spec
    builds = LockFile.parse(file.read_bytes()).builds
    found = [build.spec for build in builds if spec in (build.model, f"{build.model}:{build.variant}")]
    return str(found[0]) if len(found) == 1 else spec
