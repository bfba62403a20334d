"""Records: immutable results, made faster than dataclasses and used like them.  Pure.

Defining a frozen dataclass takes 1 to 2 ms, since it compiles its methods; a struct takes a fraction of that.
So everyday commands return `Record`s (docs/decisions/0027-results-as-structs.md).
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from dataclasses import Field
    from typing import ClassVar


class _Fields:
    """The fields of a record as `dataclasses` needs them, made when first used."""

    def __get__(self, _: object, kind: type[Record]) -> dict[str, Field[Any]]:
        return _fields_of(kind)


@cache
def _fields_of(kind: type[Record]) -> dict[str, Field[Any]]:
    from dataclasses import field, make_dataclass

    fields = [(item.name, item.type, field(**_default(item))) for item in msgspec.structs.fields(kind)]
    made: Any = make_dataclass(kind.__name__, fields)
    found: dict[str, Field[Any]] = made.__dataclass_fields__
    return found


def _default(item: msgspec.structs.FieldInfo) -> dict[str, Any]:
    if item.default_factory is not msgspec.NODEFAULT:
        return {"default_factory": item.default_factory}
    return {} if item.default is msgspec.NODEFAULT else {"default": item.default}


class Record(msgspec.Struct, frozen=True):
    """A struct that `dataclasses.fields`, `asdict`, `astuple`, `replace` and `is_dataclass` accept."""

    if TYPE_CHECKING:
        __dataclass_fields__: ClassVar[dict[str, Field[Any]]]
    else:
        __dataclass_fields__ = _Fields()
