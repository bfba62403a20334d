"""The C kernels under AddressSanitizer and UndefinedBehaviorSanitizer, in `make deep`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig

import pytest

from tests.mutants.runner import copy_project

SECONDS = 120
OPTIONS = (
    *("-std=c11", "-O1", "-g", "-fno-omit-frame-pointer", "-fsanitize=address,undefined"),
    *("-fno-sanitize-recover=all", "-DPy_LIMITED_API=0x030B0000", "-shared", "-fPIC"),
)


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """For Python processes in a copy of the project whose kernels have sanitizers."""
    compiler = shutil.which("gcc")
    if compiler is None:
        pytest.skip("gcc is not installed")
    project = copy_project(tmp_path_factory.mktemp("sanitized") / "project")
    folder = project / "yarnstore" / "core" / "encodings"
    for old in folder.glob("_kernels*.so"):
        old.unlink()
    sources = sorted(map(str, (project / "yarnstore" / "native").glob("*.c")))
    headers = f"-I{sysconfig.get_path('include')}"
    target = str(folder / "_kernels.abi3.so")
    subprocess.run([compiler, *OPTIONS, headers, *sources, "-o", target], check=True)
    runtime = subprocess.run(
        [compiler, "-print-file-name=libasan.so"], capture_output=True, text=True, check=True
    ).stdout.strip()
    return {
        **os.environ,
        "PYTHONPATH": str(project),
        "LD_PRELOAD": runtime,
        # Python frees little when it ends; with its own allocator, overruns within its arenas are unseen.
        "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=0:exitcode=99",
        "UBSAN_OPTIONS": "print_stacktrace=1",
        "PYTHONMALLOC": "malloc",
        "YSTORE_KERNELS": "c",
        "HYPOTHESIS_PROFILE": "default",
        "PROJECT": str(project),
    }


def _run(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *arguments]
    return subprocess.run(
        command, cwd=environment["PROJECT"], env=environment, capture_output=True, text=True, timeout=1800
    )


@pytest.mark.deep
def test_the_sanitizer_is_at_work(environment: dict[str, str]) -> None:
    code = "import ctypes; b = ctypes.create_string_buffer(8); ctypes.memset(b, 1, 4096)"
    ran = _run(environment, "-c", code)
    assert "AddressSanitizer" in ran.stderr
    assert ran.returncode == 99


@pytest.mark.deep
def test_the_properties_hold_without_a_fault(environment: dict[str, str]) -> None:
    files = ("tests/property/test_kernels.py", "tests/property/test_encodings.py")
    ran = _run(environment, "-m", "pytest", "-q", "-x", *files)
    assert ran.returncode == 0, (ran.stdout + ran.stderr)[-6000:]
    assert "skipped" not in ran.stdout


@pytest.mark.deep
def test_hostile_payloads_cause_no_fault(environment: dict[str, str]) -> None:
    ran = _run(environment, "-m", "tests.fuzz.mutated", str(SECONDS))
    assert ran.returncode == 0, ran.stderr[-6000:]
