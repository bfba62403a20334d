"""The memory of an operation does not grow with the number of threads."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bench.operations import peak_memory
from tests.bench.workload import made_model

MOST_BYTES = 300 << 20


@pytest.mark.deep
@pytest.mark.parametrize("kernels", ["c", "numpy"])
@pytest.mark.parametrize("threads", [2, 8, 16])
def test_peak_memory(threads: int, kernels: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("YSTORE_THREADS", str(threads))
    monkeypatch.setenv("YSTORE_KERNELS", kernels)
    peaks = peak_memory(made_model(tmp_path, 1.0, ("1.0.0",)), tmp_path)
    assert {name: size for name, size in peaks.items() if size > MOST_BYTES} == {}
