"""Imports point down only, the core is pure, and each border has one keeper.

Each rule is a function from a module to its faults; below, each is shown sources that break it, so
that a rule which sees nothing is itself a failure.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator

import pytest

from tests.meta.source import MODULES, PACKAGE, Module, module_id, within

# Lowest first; what stands in one line does not import each other, unless ALSO says so.
LAYERS = (
    ("_version",),
    ("errors",),
    ("machine", "progress"),
    ("core",),
    ("registry",),
    ("backends",),
    ("store",),
    ("ops",),
    ("settings",),
    ("api", "results"),
    ("aio",),
    ("",),  # yarnstore/__init__, the public names
    ("web",),
    ("client",),  # it shares the records of web
    ("plugins",),  # of other libraries
    ("cli",),  # above web, since `ystore serve` starts it
    ("__main__",),
)
RANKS = {name: rank for rank, names in enumerate(LAYERS) for name in names}

PURE = (f"{PACKAGE}.errors", f"{PACKAGE}.core", f"{PACKAGE}.registry")
# What a pure module may not touch.  `pathlib` is let through for PurePath alone, `datetime` for all
# but the clock.
IMPURE = (
    *("os", "pathlib", "shutil", "tempfile", "glob", "fcntl", "mmap", "builtins.open", "builtins.input"),
    *("builtins.print", "io.open", "io.FileIO", "io.open_code", "sys.argv", "sys.stdin", "sys.stdout"),
    *("sys.stderr", "codecs.open", "gzip.open", "numpy.load", "numpy.save", "numpy.fromfile"),
    *("numpy.memmap", "socket", "ssl", "select", "selectors", "asyncio", "http", "urllib.request"),
    *("httpx", "httpcore", "subprocess", "multiprocessing", "signal", "time", "datetime.datetime.now"),
    *("datetime.datetime.utcnow", "datetime.datetime.today", "datetime.date.today", "random", "secrets"),
    *("uuid", "numpy.random", "platformdirs", "platform", "getpass", "click", "rich", "importlib"),
    *("builtins.__import__", "logging"),
)
PURE_PATHS = ("pathlib.PurePath", "pathlib.PurePosixPath", "pathlib.PureWindowsPath")

WRITERS = tuple(f"{PACKAGE}.store.{name}" for name in ("fsio", "growing", "batches"))
WRITING_OS = {
    *("write", "pwrite", "writev", "pwritev", "rename", "renames", "replace", "unlink", "remove"),
    *("rmdir", "removedirs", "link", "symlink", "mkdir", "makedirs", "mkfifo", "mknod", "fsync"),
    *("fdatasync", "truncate", "ftruncate", "chmod", "fchmod", "lchmod", "chown", "fchown", "lchown"),
    *("utime", "sendfile", "copy_file_range", "splice", "posix_fallocate", "setxattr", "removexattr"),
}
HARMLESS_SHUTIL = ("shutil.disk_usage", "shutil.which", "shutil.get_terminal_size")
OPEN_FLAGS_READING = {
    *("O_RDONLY", "O_CLOEXEC", "O_NOFOLLOW", "O_DIRECTORY", "O_PATH", "O_NONBLOCK", "O_NOATIME"),
    *("O_BINARY", "O_NOCTTY"),
    # Made of those above.
    *(f"{PACKAGE}.store.native.{name}" for name in ("FOLDER", "NOFOLLOW", "NONBLOCK", "PLAIN")),
}
# Methods of pathlib.Path and ndarray, by how many arguments they are given in place: a method of
# our own such as `folder.unlink(name)` is another thing.
WRITING_METHODS = {
    "write_text": (1,),
    "write_bytes": (1,),
    "touch": (0,),
    "mkdir": (0,),
    "unlink": (0,),
    "rmdir": (0,),
    "symlink_to": (1, 2),
    "hardlink_to": (1,),
    "rename": (1,),
    "replace": (1,),  # str.replace takes two
    "chmod": (1,),
    "tofile": (1, 2, 3),
}
PATHLIB_KEYWORDS = {"mode", "parents", "exist_ok", "missing_ok", "encoding", "newline"}

# What differs between operating systems, and the modules that may use it.  Others call `store.native`.
NATIVE = tuple(f"{PACKAGE}.store.{name}" for name in ("native", "native_windows", "native_machine_windows"))
NATIVE_MODULES = ("fcntl", "msvcrt", "ctypes", "winreg", "_winapi")
NATIVE_OS = {
    *("open", "pread", "pwrite", "preadv", "pwritev", "write", "ftruncate", "truncate", "chmod", "fchmod"),
    *("utime", "fsync", "fdatasync", "rename", "renames", "replace", "unlink", "remove", "link", "symlink"),
    *("lockf", "posix_fadvise", "posix_fallocate", "copy_file_range", "sendfile", "splice", "killpg"),
}
NATIVE_ELSEWHERE = {
    f"{PACKAGE}.backends.local": ("os.open",),  # a layer below, which only reads
    f"{PACKAGE}.cli.streams": ("os.open",),  # standard streams that are closed
    f"{PACKAGE}.web.memory": ("ctypes",),  # memory of the process
}
# Functions of `store.native` that change the file system.
NATIVE_WRITING = {
    *("pwrite", "write", "truncate", "set_mode", "set_times", "chmod", "replace", "unlink", "remove_tree"),
    *("link", "symlink", "sync", "sync_data"),
}

ENVIRONMENT = ("os.environ", "os.environb", "os.getenv", "os.getenvb", "os.putenv", "os.unsetenv")
# These read HOME and its kin.
ENVIRONMENT += ("os.path.expanduser", "os.path.expandvars", "pathlib.Path.home", "platformdirs")
# Who may touch it.
BORDERS = {
    "httpx": (f"{PACKAGE}.backends", f"{PACKAGE}.client"),
    "click": (f"{PACKAGE}.cli",),
    **dict.fromkeys(ENVIRONMENT, (f"{PACKAGE}.settings", f"{PACKAGE}.cli", f"{PACKAGE}.machine")),
}

# Heavy to import, and not needed by every command; or extras, which may be absent.
HEAVY = (
    *("numpy", "httpx", "rich", "zstandard", "pyfastcdc", "tomli_w", "msgspec", "platformdirs", "semver"),
    *("binascii", "copy", "ctypes", "dataclasses", "difflib", "grp", "heapq", "netrc", "shutil", "tomllib"),
    *("ipaddress", "pathlib", "unicodedata", "urllib"),
)
EXTRAS = ("litestar", "uvicorn", "prometheus_client", "obstore", "tuf", "truststore")
# Who may import our own modules late, so that `ystore log` starts fast; `connect` brings in httpx.
LATE = (*(f"{PACKAGE}.api", f"{PACKAGE}.cli", f"{PACKAGE}.backends.connect"),)
# pytest loads it in each run, needed or not.
LATE += (f"{PACKAGE}.plugins.pytest_fixture",)
# What everyday commands do without, and the modules below them that import it only where it is needed.
LATE_PARTS = {
    # Encoding 5 needs numpy, which the C kernels make superfluous elsewhere.
    # Encoding 6 is for few files, and its modules encode with the codec what streams inflate to.
    f"{PACKAGE}.core.codec": (
        f"{PACKAGE}.core.encodings.mapped",
        f"{PACKAGE}.core.deflated",
        f"{PACKAGE}.core.deflated_encoder",
    ),
    f"{PACKAGE}.cli.after": ("signal",),  # a rollback that leaves nothing to free needs it not
    f"{PACKAGE}.ops.upkeep.retain": (f"{PACKAGE}.ops.querying.keeping", f"{PACKAGE}.ops.upkeep.gc"),
    f"{PACKAGE}.ops.session.model_files": (f"{PACKAGE}.registry.schema",),
    f"{PACKAGE}.ops.session.registries": (
        f"{PACKAGE}.ops.session.connections",
        f"{PACKAGE}.ops.session.model_files",
        f"{PACKAGE}.backends.urls",
        f"{PACKAGE}.registry.schema",
        f"{PACKAGE}.registry.timestamps",
        f"{PACKAGE}.store.registry_cache",
    ),
    # What cuts files is for downloads without a manifest.
    f"{PACKAGE}.ops.fetching.fetch": (f"{PACKAGE}.ops.fetching.single_file",),
    f"{PACKAGE}.ops.session.sources": (f"{PACKAGE}.backends.urls",),
    f"{PACKAGE}.ops.querying.history": (f"{PACKAGE}.registry.select",),
    f"{PACKAGE}.ops.session.lookup": (f"{PACKAGE}.store.registry_cache",),
    f"{PACKAGE}.ops.querying.standing": (
        f"{PACKAGE}.registry.requirements",
        f"{PACKAGE}.registry.select",
    ),
    f"{PACKAGE}.ops.session.stored": (f"{PACKAGE}.store.registry_cache",),
    f"{PACKAGE}.registry.policies": (f"{PACKAGE}.registry.windows",),
    f"{PACKAGE}.registry.standing": (f"{PACKAGE}.registry.select",),
    f"{PACKAGE}.store.native": ("struct", "signal", "select"),
    f"{PACKAGE}.store.views": (f"{PACKAGE}.store.held",),  # views that exist are read without it
    f"{PACKAGE}.settings.change": (f"{PACKAGE}.backends.urls",),
    f"{PACKAGE}.settings.load": (f"{PACKAGE}.backends.urls",),
    f"{PACKAGE}.settings.network": (f"{PACKAGE}.backends",),
}
# Modules whose names are imported when they are first used.
LAZY_PACKAGES = (PACKAGE, f"{PACKAGE}.backends", f"{PACKAGE}.results")


def layer_of(name: str) -> str:
    """The layer of a dotted name in our package; of `yarnstore.Store`, the public names."""
    part = [*name.split("."), ""][1]
    return part if part in RANKS else ""


def layer_faults(module: Module) -> Iterator[str]:
    """Imports that do not point down."""
    own = layer_of(module.name)
    if not own and module.name != PACKAGE:
        yield f"{module.name} is in no layer: add it to LAYERS"
        return
    for line, name in module.imports():
        if within(name, PACKAGE):
            other = layer_of(name)
            if other != own and RANKS[other] >= RANKS[own]:
                yield f"{module.name}:{line} imports {name}, which lies above {own or PACKAGE}"


def purity_faults(module: Module) -> Iterator[str]:
    """I/O, clock, randomness or environment in a pure module."""
    if not within(module.name, *PURE):
        return
    plain = [(n.lineno, a.name) for n in ast.walk(module.tree) if isinstance(n, ast.Import) for a in n.names]
    for line, name in [*plain, *module.references()]:
        if within(name, *IMPURE) and not within(name, *PURE_PATHS):
            yield f"{module.name}:{line} uses {name}; it must be pure"
    for node in ast.walk(module.tree):
        match node:
            case ast.Call(ast.Attribute(_, "tofile" | "update_mmap" as method)):
                yield f"{module.name}:{node.lineno} calls .{method}(); it must be pure"


def _argument(call: ast.Call, position: int, keyword: str) -> ast.expr | None:
    if len(call.args) > position:
        return call.args[position]
    return next((k.value for k in call.keywords if k.arg == keyword), None)


def _may_write(mode: ast.expr | None) -> bool:
    """Whether a mode given to open() writes, or cannot be told from the source."""
    if mode is None:
        return False
    return not (isinstance(mode, ast.Constant) and isinstance(mode.value, str)) or bool(
        set("wax+") & set(mode.value)
    )


def _opens_to_write(module: Module, flags: ast.expr | None) -> bool:
    """Whether flags given to os.open() are anything but reading ones that the module spells out."""
    match flags:
        case ast.BinOp(left, ast.BitOr(), right):
            return _opens_to_write(module, left) or _opens_to_write(module, right)
        case ast.IfExp(_, left, right):
            return _opens_to_write(module, left) or _opens_to_write(module, right)
        case ast.Call(ast.Name("getattr"), [ast.Name("os"), ast.Constant(str(name)), ast.Constant(0)]):
            return name not in OPEN_FLAGS_READING  # a flag that not every platform has
        case ast.Name(name) if name in module.constants:
            return any(_opens_to_write(module, value) for value in module.constants[name])
        case ast.Name() | ast.Attribute():
            return module.dotted(flags).removeprefix("os.") not in OPEN_FLAGS_READING
    return True


def _calls_that_write(module: Module, call: ast.Call) -> bool:
    name = module.dotted(call.func)
    if call.args and module.dotted(call.args[0]) == "os.devnull":
        return False  # nothing is written there
    if name in ("open", "io.open", "codecs.open", "os.fdopen"):
        return _may_write(_argument(call, 1, "mode"))
    if name == "os.open":
        return _opens_to_write(module, _argument(call, 1, "flags"))
    if not isinstance(call.func, ast.Attribute):
        return False
    if within(name, PACKAGE, "dataclasses", "copy", "os"):
        return False  # fsio's own functions; os is judged by its names
    method = call.func.attr
    if method == "open":
        mode = _argument(call, 0, "mode")
        return (
            isinstance(mode, ast.Constant)
            and isinstance(mode.value, str)
            and set(mode.value) <= set("rwaxbt+")
            and _may_write(mode)
        )
    named = [
        k for k in call.keywords if k.arg not in ("mode", "parents", "exist_ok", "missing_ok", "encoding")
    ]
    return not named and len(call.args) in WRITING_METHODS.get(method, ())


def writing_faults(module: Module) -> Iterator[str]:
    """Anything that changes the file system, outside the modules that may."""
    if module.name in (*WRITERS, *NATIVE):
        return
    for line, name in module.references():
        writes = name.startswith("os.") and name.removeprefix("os.") in WRITING_OS
        copies = within(name, "shutil") and name != "shutil" and not within(name, *HARMLESS_SHUTIL)
        if writes or copies or within(name, "tempfile", "numpy.save", "numpy.memmap", "io.FileIO"):
            yield f"{module.name}:{line} uses {name}; only {WRITERS} write"
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Call) and _calls_that_write(module, node):
            yield f"{module.name}:{node.lineno} writes by {ast.unparse(node)}; only {WRITERS} may"


def native_faults(module: Module) -> Iterator[str]:
    """Calls that differ between operating systems, outside the modules for them; in modules that do not
    write, functions of these modules that do.
    """
    if module.name in NATIVE:
        return
    may = NATIVE_ELSEWHERE.get(module.name, ())
    for line, name in [*module.imports(), *module.references()]:
        differs = within(name, *NATIVE_MODULES) or (
            name.startswith("os.") and name.removeprefix("os.") in NATIVE_OS
        )
        if differs and not within(name, *may):
            yield f"{module.name}:{line} uses {name}; call store.native"
        writes = name.startswith(f"{NATIVE[0]}.") and name.rpartition(".")[2] in NATIVE_WRITING
        if writes and module.name not in WRITERS:
            yield f"{module.name}:{line} uses {name}; only {WRITERS} write"
    for node in ast.walk(module.tree):
        if not isinstance(node, ast.Call) or module.dotted(node.func) != f"{NATIVE[0]}.open_file":
            continue
        if module.name not in WRITERS and _opens_to_write(module, _argument(node, 1, "flags")):
            yield f"{module.name}:{node.lineno} opens to write; only {WRITERS} may"


def border_faults(module: Module) -> Iterator[str]:
    """What belongs to one layer alone, used in another."""
    for line, name in [*module.imports(), *module.references()]:
        for what, keepers in BORDERS.items():
            if within(name, what) and not within(module.name, *keepers):
                yield f"{module.name}:{line} uses {name}, which only {' and '.join(keepers)} may"
    for node in ast.walk(module.tree):
        match node:
            case ast.Call(ast.Attribute(_, "expanduser")) if not within(module.name, *BORDERS["os.environ"]):
                yield f"{module.name}:{node.lineno} calls .expanduser(), which reads the environment"


def late_import_faults(module: Module) -> Iterator[str]:
    """Imports inside functions and classes that are not there for speed."""
    may_be_late = module.name == PACKAGE or within(module.name, *LATE)
    seen: set[ast.AST] = set()
    for scope in ast.walk(module.tree):
        if not isinstance(scope, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda):
            continue
        for node in ast.walk(scope):
            if not isinstance(node, ast.Import | ast.ImportFrom) or node in seen:
                continue
            seen.add(node)
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else [module.origin(node)]
            for name in names:
                parts = LATE_PARTS.get(module.name, ())
                if not within(name, *HEAVY, *EXTRAS, *parts) and not (may_be_late and within(name, PACKAGE)):
                    yield f"{module.name}:{node.lineno} imports {name} late"
    # `fcntl` by name at the top of a module, where a platform may lack it, hides nothing.
    plain = {call.func for call in module_level_calls(module) if _imports_foreign_module(call)}
    for node in ast.walk(module.tree):
        if module.name in LAZY_PACKAGES or may_be_late:
            break
        if isinstance(node, ast.Name | ast.Attribute) and node not in plain:
            name = module.dotted(node)
            if name in ("importlib.import_module", "__import__"):
                yield f"{module.name}:{node.lineno} uses {name}, which hides an import"


def _imports_foreign_module(call: ast.Call) -> bool:
    match call.args:
        case [ast.Constant(str(name))]:
            return not within(name, PACKAGE) and not name.startswith(".")
    return False


def module_level_calls(module: Module) -> Iterator[ast.Call]:
    """Calls that run when the module is imported, outside every function and class."""
    waiting: list[ast.AST] = [module.tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda):
            continue
        if isinstance(node, ast.Call):
            yield node
        waiting += ast.iter_child_nodes(node)


Rule = Callable[[Module], Iterator[str]]
RULES: list[Rule] = [
    *(layer_faults, purity_faults, writing_faults, native_faults, border_faults, late_import_faults),
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
@pytest.mark.parametrize("module", MODULES, ids=module_id)
def test_module_keeps_the_rule(module: Module, rule: Rule) -> None:
    assert list(rule(module)) == []


def test_every_module_is_seen() -> None:
    names = {module.name for module in MODULES}
    assert {PACKAGE, f"{PACKAGE}.errors", f"{PACKAGE}.core.digest", f"{PACKAGE}.store"} <= names


BAD = [
    (layer_faults, "core.x", "from yarnstore.registry import spec"),
    (layer_faults, "core.x", "from yarnstore import registry"),
    (layer_faults, "core.x", "from .. import store"),
    (layer_faults, "core.x", "def f():\n    import yarnstore.ops.upkeep.gc"),
    (layer_faults, "core.x", "if TYPE_CHECKING:\n    from yarnstore.api import Store"),
    (layer_faults, "errors", "import yarnstore.core.names"),
    (layer_faults, "backends.x", "from ..store.fsio import rename"),
    (layer_faults, "store.x", "from yarnstore import Store"),
    (layer_faults, "ops.x", "from yarnstore.settings import load"),
    (layer_faults, "settings", "from yarnstore.api import Store"),
    (layer_faults, "api", "from yarnstore.cli import main"),
    (layer_faults, "web.x", "from yarnstore.cli import main"),
    (layer_faults, "helpers", ""),
    (purity_faults, "core.x", "import os"),
    (purity_faults, "core.x", "import os.path as p"),
    (purity_faults, "core.x", "from os import fspath"),
    (purity_faults, "core.x", "from pathlib import Path"),
    (purity_faults, "core.x", "def f(p): return open(p).read()"),
    (purity_faults, "core.x", "import io\ndef f(p): return io.open(p)"),
    (purity_faults, "core.x", "import socket"),
    (purity_faults, "registry.x", "import httpx"),
    (purity_faults, "registry.x", "import click"),
    (purity_faults, "registry.x", "from time import monotonic"),
    (purity_faults, "registry.x", "import random"),
    (purity_faults, "registry.x", "import subprocess"),
    (purity_faults, "registry.x", "import urllib.request"),
    (purity_faults, "registry.x", "from datetime import datetime as dt\nx = dt.now()"),
    (purity_faults, "registry.x", "import datetime\nx = datetime.datetime.utcnow()"),
    (purity_faults, "core.x", "import numpy as np\nx = np.random.default_rng()"),
    (purity_faults, "core.x", "import numpy as np\nx = np.fromfile('a')"),
    (purity_faults, "core.x", "print('here')"),
    (purity_faults, "core.x", "def f(a, p): a.tofile(p)"),
    (writing_faults, "ops.x", "def f(p): return open(p, 'wb')"),
    (writing_faults, "ops.x", "def f(p): return open(p, mode='r+b')"),
    (writing_faults, "ops.x", "def f(p, m): return open(p, m)"),
    (writing_faults, "ops.x", "def f(p): return p.open('a')"),
    (writing_faults, "ops.x", "import os\ndef f(fd): return os.fdopen(fd, 'wb')"),
    (writing_faults, "ops.x", "import os\ndef f(fd, b): os.write(fd, b)"),
    (writing_faults, "ops.x", "import os as o\nf = o.replace"),
    (writing_faults, "ops.x", "from os import rename as r"),
    (writing_faults, "ops.x", "import os\ndef f(p): return os.open(p, os.O_RDWR | os.O_CREAT)"),
    (writing_faults, "ops.x", "import os\ndef f(p, flags): return os.open(p, flags)"),
    (writing_faults, "ops.x", "import os\nF = os.O_RDONLY | os.O_CREAT\ndef f(p): return os.open(p, F)"),
    (writing_faults, "ops.x", "import os\nF = os.O_RDONLY\nF |= os.O_TRUNC\ndef f(p): return os.open(p, F)"),
    (writing_faults, "ops.x", "import os\ndef f(p): os.fsync(p)"),
    (writing_faults, "ops.x", "import shutil\ndef f(p): shutil.rmtree(p)"),
    (writing_faults, "ops.x", "from shutil import copyfile"),
    (writing_faults, "ops.x", "import tempfile\nx = tempfile.mkdtemp()"),
    (writing_faults, "ops.x", "def f(p): p.write_bytes(b'')"),
    (writing_faults, "ops.x", "def f(p): p.write_text('', encoding='utf-8')"),
    (writing_faults, "ops.x", "def f(p): p.mkdir(parents=True, exist_ok=True)"),
    (writing_faults, "ops.x", "def f(p): p.unlink(missing_ok=True)"),
    (writing_faults, "ops.x", "def f(p, q): p.replace(q)"),
    (writing_faults, "ops.x", "def f(p, q): p.rename(q)"),
    (writing_faults, "store.x", "def f(p, q): (p / 'a').symlink_to(q)"),
    (native_faults, "store.fsio", "import os\ndef f(a, b): os.replace(a, b)"),
    (native_faults, "ops.x", "import os\ndef f(p): return os.open(p, os.O_RDONLY)"),
    (native_faults, "ops.x", "import os\ndef f(d): return os.pread(d, 1, 0)"),
    (native_faults, "store.x", "import fcntl"),
    (native_faults, "store.x", "def f():\n    import ctypes"),
    (native_faults, "web.memory", "import fcntl"),
    (native_faults, "backends.local", "import os\nx = os.pread"),
    (native_faults, "ops.x", "from yarnstore.store import native\ndef f(p): native.unlink(p)"),
    (native_faults, "ops.x", "from yarnstore.store.native import replace"),
    (
        native_faults,
        "store.x",
        "from yarnstore.store import native\nimport os\nx = native.open_file('a', os.O_RDWR)",
    ),
    (border_faults, "ops.x", "import httpx"),
    (border_faults, "cli.x", "from httpx import Client"),
    (border_faults, "api", "import click"),
    (border_faults, "web.x", "import os\nx = os.environ['HOME']"),
    (border_faults, "store.x", "import os\nx = os.getenv('HOME')"),
    (border_faults, "store.x", "from os import environ"),
    (border_faults, "store.x", "from pathlib import Path\nx = Path.home()"),
    (border_faults, "store.x", "def f(p): return p.expanduser()"),
    (border_faults, "api", "import platformdirs"),
    (late_import_faults, "ops.x", "def f():\n    import json"),
    (late_import_faults, "ops.x", "def f():\n    from yarnstore.store import refs"),
    (late_import_faults, "ops.x", "class C:\n    def f(self):\n        from . import gc"),
    (late_import_faults, "ops.x", "class C:\n    import json"),
    (late_import_faults, "registry.policies", "def f():\n    from yarnstore.registry.select import resolve"),
    (late_import_faults, "backends", "def f():\n    from yarnstore.backends.connect import connect"),
    (late_import_faults, "cli.x", "def f():\n    import json"),
    (late_import_faults, "ops.x", "import importlib\nx = importlib.import_module('yarnstore.api')"),
    (late_import_faults, "ops.x", "import importlib\ndef f(): importlib.import_module('json')"),
    (late_import_faults, "ops.x", "from importlib import import_module as m\ndef f(n): m(n)"),
    (late_import_faults, "ops.x", "x = __import__(name)"),
]

GOOD = [
    (layer_faults, "registry.x", "from yarnstore.core import names\nfrom . import spec"),
    (layer_faults, "cli.x", "from yarnstore.web import app\nfrom yarnstore import Store"),
    (layer_faults, "store.x", "from yarnstore import _version, errors"),
    (layer_faults, "core.x", "from yarnstore._version import __version__"),
    (purity_faults, "core.x", "from pathlib import PurePosixPath\nx = PurePosixPath('a')"),
    (purity_faults, "core.x", "from datetime import UTC, datetime\nx = datetime.fromisoformat('')"),
    (purity_faults, "core.x", "def f(time): return time.now"),
    (purity_faults, "core.x", "from urllib.parse import urlsplit\nimport io\nx = io.BytesIO()"),
    (purity_faults, "store.x", "import os, time, random"),
    (writing_faults, "store.fsio", "import os\ndef f(a, b): os.replace(a, b)"),
    (writing_faults, "store.growing", "import os\ndef f(a): os.ftruncate(a, 0)"),
    (writing_faults, "ops.x", "def f(p): return open(p), open(p, 'rb'), p.open('rb'), p.open()"),
    (writing_faults, "ops.x", "import os\ndef f(p): return os.open(p, os.O_RDONLY | os.O_NOFOLLOW)"),
    (writing_faults, "ops.x", "import os\nx = open(os.devnull, 'w'), os.open(os.devnull, os.O_WRONLY)"),
    (writing_faults, "ops.x", "from yarnstore.store import fsio\ndef f(a): fsio.rename(a); fsio.mkdir()"),
    (
        writing_faults,
        "ops.x",
        "import dataclasses\ndef f(s): return s.replace('a', 'b'), dataclasses.replace(s)",
    ),
    (writing_faults, "ops.x", "import shutil\nx = shutil.disk_usage('.').free"),
    (native_faults, "store.native", "import fcntl, os\nx = os.pread"),
    (native_faults, "web.memory", "import ctypes"),
    (native_faults, "ops.x", "from yarnstore.store import native\ndef f(d): return native.pread(d, 1, 0)"),
    (native_faults, "store.fsio", "from yarnstore.store import native\ndef f(p): native.unlink(p)"),
    (
        native_faults,
        "store.fsread",
        "from yarnstore.store import native\nimport os\n"
        "x = native.open_file('a', os.O_RDONLY | native.NOFOLLOW)",
    ),
    (border_faults, "backends.http", "import httpx"),
    (border_faults, "cli.x", "import click, os\nx = os.environ"),
    (border_faults, "settings", "import os\nx = os.environ"),
    (late_import_faults, "registry.policies", "def f():\n    from yarnstore.registry.windows import Window"),
    (late_import_faults, "core.x", "def f():\n    import numpy as np\n    from rich.table import Table"),
    (late_import_faults, "cli.x", "def f():\n    from yarnstore.ops import gc"),
    (late_import_faults, "store.x", "import importlib\nfcntl = importlib.import_module('fcntl') if p else 0"),
    (late_import_faults, "ops.x", "if TYPE_CHECKING:\n    import json"),
]


def made_up(name: str, text: str) -> Module:
    return Module(f"{PACKAGE}.{name}", text)


@pytest.mark.parametrize(("rule", "name", "text"), BAD)
def test_the_rule_sees_the_fault(rule: Rule, name: str, text: str) -> None:
    assert list(rule(made_up(name, text))), "no fault found, checker is broken"


@pytest.mark.parametrize(("rule", "name", "text"), GOOD)
def test_the_rule_lets_good_source_be(rule: Rule, name: str, text: str) -> None:
    assert list(rule(made_up(name, text))) == []


def test_each_library_that_is_promised_is_used() -> None:
    promised = {"blake3", "click", "httpx", "semver", "tomli_w", "zstandard"}
    used = {name.partition(".")[0] for module in MODULES for _, name in module.imports()}
    assert promised - used == set()
