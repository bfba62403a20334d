"""Reads yarnstore's own source for the tests in this folder, which judge it without running it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
PACKAGE = "yarnstore"


@dataclass(frozen=True)
class Module:
    """One module: its dotted name, its text, whether it is a package's `__init__`."""

    name: str
    text: str
    is_package: bool = False

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text, filename=self.name)

    @cached_property
    def bindings(self) -> dict[str, str]:
        """Local name → dotted name of what an import bound it to, wherever the import stands."""
        found: dict[str, str] = {}
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    top = alias.name.partition(".")[0]
                    found[alias.asname or top] = alias.name if alias.asname else top
            elif isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    found[alias.asname or alias.name] = f"{self.origin(node)}.{alias.name}"
        return found

    @cached_property
    def constants(self) -> dict[str, list[ast.expr]]:
        """Names bound by assignment, anywhere, and every value that each is given."""
        found: dict[str, list[ast.expr]] = {}
        for node in ast.walk(self.tree):
            match node:
                case ast.Assign(targets, value):
                    names = [target.id for target in targets if isinstance(target, ast.Name)]
                case ast.AnnAssign(ast.Name(name), value=ast.expr() as value):
                    names = [name]
                case ast.AugAssign(ast.Name(name), value=value):
                    names = [name]
                case _:
                    continue
            for name in names:
                found.setdefault(name, []).append(value)
        return found

    def origin(self, node: ast.ImportFrom) -> str:
        """The absolute name of the module that `from … import` names."""
        if not node.level:
            return node.module or ""
        parts = self.name.split(".")
        keep = len(parts) - node.level + (1 if self.is_package else 0)
        return ".".join(parts[:keep] + ([node.module] if node.module else []))

    def dotted(self, node: ast.expr) -> str:
        """`os.path.join` for that expression, aliases resolved; empty where it is no plain name."""
        if isinstance(node, ast.Name):
            return self.bindings.get(node.id, node.id)
        if isinstance(node, ast.Attribute):
            base = self.dotted(node.value)
            return f"{base}.{node.attr}" if base else ""
        return ""

    def imports(self) -> Iterator[tuple[int, str]]:
        """Line and dotted name of each import; `from a import b` counts as `a.b`."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    yield node.lineno, alias.name
            elif isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    yield node.lineno, f"{self.origin(node)}.{alias.name}"

    def references(self) -> Iterator[tuple[int, str]]:
        """Line and dotted name of each use of a name or attribute, and of each `from` import.

        A name that no import bound is a builtin or local, and comes as `builtins.<name>` unless the
        module binds it itself.
        """
        own = {n.name for n in ast.walk(self.tree) if isinstance(n, ast.FunctionDef | ast.ClassDef)}
        own |= {n.id for n in ast.walk(self.tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
        own |= {n.arg for n in ast.walk(self.tree) if isinstance(n, ast.arg)}
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Attribute):
                name = self.dotted(node)
                if name and name.partition(".")[0] not in own - self.bindings.keys():
                    yield node.lineno, name
            elif isinstance(node, ast.Name):
                if node.id in self.bindings:
                    yield node.lineno, self.bindings[node.id]
                elif node.id not in own:
                    yield node.lineno, f"builtins.{node.id}"
            elif isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    yield node.lineno, f"{self.origin(node)}.{alias.name}"


def read_modules(root: Path = REPO / PACKAGE) -> list[Module]:
    """Every module of the package, sorted by path, without what only its build runs."""
    modules: list[Module] = []
    for path in sorted(root.rglob("*.py")):
        if path.parent.name == "native":
            continue
        parts = [PACKAGE, *path.relative_to(root).with_suffix("").parts]
        is_package = parts[-1] == "__init__"
        name = ".".join(parts[:-1] if is_package else parts)
        modules.append(Module(name, path.read_text(encoding="utf-8"), is_package))
    return modules


MODULES = read_modules()


def module_id(module: Module) -> str:
    """A test id."""
    return module.name


def within(name: str, *packages: str) -> bool:
    """Whether the dotted `name` is one of `packages` or lies in one."""
    return any(name == package or name.startswith(package + ".") for package in packages)
