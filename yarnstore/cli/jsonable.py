"""Results as plain JSON values; imported when a result is printed, so that `--version` starts fast."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any


def jsonable(value: object) -> Any:  # noqa: ANN401 - JSON is any
    """Dataclasses with their properties, and what is in them, as plain JSON values."""
    if is_dataclass(value) and not isinstance(value, type):
        own = {item.name: jsonable(getattr(value, item.name)) for item in fields(value)}
        derived = [name for name, item in vars(type(value)).items() if isinstance(item, property)]
        return {**own, **{name: jsonable(getattr(value, name)) for name in derived}}
    if isinstance(value, dict):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [jsonable(item) for item in value]
    if isinstance(value, str):
        return value.encode(errors="backslashreplace").decode()  # a file name may be no text
    return value
