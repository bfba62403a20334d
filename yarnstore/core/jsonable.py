"""Results as plain JSON values.  Pure."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any

from yarnstore.core.record import Record


@cache
def _names(kind: Any) -> tuple[str, ...]:  # noqa: ANN401 - `fields` wants a dataclass
    """The fields of a dataclass or a record, then its properties."""
    derived = [name for name, item in vars(kind).items() if isinstance(item, property)]
    if issubclass(kind, Record):
        return (*kind.__struct_fields__, *derived)
    return (*(item.name for item in fields(kind)), *derived)


def jsonable(value: object) -> Any:  # noqa: ANN401 - JSON is any
    """Convert dataclasses and records, their properties and nested values to plain JSON values."""
    if isinstance(value, str):
        return value if value.isascii() else value.encode(errors="backslashreplace").decode()
    if value is None or isinstance(value, int | float):
        return value
    if isinstance(value, Record) or (is_dataclass(value) and not isinstance(value, type)):
        return {name: jsonable(getattr(value, name)) for name in _names(type(value))}
    if isinstance(value, dict):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [jsonable(item) for item in value]
    return value
