"""How many threads and which kernels a process uses."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.kernels import c_kernels
from yarnstore import machine
from yarnstore.errors import ConfigError


def _write(root: Path, files: dict[str, str]) -> str:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return str(root)


V2 = "sys/fs/cgroup"
V1 = "sys/fs/cgroup/cpu"


@pytest.mark.parametrize(
    ("files", "quotas"),
    [
        ({}, []),
        ({"proc/self/cgroup": "0::/\n", f"{V2}/cpu.max": "max 100000\n"}, []),
        ({"proc/self/cgroup": "0::/\n", f"{V2}/cpu.max": "150000 100000\n"}, [2]),
        (
            {"proc/self/cgroup": "0::/a/b\n", f"{V2}/a/cpu.max": "50000 100000", f"{V2}/a/b/cpu.max": "9 1"},
            [1, 9],
        ),
        ({"proc/self/cgroup": "0::/of/the/host\n", f"{V2}/cpu.max": "300000 100000\n"}, [3]),
        ({"proc/self/cgroup": "0::/../x\n", f"{V2}/cpu.max": "3 1\n"}, [3]),
        ({"proc/self/cgroup": "junk", f"{V2}/cpu.max": "junk"}, []),
        ({"proc/self/cgroup": "0::/", f"{V2}/cpu.max": "0 0"}, []),
        (
            {
                "proc/self/cgroup": "4:memory:/m\n3:cpu,cpuacct:/c\n",
                f"{V1}/c/cpu.cfs_quota_us": "250000\n",
                f"{V1}/c/cpu.cfs_period_us": "100000\n",
                f"{V1}/cpu.cfs_quota_us": "-1\n",
                f"{V1}/cpu.cfs_period_us": "100000\n",
            },
            [3],
        ),
    ],
)
def test_quotas_of_cgroups(tmp_path: Path, files: dict[str, str], quotas: list[int]) -> None:
    assert list(machine.cgroup_quotas(_write(tmp_path, files))) == quotas


def test_threads_follow_the_affinity() -> None:
    code = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
    code += "from yarnstore.machine import count_threads; print(count_threads())"
    environment = {name: value for name, value in os.environ.items() if name != "YSTORE_THREADS"}
    ran = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert ran.stdout == "1\n"


def test_the_environment_gives_a_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("YSTORE_THREADS", "7")
    assert machine.count_threads() == 7
    for wrong in ("0", "-1", "65", "two", "1.5", "9" * 99, "²"):
        monkeypatch.setenv("YSTORE_THREADS", wrong)
        with pytest.raises(ConfigError, match="from 1 to 64"):
            machine.count_threads()


def test_the_environment_chooses_the_kernels() -> None:
    code = "from yarnstore.core.encodings.kernels import kernels; print(kernels.NAME)"
    found = {}
    for choice in ("", "c", "numpy"):
        environment = {**os.environ, "YSTORE_KERNELS": choice}
        ran = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
        found[choice] = ran.stdout.strip()
    fastest = "c" if c_kernels() else "numpy"
    assert found == {"": fastest, "c": fastest, "numpy": "numpy"}


@pytest.mark.skipif(c_kernels() is None, reason="the C kernels are not built here")
def test_c_kernels_need_no_numpy() -> None:
    code = "import sys, yarnstore.core.codec; print('numpy' in sys.modules)"
    environment = {**os.environ, "YSTORE_KERNELS": "c"}
    ran = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert ran.stdout == "False\n", ran.stderr


def test_an_unknown_kernel_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("YSTORE_KERNELS", "fortran")
    with pytest.raises(ConfigError, match="fortran"):
        machine.wanted_kernels()
