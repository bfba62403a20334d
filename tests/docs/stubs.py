"""What type checkers read in place of aio.py and results.py, whose names are made at run time."""

from __future__ import annotations

import ast
import inspect
import sys
import textwrap
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from yarnstore import AsyncStore, results
from yarnstore.aio import _store_methods

_HEAD = "# Made from {} by `make docs`; a test checks that it is current.\n"
_WIDTH = 110


def render_results_stub() -> str:
    """results.pyi, as the formatter leaves it."""
    lines = [_HEAD.format("results.py")]
    lines += [
        f"from {module} import {name} as {name}"
        for module, names in sorted(results._NAMES.items())
        for name in sorted(names, key=str.lower)
    ]
    return "\n".join(lines) + "\n"


def render_async_stub() -> str:
    """aio.pyi, as the formatter leaves it."""
    own = [item for name, item in vars(AsyncStore).items() if _is_written(name, item)]
    made = [item for name, item in _store_methods().items() if not _is_written(name, vars(AsyncStore)[name])]
    methods = [_node(item) for item in (*own, *made)]
    homes = {"Store": "yarnstore.api"}
    for item, node in zip((*own, *made), methods, strict=True):
        imported = _imports(sys.modules[inspect.unwrap(_function(item)).__module__])
        for name in _used(node):
            if name in imported:
                homes.setdefault(name, imported[name])
    names: dict[str, list[str]] = defaultdict(list)
    for name in sorted(homes, key=lambda name: (name[0].islower(), name.lower())):
        names[homes[name]].append(name)
    lines = [_HEAD.format("the methods of `Store`")]
    groups: tuple[list[str], list[str]] = ([], [])
    for module in sorted(names):
        groups[module.startswith("yarnstore")].append(f"from {module} import {', '.join(names[module])}")
    lines += [*groups[0], "", *groups[1], "", "class AsyncStore:", "    store: Store"]
    for node in methods:
        lines += _signature(node)
    return "\n".join(lines) + "\n"


def _is_written(name: str, item: object) -> bool:
    """Whether aio.py has a public or special method itself, rather than makes it."""
    shown = not name.startswith("_") or name in ("__init__", "__aenter__", "__aexit__")
    return shown and callable(getattr(AsyncStore, name)) and not hasattr(_function(item), "__wrapped__")


def _function(item: Any) -> Callable[..., Any]:
    return getattr(item, "__func__", item)


def _node(item: object) -> ast.FunctionDef | ast.AsyncFunctionDef:
    """The definition; of a method of `Store` that of the one which is awaited."""
    (node,) = ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(_function(item))))).body
    assert isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    if isinstance(node, ast.FunctionDef) and hasattr(_function(item), "__get__") and _awaits(item):
        return ast.AsyncFunctionDef(**{field: getattr(node, field, None) for field in node._fields})
    return node


def _awaits(item: object) -> bool:
    return _function(item) in _store_methods().values()


def _imports(module: object) -> dict[str, str]:
    """The names that a module imports or defines, each with its home."""
    assert hasattr(module, "__file__")
    found = {}
    for node in ast.walk(ast.parse(Path(str(module.__file__)).read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module != "__future__":
            found.update({alias.name: str(node.module) for alias in node.names})
    return found


def _used(node: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[str]:
    arguments = node.args
    every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg]
    parts = [each.annotation for each in every if each is not None] + [node.returns]
    parts += [*arguments.defaults, *arguments.kw_defaults]
    for part in parts:
        if part is not None:
            yield from (name.id for name in ast.walk(part) if isinstance(name, ast.Name))


def _signature(node: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[str]:
    """The lines of one method, wrapped as the formatter wraps them."""
    yield from (f"    @{ast.unparse(mark)}" for mark in node.decorator_list)
    begin = f"    {'async ' * isinstance(node, ast.AsyncFunctionDef)}def {node.name}("
    assert node.returns is not None
    end = f") -> {ast.unparse(node.returns)}: ..."
    arguments = _arguments(node.args)
    if len(begin + ", ".join(arguments) + end) <= _WIDTH:
        yield begin + ", ".join(arguments) + end
        return
    yield begin
    together = "        " + ", ".join(arguments)
    yield from [together] if len(together) <= _WIDTH else [f"        {each}," for each in arguments]
    yield "    " + end


def _arguments(arguments: ast.arguments) -> list[str]:
    """Each parameter as it is written, `*` among them."""

    def written(argument: ast.arg, default: ast.expr | None) -> str:
        text = ast.unparse(argument)
        if default is None:
            return text
        shown = ast.unparse(default).replace("'", '"')
        return f"{text} = {shown}" if argument.annotation else f"{text}={shown}"

    plain = [*arguments.posonlyargs, *arguments.args]
    lacking: list[ast.expr | None] = [None] * (len(plain) - len(arguments.defaults))
    found = [
        written(each, default) for each, default in zip(plain, [*lacking, *arguments.defaults], strict=True)
    ]
    if arguments.posonlyargs:
        found.insert(len(arguments.posonlyargs), "/")
    if arguments.vararg is not None:
        found.append(f"*{ast.unparse(arguments.vararg)}")
    elif arguments.kwonlyargs:
        found.append("*")
    return found + [
        written(each, default)
        for each, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    ]
