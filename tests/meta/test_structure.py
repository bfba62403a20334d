"""The engine's rooms: which package may import which, how large a room is, and one meaning for each name."""

from __future__ import annotations

import ast
import shutil
import subprocess
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.meta.source import MODULES, PACKAGE, REPO, Module, module_id, within

ENGINE = f"{PACKAGE}.ops"
# What lies at the top, beside files whose names begin with a dot.
TOP = {
    *("pyproject.toml", "yarnstore", "tests", "docs", "fixtures", "Makefile", "README.md"),
    *("LICENSE", "CHANGELOG.md", "SECURITY.md"),
}
# Lowest first: a package of the engine imports from lower lines only.
LEVELS = (
    ("session",),
    ("copies",),
    ("fetching", "publishing", "querying"),
    ("checking", "installing", "inspecting", "upkeep"),
    ("local",),
    ("exchange",),
)
RANKS = {name: rank for rank, names in enumerate(LEVELS) for name in names}
FOLDER_LIMIT = 12  # modules in one folder of the engine: what a reader can hold in mind
POSITIONAL_LIMIT = 5  # arguments by place to a record; beyond it nobody can tell which is which
# What only `backends` may decide by.
# 200 and 500 are left out: they are sizes and widths, too.
HTTP_STATUSES = {206, 304, 401, 403, 404, 408, 410, 412, 416, 429, 502, 503, 504}
# The one place that tries again, and that decides which source was wrong.
SOURCES = f"{PACKAGE}.backends.sources"
JUDGING = {"SourceFaults", "Tries", "TRIES_PER_SOURCE", "combined_error", "with_sources", "report_bad_bytes"}
# The one place that makes an address safe to show.
RENDERING = f"{PACKAGE}.backends.urls"


def package_of(name: str) -> str:
    """The engine's package that a dotted name lies in."""
    return name.removeprefix(ENGINE + ".").partition(".")[0] if name.startswith(ENGINE + ".") else ""


def level_faults(module: Module) -> Iterator[str]:
    """Imports of the engine that point up, or sideways into another package of the same level."""
    own = package_of(module.name)
    if not own:
        return
    if own not in RANKS:
        yield f"{module.name} is in no level: add its package to LEVELS"
        return
    for line, name in module.imports():
        other = package_of(name)
        if other and other != own and RANKS.get(other, len(LEVELS)) >= RANKS[own]:
            yield f"{module.name}:{line} imports {name}, which is not below it"


def is_record(node: ast.ClassDef) -> bool:
    """Whether a class is a dataclass, a NamedTuple or a msgspec record."""
    names = {ast.unparse(base).rpartition(".")[2] for base in node.bases}
    marks = {ast.unparse(mark).partition("(")[0].rpartition(".")[2] for mark in node.decorator_list}
    return bool(names & {"NamedTuple", "Struct", "CheckedRecord"} or "dataclass" in marks)


def record_names(modules: list[Module]) -> set[str]:
    """The names of all records that the package defines."""
    return {
        node.name
        for module in modules
        for node in ast.walk(module.tree)
        if isinstance(node, ast.ClassDef) and is_record(node)
    }


RECORDS = record_names(MODULES)


def positional_faults(module: Module, records: set[str]) -> Iterator[str]:
    """Calls that give a record more arguments by place than a reader can tell apart."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Call) and len(node.args) > POSITIONAL_LIMIT:
            name = ast.unparse(node.func).rpartition(".")[2]
            if name in records:
                yield f"{module.name}:{node.lineno} gives {name} {len(node.args)} arguments by place"


def wording_faults(module: Module) -> Iterator[str]:
    """Decisions by the wording of an error."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            tested = ast.unparse(node.func.value)
            if node.func.attr in ("startswith", "endswith") and _is_wording(tested):
                yield f"{module.name}:{node.lineno} decides by the words of an error"
        elif isinstance(node, ast.Compare):
            for operator, right in zip(node.ops, node.comparators, strict=True):
                if isinstance(operator, ast.In | ast.NotIn) and _is_wording(ast.unparse(right)):
                    yield f"{module.name}:{node.lineno} decides by the words of an error"


def _is_wording(text: str) -> bool:
    return ".message" in text or 'fields["why"]' in text or "fields['why']" in text or text == "str(error)"


def status_faults(module: Module) -> Iterator[str]:
    """HTTP status codes in the engine, which knows sources and bytes and not HTTP."""
    if not within(module.name, ENGINE):
        return
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Constant) and type(node.value) is int and node.value in HTTP_STATUSES:
            yield f"{module.name}:{node.lineno} knows the HTTP status {node.value}"
        elif (
            isinstance(node, ast.Attribute)
            and node.attr == "status"
            and isinstance(node.ctx, ast.Load)
            and ast.unparse(node.value).endswith("error")
        ):
            yield f"{module.name}:{node.lineno} reads the HTTP status of an error"


def kind_faults(module: Module) -> Iterator[str]:
    """Questions of a backend for what it is made of."""
    for node in ast.walk(module.tree):
        match node:
            case ast.Call(ast.Name("isinstance"), [_, kind]) if ast.unparse(kind).endswith("SourceSet"):
                yield f"{module.name}:{node.lineno} asks whether a backend is a SourceSet"


def loop_faults(module: Module) -> Iterator[str]:
    """Loops over tries outside of the one place that counts them."""
    if within(module.name, SOURCES):
        return
    for loop in ast.walk(module.tree):
        if not isinstance(loop, ast.While | ast.For):
            continue
        for node in ast.walk(loop):
            if (
                isinstance(node, ast.ExceptHandler)
                and node.type
                and "TransientError" in ast.unparse(node.type)
            ):
                yield f"{module.name}:{loop.lineno} goes on after a TransientError, which {SOURCES} does"


def blame_faults(module: Module) -> Iterator[str]:
    """Decisions which source was wrong, and errors of all sources together, outside of the one place."""
    if within(module.name, SOURCES):
        return
    for line, name in [*module.imports(), *module.references()]:
        if name.rpartition(".")[2] in JUDGING:
            yield f"{module.name}:{line} uses {name}, which {SOURCES} does"
    for node in ast.walk(module.tree):
        match node:
            case ast.Call(ast.Attribute(_, method)) if method in JUDGING:
                yield f"{module.name}:{node.lineno} calls {method}, which {SOURCES} does"


def rendering_faults(module: Module) -> Iterator[str]:
    """Credentials cut out of an address elsewhere than in the one safe rendering."""
    for node in ast.walk(module.tree):
        match node:
            case ast.Call(ast.Attribute(_, "rpartition"), [ast.Constant("@")]) if module.name != RENDERING:
                yield f"{module.name}:{node.lineno} takes an address apart, which {RENDERING}.shown does"


RULES = (
    *(level_faults, wording_faults, status_faults, kind_faults),
    *(loop_faults, blame_faults, rendering_faults),
)


@pytest.mark.parametrize("module", MODULES, ids=module_id)
def test_the_engine_keeps_its_rules(module: Module) -> None:
    faults = [fault for rule in RULES for fault in rule(module)]
    assert faults == []
    assert list(positional_faults(module, RECORDS)) == []


def test_no_room_is_a_corridor() -> None:
    rooms: dict[Path, int] = defaultdict(int)
    for path in (REPO / PACKAGE / "ops").rglob("*.py"):
        rooms[path.parent] += path.name != "__init__.py"
    assert {str(room): count for room, count in rooms.items() if count > FOLDER_LIMIT} == {}


def test_a_public_type_name_has_one_meaning() -> None:
    homes: dict[str, set[str]] = defaultdict(set)
    for module in MODULES:
        for node in module.tree.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                homes[node.name].add(module.name)
    assert {name: sorted(where) for name, where in homes.items() if len(where) > 1} == {}


def test_no_test_imports_another() -> None:
    """What tests share lies in tests/support."""
    faults = []
    for path in sorted((REPO / "tests").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += (
                [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
            )
            faults += [
                f"{path.name}: {name}" for name in names if name.rpartition(".")[2].startswith("test_")
            ]
    assert faults == []


@pytest.mark.parametrize(
    ("rule", "name", "text"),
    [
        (level_faults, "ops.session.x", "from yarnstore.ops.fetching import plan"),
        (level_faults, "ops.querying.x", "def f():\n    from yarnstore.ops.fetching import plan"),
        (level_faults, "ops.attic.x", ""),
        (wording_faults, "backends.x", "if error.message.startswith('stalled'): pass"),
        (wording_faults, "backends.x", "if 'stalled' in str(error): pass"),
        (wording_faults, "ops.x", "if str(error.fields['why']).startswith('stalled'): pass"),
        (status_faults, "ops.fetching.x", "if status == 206: pass"),
        (status_faults, "ops.fetching.x", "if error.status: pass"),
        (kind_faults, "backends.x", "isinstance(backend, SourceSet)"),
        (loop_faults, "ops.x", "while True:\n    try: f()\n    except errors.TransientError: pass"),
        (loop_faults, "ops.x", "for x in y:\n    try: f()\n    except (TransientError, OSError): pass"),
        (blame_faults, "ops.x", "from yarnstore.backends.sources.faults import SourceFaults"),
        (blame_faults, "ops.x", "sources.report_bad_bytes(url)"),
        (rendering_faults, "ops.x", "text.rpartition('@')[2]"),
    ],
)
def test_the_rules_see_a_fault(rule: object, name: str, text: str) -> None:
    assert list(rule(Module(f"{PACKAGE}.{name}", text))), "checker is broken"  # type: ignore[operator]


def test_the_count_of_arguments_sees_a_fault() -> None:
    text = "@dataclass\nclass R: ...\nR(1, 2, 3, 4, 5, 6)"
    module = Module(f"{PACKAGE}.x", text)
    assert list(positional_faults(module, record_names([module]))), "checker is broken"


def test_nothing_else_lies_at_the_top() -> None:
    git = shutil.which("git")
    if not git or not (REPO / ".git").exists():
        pytest.skip("only a clone knows which files belong to the project")
    listed = subprocess.run([git, "-C", REPO, "ls-files", "-z"], capture_output=True, text=True, check=True)
    top = {name.partition("/")[0] for name in listed.stdout.split("\0")}
    assert {name for name in top if name and not name.startswith(".")} - TOP == set()
