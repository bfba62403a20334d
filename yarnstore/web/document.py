"""Additions to the OpenAPI document of Litestar: properties of results, problems, streams."""

from __future__ import annotations

from typing import Any, get_type_hints

from yarnstore import results
from yarnstore.web import problems

JSON = "application/json"
_TYPES = {bool: "boolean", int: "integer", float: "number", str: "string"}


def complete(document: dict[str, Any]) -> dict[str, Any]:
    """Return the document with all responses of the service."""
    found: dict[str, Any] = _any_of(document)
    schemas = found["components"]["schemas"]
    for name, schema in schemas.items():
        kind = getattr(results, name, None)
        if isinstance(kind, type):
            _add_properties(schema, kind)
    for path, operations in found["paths"].items():
        for operation in operations.values():
            answers = operation["responses"]
            answers.pop("400", None)  # which Litestar describes as its own
            answers["default"] = {
                "description": "A problem",
                "content": {problems.MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemDetails"}}},
            }
            if path.endswith(("/update_model", "/rollback_model")):
                job = {"schema": {"$ref": "#/components/schemas/Job"}}
                answers["202"] = {"description": "The job, if `wait` is false", "content": {JSON: job}}
            if path.endswith("/events"):
                answers["200"]["content"] = {"text/event-stream": {"schema": {"type": "string"}}}
    return found


def _any_of(value: Any) -> Any:  # noqa: ANN401 - JSON is any
    """Return a copy in which a value may match several members of a union: 4 is an integer and a number."""
    if isinstance(value, dict):
        return {"anyOf" if key == "oneOf" else key: _any_of(item) for key, item in value.items()}
    return [_any_of(item) for item in value] if isinstance(value, list) else value


def _add_properties(schema: dict[str, Any], kind: type) -> None:
    for name, item in vars(kind).items():
        if isinstance(item, property) and item.fget is not None:
            shape = get_type_hints(item.fget)["return"]
            schema.setdefault("properties", {})[name] = {"type": _TYPES[shape]}
            schema.setdefault("required", []).append(name)
