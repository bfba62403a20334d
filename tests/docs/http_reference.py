"""docs/http-api.md below its prose: each route and field, from the application itself."""

from __future__ import annotations

import inspect
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_type_hints

import msgspec
import pytest

from tests.docs.pages import REPO
from tests.docs.result_fields import comments_of, describe, fields_of, result_types

PAGE = REPO / "docs" / "http-api.md"
START = "\n## Routes\n"
_MADE = """
This part of the page is generated from the application by `make docs`.
All paths are below `/api/v1` unless they say otherwise; a body is JSON, and no body means `{}`.
A `{model}` in a path is the id of the model with `~` for `/`: `org~name`.
"""


def render_http() -> str:
    """The page: its prose as it is, and the routes and fields that the application has now."""
    pytest.importorskip("litestar", reason="needs the extra: pip install 'yarnstore[web]'")
    prose, found, _ = PAGE.read_text(encoding="utf-8").partition(START)
    assert found, f"{PAGE.name} has no Routes"
    return prose + START + _MADE + "\n".join(_lines()).rstrip() + "\n"


def _lines() -> Iterator[str]:
    document = _document()
    kinds = _kinds()
    groups: dict[str, list[tuple[str, str, dict[str, Any]]]] = {}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            shown = path.removeprefix("/api/v1")
            groups.setdefault(operation["tags"][0], []).append((method.upper(), shown, operation))
    for tag, rows in groups.items():
        yield from ("", f"### {tag.capitalize()}", "", "| request | body | answer | |", "|---|---|---|---|")
        for method, path, operation in rows:
            body = _shape(_content(operation.get("requestBody", {})), kinds)
            code, answer = next((c, a) for c, a in operation["responses"].items() if c != "default")
            found = _shape(_content(answer), kinds) or "–"
            says = " ".join(operation["description"].split())
            query = [f"`{p['name']}`" for p in operation.get("parameters", []) if p["in"] == "query"]
            asked = f" Query: {', '.join(query)}." if query else ""
            cells = (f"`{method} {path}`", body or "–", f"{code} {found}", f"{says}{asked}")
            yield f"| {' | '.join(cells)} |"
    yield from ("", "## Types", "", "All other types are on the [page of results](results.md).")
    own = {shape.__name__ for shape in result_types()}
    for name in sorted(kinds):
        if name in own:
            continue
        yield from ("", f"### {name}", "", " ".join(inspect.cleandoc(kinds[name].__doc__ or "").split()), "")
        yield from ("| field | type | meaning |", "|---|---|---|")
        for field, (kind, meaning) in _fields(kinds[name]).items():
            assert meaning.endswith("."), f"{name}.{field} has no sentence"
            yield f"| `{field}` | {_linked(kind, own)} | {meaning} |"


def _document() -> dict[str, Any]:
    from yarnstore import Store
    from yarnstore.web.access import Access
    from yarnstore.web.app import make_app
    from yarnstore.web.document import complete
    from yarnstore.web.service import Service

    with tempfile.TemporaryDirectory() as folder:
        app = make_app(Service(lambda: Store.open(Path(folder) / "home"), Access("none")))
        return complete(app.openapi_schema.to_schema())


def _kinds() -> dict[str, type]:
    """The types of the API by name: those of its own modules, and results."""
    from yarnstore.web import commands, records, requests

    found = {shape.__name__: shape for shape in result_types()}
    for module in (records, requests, commands):
        found |= {
            name: item
            for name, item in vars(module).items()
            if isinstance(item, type) and item.__module__ == module.__name__ and name != "RequestBody"
        }
    found.pop("LoginRequest", None)
    return found


def _fields(kind: type) -> dict[str, tuple[Any, str]]:
    if not issubclass(kind, msgspec.Struct):
        return fields_of(kind)
    hints, said = get_type_hints(kind), comments_of(kind)
    return {name: (hints[name], said.get(name, "")) for name in kind.__struct_fields__}


def _content(answer: dict[str, Any]) -> dict[str, Any]:
    for found in answer.get("content", {}).values():
        schema: dict[str, Any] = found["schema"]
        return schema
    return {}


def _shape(schema: dict[str, Any], kinds: dict[str, type]) -> str:
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return _linked(kinds[name], {shape.__name__ for shape in result_types()})
    if schema.get("type") == "array":
        return f"list of {_shape(schema['items'], kinds)}"
    if schema.get("type") == "string":
        return "events"
    return "object" if schema else ""


def _linked(kind: Any, results: set[str]) -> str:
    """A type in words, with links to this page or to that of results."""
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct) and kind.__name__ not in results:
        return f"[{kind.__name__}](#{kind.__name__.lower()})"
    text = describe(kind)
    for name in results:
        text = text.replace(f"](#{name.lower()})", f"](results.md#{name.lower()})")
    return text
