"""Records: structs that `dataclasses` accepts."""

from __future__ import annotations

import dataclasses
import pickle
from typing import get_type_hints

import pytest
from msgspec import field

from yarnstore.core.jsonable import jsonable
from yarnstore.core.record import Record


class Part(Record, frozen=True):
    name: str
    bytes: int = 0


class Whole(Record, frozen=True):
    parts: list[Part]
    notes: dict[str, str] = field(default_factory=dict)

    @property
    def count(self) -> int:
        return len(self.parts)


@dataclasses.dataclass(frozen=True)
class Other:
    parts: list[Part]
    notes: dict[str, str] = dataclasses.field(default_factory=dict)


WHOLE = Whole([Part("a", 1), Part("b")])


def test_the_functions_of_dataclasses_accept_a_record() -> None:
    same = Other(WHOLE.parts)
    assert dataclasses.is_dataclass(WHOLE)
    assert dataclasses.is_dataclass(Whole)
    assert dataclasses.asdict(WHOLE) == dataclasses.asdict(same)
    assert dataclasses.astuple(WHOLE) == dataclasses.astuple(same)
    assert dataclasses.replace(WHOLE, notes={"a": "b"}) == Whole(WHOLE.parts, {"a": "b"})
    hints = get_type_hints(Other)
    for found, expected in zip(dataclasses.fields(Whole), dataclasses.fields(Other), strict=True):
        assert (found.name, found.type) == (expected.name, hints[expected.name])
        assert (found.default, found.default_factory) == (expected.default, expected.default_factory)
    assert [item.name for item in dataclasses.fields(Part)] == ["name", "bytes"]


def test_a_record_is_immutable_and_compares_by_its_fields() -> None:
    with pytest.raises(AttributeError):
        WHOLE.notes = {}  # type: ignore[misc]
    assert pickle.loads(pickle.dumps(WHOLE)) == WHOLE
    assert hash(Part("a")) == hash(Part("a"))
    assert Part("a") != Part("b")
    assert repr(Part("a")) == "Part(name='a', bytes=0)"


def test_json_has_the_fields_and_properties_of_a_record() -> None:
    parts = [{"name": "a", "bytes": 1}, {"name": "b", "bytes": 0}]
    assert jsonable(WHOLE) == {"parts": parts, "notes": {}, "count": 2}
