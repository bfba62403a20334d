"""`__all__` says what is there, and everything public says what it is."""

from __future__ import annotations

import ast
import importlib
import types
from collections.abc import Iterator

import pytest

from tests.meta.source import MODULES, Module, module_id

Documented = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def public_definitions(module: Module) -> list[Documented]:
    """Public functions and classes at the top of a module."""
    return [
        node for node in module.tree.body if isinstance(node, Documented) and not node.name.startswith("_")
    ]


def export_faults(module: Module, loaded: types.ModuleType) -> Iterator[str]:
    """Names in `__all__` that are not there, come twice or are private; definitions it leaves out."""
    names = list(loaded.__all__)
    for name in sorted(set(names)):
        if not hasattr(loaded, name):
            yield f"{module.name}.__all__ names {name}, which is not there"
        if names.count(name) > 1:
            yield f"{module.name}.__all__ names {name} twice"
        if name.startswith("_") and name != "__version__":
            yield f"{module.name}.__all__ names {name}, which is private"
    for node in public_definitions(module):
        if node.name not in names:
            yield f"{module.name}.__all__ leaves out {node.name}"


def docstring_faults(module: Module) -> Iterator[str]:
    """Modules, public functions and public classes without a docstring.

    An exception of `errors` may have its words in the tree that the module's docstring draws;
    tests/unit/test_errors.py keeps that tree whole.
    """
    told = ast.get_docstring(module.tree) or ""
    if not told:
        yield f"{module.name} has no docstring"
    drawn = set(told.split()) if module.name == "yarnstore.errors" else set()
    for node in public_definitions(module):
        if not ast.get_docstring(node) and node.name not in drawn:
            yield f"{module.name}:{node.lineno} {node.name} has no docstring"


def defines_all(module: Module) -> bool:
    return "__all__" in {n.id for n in ast.walk(module.tree) if isinstance(n, ast.Name)}


@pytest.mark.parametrize("module", MODULES, ids=module_id)
def test_public_things_say_what_they_are(module: Module) -> None:
    assert list(docstring_faults(module)) == []


@pytest.mark.parametrize("module", [m for m in MODULES if defines_all(m)], ids=module_id)
def test_all_is_true(module: Module) -> None:
    try:
        loaded = importlib.import_module(module.name)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("yarnstore"):
            raise
        pytest.skip(f"{module.name} needs {error.name}, an extra that is not installed")
    assert list(export_faults(module, loaded)) == []


@pytest.mark.parametrize(
    "text",
    [
        "__all__ = ['gone']",
        "__all__ = ['f', 'f']\ndef f(): ...",
        "__all__ = ['_f']\ndef _f(): ...",
        "__all__ = ['f']\ndef f(): ...\nclass G: ...",
    ],
)
def test_the_check_sees_a_false_all(text: str) -> None:
    loaded = types.ModuleType("made_up")
    exec(text, vars(loaded))
    assert list(export_faults(Module("made_up", text), loaded)), "checker is broken"


@pytest.mark.parametrize(
    "text",
    [
        "x = 1",
        "'''Words.'''\ndef f(): ...",
        "'''Words.'''\nasync def f(): ...",
        "'''Words, of C.'''\nclass C: ...",
    ],
)
def test_the_check_sees_a_missing_docstring(text: str) -> None:
    assert list(docstring_faults(Module("yarnstore.core.x", text))), "checker is broken"


def test_the_checks_let_good_source_be() -> None:
    text = "'''Words.'''\n__all__ = ['f']\ndef f():\n    '''Words.'''\ndef _g(): ..."
    loaded = types.ModuleType("made_up")
    exec(text, vars(loaded))
    module = Module("made_up", text)
    assert [*export_faults(module, loaded), *docstring_faults(module)] == []
