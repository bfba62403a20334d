"""Builds the C kernels into the wheel, where a compiler works; without them the wheel is pure Python.

The kernels only make yarnstore faster (docs/decisions/0031-kernels-in-c.md), so that a failure
here fails no installation.  The extension uses the stable ABI: one wheel for CPython 3.11 and all later
releases.
An editable installation gets it in place, beside `yarnstore/core/encodings/transforms.py`.
"""

from __future__ import annotations

import shutil
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

NAME = "_kernels"
PLACE = "yarnstore/core/encodings"
SOURCES = ("module.c", "transforms.c", "shuffles.c", "wide.c", "symbols.c")
# CPython without its lock has no stable ABI.
STABLE = not sysconfig.get_config_var("Py_GIL_DISABLED")


class KernelsHook(BuildHookInterface):  # type: ignore[type-arg]
    """Called by hatchling for each wheel, `version` "standard" or "editable"."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build the extension, and put it into the wheel or in its place."""
        root = Path(self.root)
        if version == "editable":
            for old in (root / PLACE).glob(f"{NAME}*.*[od]"):  # .so, .pyd
                old.unlink()
        self._work = tempfile.mkdtemp(prefix="yarnstore-kernels-")
        try:
            built = build(root, Path(self._work))
        except (Exception, SystemExit) as error:  # noqa: BLE001 - compilers fail in many ways
            self.app.display_warning(f"the C kernels are not built, numpy is used instead: {error}")
            return
        if version == "editable":
            shutil.copyfile(built, root / PLACE / built.name)
            return
        build_data["force_include"][str(built)] = f"{PLACE}/{built.name}"
        build_data["pure_python"] = False
        if STABLE:
            platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
            build_data["tag"] = f"cp311-abi3-{platform}"
        else:
            build_data["infer_tag"] = True

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:  # noqa: ARG002
        """Remove the extension once the wheel has it."""
        shutil.rmtree(self._work, ignore_errors=True)


def build(root: Path, work: Path) -> Path:
    """Compile the extension into `work` and return its path.  Raises whatever goes wrong."""
    if sys.implementation.name != "cpython":
        raise RuntimeError(f"{sys.implementation.name} has no stable ABI")
    from setuptools import Distribution, Extension
    from setuptools.command.build_ext import build_ext

    class Build(build_ext):
        def build_extensions(self) -> None:
            msvc = self.compiler.compiler_type == "msvc"
            options = ["/std:c11", "/O2"] if msvc else ["-std=c11", "-O3", "-g0", "-fno-strict-aliasing"]
            for extension in self.extensions:
                extension.extra_compile_args = options
            super().build_extensions()

    extension = Extension(
        NAME,
        [str(root / "yarnstore" / "native" / name) for name in SOURCES],
        define_macros=[("Py_LIMITED_API", "0x030B0000")] if STABLE else [],
        py_limited_api=STABLE,
    )
    command = Build(Distribution({"name": "yarnstore", "ext_modules": [extension]}))
    command.build_lib, command.build_temp = str(work / "lib"), str(work / "temp")
    command.ensure_finalized()
    command.run()
    return Path(command.get_ext_fullpath(NAME))
