"""Every operation of a store, by its commands, in a new folder: on Windows, under Wine, or here.

    python -m tests.windows.tour [FOLDER]

Prints a line for each step, and ends with 1 at the first that fails.  Its processes are real, since what
differs on Windows is between processes: files that are open, locks, and a process that is killed.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from yarnstore.store import native

PARAMETERS = 300_000
TIMEOUT_S = 240.0
# Of a version, as text that code pages of Windows cannot say.
NOTES = "größer → 模型"
# Ctrl-C when the first file appears in tmp/: what a console does to a process, without a console.
INTERRUPTED = """
import _thread, os, threading, time
from yarnstore.cli import main
def interrupt():
    tmp = os.path.join(os.environ["YSTORE_HOME"], "tmp")
    while not (os.path.isdir(tmp) and os.listdir(tmp)):
        time.sleep(0.001)
    _thread.interrupt_main()
threading.Thread(target=interrupt, daemon=True).start()
main()
"""
# Has a file open as most programs do, and hashes it when it is told to.
READER = """
import hashlib, sys
with open(sys.argv[1], "rb") as file:
    print("open", flush=True)
    sys.stdin.readline()
    print(hashlib.sha256(file.read()).hexdigest())
"""
# A process is killed when the first file appears in one of these folders of its store.
KILLED_AT = ("tmp", "packs", "manifests", "files", "views")


class Tour:
    """A folder with sources, a registry and a store."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.registry = root / "registry"
        self.home = root / "store"
        self.env = {**os.environ, "YSTORE_HOME": str(self.home), "PYTHONIOENCODING": "utf-8"}

    def start(
        self, *words: object, home: Path | None = None, code: str = "", plain: bool = False
    ) -> subprocess.Popen[bytes]:
        """Start a command, whose output goes to a pipe: by `code` if that is given, and with `plain` in the
        encoding that Python chooses.
        """
        env = {**self.env, "YSTORE_HOME": str(home or self.home)}
        if plain:
            env = {
                name: value for name, value in env.items() if name not in ("PYTHONIOENCODING", "PYTHONUTF8")
            }
        command = [sys.executable, *(("-c", code) if code else ("-m", "yarnstore")), *map(str, words)]
        return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def end(self, process: subprocess.Popen[bytes], what: str) -> str:
        """Wait for a command that must succeed, and return its output."""
        output = process.communicate(timeout=TIMEOUT_S)[0].decode()
        if process.returncode:
            raise SystemExit(f"FAILED {what}: exit {process.returncode}\n{output}")
        return output

    def run(self, *words: object) -> str:
        """Run a command that must succeed, and return its output."""
        started = time.monotonic()
        what = " ".join(str(word).replace(str(self.root), ".") for word in words)
        output = self.end(self.start(*words), what)
        print(f"ok {time.monotonic() - started:5.1f} s  {what}", flush=True)
        return output

    def answer(self, *words: object) -> Any:
        """Run a command with `--json`, and return what it prints."""
        return json.loads(self.run(*words, "--json"))

    def check(self, condition: bool, what: str) -> None:
        """Fail unless `condition`."""
        if not condition:
            raise SystemExit(f"FAILED {what}")
        print(f"ok          {what}", flush=True)

    def source(self, version: str) -> Path:
        return self.root / "sources" / version

    def make_source(self, version: str, weights: np.ndarray[Any, Any]) -> None:
        """Write a version: a safetensors file, and texts with the line ends that text mode would change."""
        folder = self.source(version)
        (folder / "texts").mkdir(parents=True)
        data = weights.tobytes()
        header = {"w": {"dtype": "F32", "shape": [len(weights)], "data_offsets": [0, len(data)]}}
        text = json.dumps(header).encode()
        (folder / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + data)
        (folder / "config.json").write_bytes(json.dumps({"version": version}).encode())
        (folder / "texts" / "lines.txt").write_bytes(b"one\r\ntwo\n\x1athree\r\n" + version.encode())

    def same(self, version: str, path: str) -> bool:
        """Whether a folder has exactly the bytes of a version."""
        return digests(Path(path)) == digests(self.source(version))


def digests(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of each file below a folder, by its path."""
    return {
        file.relative_to(folder).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


def go(root: Path) -> None:
    tour = Tour(root)
    random = np.random.default_rng(1)
    weights = random.standard_normal(PARAMETERS).astype("f4")
    for version in ("1.0.0", "1.1.0", "1.2.0"):
        tour.make_source(version, weights)
        weights = weights + random.standard_normal(PARAMETERS).astype("f4") * np.float32(1e-4)
    one_by_one(tour)
    at_once(tour)
    killed(tour)
    differing(tour)


def one_by_one(tour: Tour) -> None:
    """The commands in the order in which a user gives them."""
    for version in ("1.0.0", "1.1.0", "1.2.0"):
        tour.run("publish", tour.source(version), f"m@{version}", "--registry", tour.registry)
    tour.run("registry", "add", "here", tour.registry)
    tour.run("fetch", "m@1.0.0")
    tour.run("checkout", "m@1.0.0")
    tour.check(tour.same("1.0.0", tour.run("path", "m").strip()), "the bytes of 1.0.0")
    tour.run("update", "m@~1.1")
    tour.check(tour.same("1.1.0", tour.run("path", "m").strip()), "the bytes of 1.1.0, by a delta")
    tour.run("update", "m")
    tour.check(tour.same("1.2.0", tour.run("path", "m").strip()), "the bytes of 1.2.0, by a delta")
    tour.run("rollback", "m")
    tour.check(tour.same("1.1.0", tour.run("path", "m").strip()), "the bytes of 1.1.0 again")
    for words in ("list", "log m", "status", "fsck", "doctor", "outdated", "gc", "fsck"):
        tour.run(*words.split())
    tour.run("remove", "m@1.0.0")
    tour.run("gc", "--grace", "1m")
    tour.run("fsck")


def at_once(tour: Tour) -> None:
    """Several processes that read, write and delete in one store."""
    for _ in range(2):
        words = (["checkout", "m@1.2.0"], ["fetch", "m@1.0.0"], ["gc"], ["path", "m"], ["fsck"])
        running = [tour.start(*each) for each in words]
        for process, each in zip(running, words, strict=True):
            tour.end(process, f"{' '.join(each)}, beside others")
        print(f"ok          {len(words)} processes at once", flush=True)
        tour.run("checkout", "m@1.1.0")
    tour.run("fsck")
    first, second = (
        tour.start("publish", tour.source("1.0.0"), "a@1.0.0", "--registry", tour.registry),
        tour.start("publish", tour.source("1.1.0"), "b@1.0.0", "--registry", tour.registry),
    )
    for process in (first, second):
        tour.end(process, "publish, beside another")
    models = json.loads((tour.registry / "registry.json").read_text(encoding="utf-8"))["models"]
    tour.check({"a", "b", "m"} <= set(models), "two publishers at once")


def killed(tour: Tour) -> None:
    """A process that is killed, and the same command once more."""
    for name in KILLED_AT:
        home = tour.root / f"killed-{name}"
        tour.end(tour.start("registry", "add", "here", tour.registry, home=home), "registry add")
        process = tour.start("checkout", "m@1.2.0", home=home)
        while process.poll() is None and not any((home / name).glob("*")):
            time.sleep(0.002)
        process.kill()
        process.communicate(timeout=TIMEOUT_S)
        tour.end(tour.start("checkout", "m@1.2.0", home=home), "checkout after a kill")
        path = tour.end(tour.start("path", "m", home=home), "path after a kill").strip()
        tour.check(tour.same("1.2.0", path), f"killed when {name}/ had a file, then whole")
        tour.end(tour.start("fsck", home=home), "fsck after a kill")


def differing(tour: Tour) -> None:
    """What systems do differently: output to pipes, long paths, Ctrl-C, open files, names, symlinks."""
    tour.run("publish", tour.source("1.0.0"), "t@1.0.0", "--registry", tour.registry, "--changelog", NOTES)
    shown = tour.end(tour.start("show", "t@1.0.0", plain=True), "show")
    tour.check(NOTES in shown, "piped output is UTF-8")

    long = tour.root / ("d" * 100) / ("e" * 100) / ("f" * 100) / "store"
    for words in (
        ["registry", "add", "here", tour.registry],
        ["checkout", "m@1.0.0"],
        ["update", "m"],
        ["gc"],
    ):
        tour.end(tour.start(*words, home=long), words[0])
    path = tour.end(tour.start("path", "m", home=long), "path").strip()
    tour.check(tour.same("1.2.0", native.reach(path)), f"a store at {len(path)} characters")
    tour.end(tour.start("fsck", home=long), "fsck")

    home = tour.root / "interrupted"
    tour.end(tour.start("registry", "add", "here", tour.registry, home=home), "registry add")
    process = tour.start("checkout", "m@1.2.0", home=home, code=INTERRUPTED)
    output = process.communicate(timeout=TIMEOUT_S)[0].decode()
    tour.check(process.returncode == 130, f"Ctrl-C ends it with {process.returncode}: {output.strip()}")
    tour.end(tour.start("checkout", "m@1.2.0", home=home), "checkout after Ctrl-C")
    tour.check(tour.same("1.2.0", tour.end(tour.start("path", "m", home=home), "path").strip()), "then whole")

    path = tour.run("path", "m@1.1.0").strip()
    words = [sys.executable, "-c", READER, str(Path(path) / "model.safetensors")]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as reader:
        assert reader.stdout is not None
        reader.stdout.readline()
        tour.run("checkout", "m@1.2.0")
        tour.run("remove", "m@1.1.0")
        tour.run("gc", "--grace", "0")
        answer = reader.communicate(b"\n", timeout=TIMEOUT_S)[0].decode().split()
    expected = digests(tour.source("1.1.0"))["model.safetensors"]
    tour.check(answer == [expected], "a file that a program has open outlives gc")
    tour.run("gc", "--grace", "0")
    tour.run("fsck")

    twin = tour.start("import", tour.source("1.0.0"), "M@9.0.0")
    output = twin.communicate(timeout=TIMEOUT_S)[0].decode()
    tour.check(twin.returncode != 0, f"an id in another case is refused: {output.strip()}")

    tour.run("move", tour.root / "moved")
    tour.check(tour.same("1.2.0", tour.run("path", "m").strip()), "the old folder leads to the moved store")
    tour.run("fsck")


if __name__ == "__main__":
    assert isinstance(sys.stdout, io.TextIOWrapper)
    sys.stdout.reconfigure(encoding="utf-8")  # whatever Windows chose for a pipe
    if len(sys.argv) > 1:
        go(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as made:
            go(Path(made))
    print("whole")
