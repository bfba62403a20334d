"""What the tests need so that Windows can import them, and the list of those that it skips."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from tests.meta.source import REPO, Module
from tests.windows.plugin import SKIPS, read_skips

# Modules and functions of POSIX that Windows does not have.
MODULES = {"fcntl", "grp", "pty", "pwd", "resource", "termios"}
FUNCTIONS = {f"os.{name}" for name in ("getuid", "geteuid", "getgid", "getegid", "mkfifo", "fork", "killpg")}
SIGNALS = {f"signal.{name}" for name in ("SIGKILL", "SIGHUP", "SIGALRM", "SIGUSR1", "SIGUSR2")}

SKIPPED = read_skips(SKIPS.read_text(encoding="utf-8"))
TESTS = [path.relative_to(REPO).as_posix() for path in sorted((REPO / "tests").rglob("test_*.py"))]


def at_import(node: ast.AST) -> Iterator[ast.AST]:
    """What runs when a module is imported; not what `os.name` or `sys.platform` guards."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.BoolOp | ast.If | ast.IfExp) and "os.name" in ast.unparse(child):
            continue
        yield child
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            for decorator in child.decorator_list:
                yield from (decorator, *at_import(decorator))
        elif not isinstance(child, ast.Lambda):
            yield from at_import(child)


def faults(module: Module) -> list[str]:
    found = []
    for node in at_import(module.tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name in MODULES]
        elif isinstance(node, ast.ImportFrom):
            found += [node.module] if node.module in MODULES else []
        elif isinstance(node, ast.Attribute) and module.dotted(node) in FUNCTIONS | SIGNALS:
            found.append(module.dotted(node))
    return found


@pytest.mark.parametrize(
    "text",
    ["import fcntl", "import os\nx = os.getuid()", "import os\n@f(os.geteuid() == 0)\ndef g(): ..."],
)
def test_the_rule_sees_what_breaks_it(text: str) -> None:
    assert faults(Module("tests.x", text))


def test_windows_can_import_each_test_that_it_does_not_skip() -> None:
    found = {
        path: faults(Module(path, (REPO / path).read_text(encoding="utf-8")))
        for path in TESTS
        if path not in SKIPPED
    }
    assert {path: names for path, names in found.items() if names} == {}


@pytest.mark.parametrize("name", SKIPPED)
def test_what_windows_skips_exists(name: str) -> None:
    path, _, test = name.partition("::")
    assert path in TESTS
    assert not test or f"def {test.partition('[')[0]}(" in (REPO / path).read_text(encoding="utf-8")
