"""Results as plain JSON values.  Pure."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any


@cache
def _names(kind: type) -> tuple[str, ...]:
    """The fields of a dataclass, then its properties."""
    derived = [name for name, item in vars(kind).items() if isinstance(item, property)]
    return (*(item.name for item in fields(kind)), *derived)


def jsonable(value: object) -> Any:  # noqa: ANN401 - JSON is any
    """Convert dataclasses, their properties and nested values to plain JSON values."""
    if isinstance(value, str):
        return value if value.isascii() else value.encode(errors="backslashreplace").decode()
    if value is None or isinstance(value, int | float):
        return value
    if is_dataclass(value) and not isinstance(value, type):
        return {name: jsonable(getattr(value, name)) for name in _names(type(value))}
    if isinstance(value, dict):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [jsonable(item) for item in value]
    return value
