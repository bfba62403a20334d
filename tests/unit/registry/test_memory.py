"""Reading a registry takes at most 64 MiB, or four times its size, whatever is in it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.stores import quiet_env
from yarnstore.core.limits import MIB
from yarnstore.errors import FormatError
from yarnstore.registry import memory
from yarnstore.registry.entries import BasedDeltaEntry, FileEntry, ModelEntry, VersionEntry
from yarnstore.registry.schema import parse_registry

CHILD = """
import sys
from yarnstore.errors import FormatError
from yarnstore.registry.lint import lint_registry
from yarnstore.registry.schema import parse_registry

def peak():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) << 10

before = peak()
with open(sys.argv[1], "rb") as file:
    data = file.read()
try:
    parse_registry(data)
    print("read", end=" ")
except FormatError as error:
    print("refused" if "of memory to read" in error.message else "faulty", end=" ")
print(peak() - before)
"""

ENTRY: dict[str, Any] = {
    "variant": "cpu",
    "checksum": f"sha256:{1:064x}",
    "manifest": f"sha256:{2:064x}",
    "download_url": "f",
    "mirrors": ["https://example.org/f"],
    "size_bytes": 5000,
    "files": [{"path": "f", "size_bytes": 5000, "sha256": f"{1:064x}"}],
    "packs": [f"{3:064x}"],
    "deltas": [{"base": "1.0.0", "base_manifest": f"{4:064x}", "pack": f"{5:064x}", "size_bytes": 5000}],
    "compatibility": [">=1"],
    "release_date": "2024-01-01T00:00:00Z",
    "changelog": "ccc",
    "security": False,
    "yanked": False,
    "deprecated": True,
    "deprecated_reason": "ddd",
    "replaced_by": "1.0.1",
    "minimum_ram_gb": 4.5,
    "recommended_ram_gb": 8.5,
}


def repeated(head: str, item: str, tail: str) -> Callable[[int], bytes]:
    """A document of a size with `item` over and over, `%d` in it replaced by a number."""

    def make(size_bytes: int) -> bytes:
        count = size_bytes // len(item % 10_000_000 if "%d" in item else item)
        items = (item % (10_000_000 + n) if "%d" in item else item for n in range(count))
        return (head + ",".join(items) + tail).encode()

    return make


def full(size_bytes: int) -> bytes:
    """A registry of models that have every field of the schema, in short words."""
    models = {}
    for n in range(size_bytes // 2600):
        names = {"model_id": f"model-{n}", "version": "1.0.0"}
        build = {**names, **ENTRY, "variants": {"gpu": {**names, **ENTRY, "variant": "gpu"}}}
        texts = dict.fromkeys(("name", "description", "category", "license", "homepage"), "ttt")
        models[f"model-{n}"] = {
            **texts,
            "model_id": f"model-{n}",
            "current_version": "1.0.0",
            "tags": ["aaa"],
            "aliases": {"stable": "1.0.0"},
            "versions": {"1.0.0": build},
        }
    return json.dumps({"models": models}).encode()


ONE = '{"models":{"m":{"versions":{"1.0.0":{'
SHAPES: dict[str, Callable[[int], bytes]] = {
    "versions": repeated('{"models":{"m":{"versions":{', '"0.0.%d":{}', "}}}}"),
    "a fault at the end": repeated('{"models":{"m":{"versions":{', '"0.0.%d":{}', ',"1.0.0":3}}}}'),
    "variants": repeated(ONE + '"variants":{', '"v%d":{}', "}}}}}}"),
    "models": repeated('{"models":{', '"m%d":{"versions":{}}', "}}"),
    "aliases": repeated('{"models":{"m":{"versions":{},"aliases":{', '"a%d":"1.0.0"', "}}}}"),
    "hidden aliases": repeated('{"models":{"m":{"versions":{},"\\u0061liases":{', '"a%d":"1.0.0"', "}}}}"),
    "strings": repeated(ONE + '"compatibility":[', '"ab"', "]}}}}}"),
    "strings like keys": repeated(ONE + '"compatibility":[', '":\\":a"', "]}}}}}"),
    "short strings": repeated(ONE + '"compatibility":[', '"a"', "]}}}}}"),
    "files": repeated(ONE + '"files":[', '{"path":"","size_bytes":0,"sha256":""}', "]}}}}}"),
    "numbers": repeated('{"models":{"m":{"versions":{', '"0.0.%d":{"minimum_ram_gb":1.5}', "}}}}"),
    "ignored": repeated('{"models":{},"x":[', "{}", "]}"),
    "mirrors": repeated('{"models":{},"mirrors":[', '"ab"', "]}"),
    "a wide text": lambda size: ('{"models":{},"registry_version":"' + "a" * size + '\U0001f600"}').encode(),
    "an escaped text": lambda size: b'{"models":{},"registry_version":"' + b"a" * size + b'\\ud83d\\ude00"}',
    "escapes": lambda size: b'{"models":{},"registry_version":"' + b"\\n" * (size // 2) + b'"}',
    "all fields": full,
}


def read_in_child(path: Path) -> tuple[str, int]:
    ran = subprocess.run([sys.executable, "-c", CHILD, path], capture_output=True, text=True, check=True)
    said, peak = ran.stdout.split()
    return said, int(peak)


@pytest.mark.parametrize(
    ("shape", "mib"), [*((shape, 5) for shape in SHAPES), ("all fields", 18), ("files", 18)]
)
def test_the_peak_stays_within_the_budget(shape: str, mib: int, tmp_path: Path) -> None:
    path = tmp_path / "registry.json"
    path.write_bytes(SHAPES[shape](mib * MIB))
    said, peak = read_in_child(path)
    assert peak <= max(64 * MIB, 4 * path.stat().st_size), said
    if shape == "all fields":
        assert said == "read"


def test_the_sizes_counted_with_are_those_of_the_structs() -> None:
    assert sys.getsizeof(VersionEntry()) <= memory._KEYED_BYTES
    assert sys.getsizeof(ModelEntry(versions={})) <= memory._KEYED_BYTES
    assert sys.getsizeof(FileEntry(path="", size_bytes=0, sha256="")) <= memory._LISTED_BYTES
    delta = BasedDeltaEntry(base_model="", base="", base_manifest="", pack="", size_bytes=0)
    assert sys.getsizeof(delta) <= memory._LISTED_BYTES


def test_commands_refuse_it_and_advise_to_split(tmp_path: Path) -> None:
    (tmp_path / "registry").mkdir()
    (tmp_path / "registry" / "registry.json").write_bytes(SHAPES["versions"](8 * MIB))
    (tmp_path / "f").write_bytes(b"f")

    def ran(*words: str | Path) -> subprocess.CompletedProcess[str]:
        env = {**os.environ, **quiet_env(), "YSTORE_HOME": str(tmp_path / "home")}
        line = [sys.executable, "-m", "yarnstore", *map(str, words)]
        return subprocess.run(line, env=env, capture_output=True, text=True, check=False)

    added = ran("registry", "add", "here", tmp_path / "registry")
    assert added.returncode == 4
    assert "of memory to read" in added.stderr
    assert "`--split` of `ystore publish`" in added.stderr
    linted = ran("registry", "lint", tmp_path / "registry")
    assert linted.returncode == 4
    assert "`--split` of `ystore publish`" in linted.stdout
    published = ran("publish", tmp_path / "f", "n@1.0.0", "--registry", tmp_path / "registry")
    assert published.returncode == 4
    assert "`--split` of `ystore publish`" in published.stderr


def test_bytes_that_were_measured_before_are_not_measured_again() -> None:
    data = b'{"models":{},"x":[' + b"[]," * (3 * MIB) + b"[]]}"
    with pytest.raises(FormatError, match="of memory to read"):
        parse_registry(data)
    assert parse_registry(data, measured=True).models == {}
