"""The real model versions, which are too large and not ours to keep in the repository.

`YSTORE_TEST_MODELS` names their folder; else it is `../shared/models` beside the repository.
They lie there as `<model>/<version>/…`, the shape that `fixtures/made.py` makes too.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]


def models_root() -> Path:
    """The folder that would hold the real model versions, there or not."""
    named = os.environ.get("YSTORE_TEST_MODELS")
    return Path(named) if named else REPO.parent / "shared" / "models"


def model_path(model: str, version: str) -> Path:
    """The read-only folder of a real version, such as `minilm-bf16` `1.0.0`; skips where absent."""
    path = models_root() / model / version
    if not path.is_dir():
        pytest.skip(f"no real model {model} {version}: set YSTORE_TEST_MODELS to the folder of the models")
    return path
