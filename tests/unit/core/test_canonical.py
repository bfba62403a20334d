"""One value, one encoding: anything else has another digest and is refused."""

from __future__ import annotations

import pytest

from yarnstore.core.canonical import INTEGER_LIMIT, encode_canonical, parse_canonical, parse_json_object
from yarnstore.core.limits import MIB
from yarnstore.errors import FormatError


@pytest.mark.parametrize(
    ("value", "data"),
    [
        ({}, b"{}"),
        ({"b": 1, "a": 2, "B": 3}, b'{"B":3,"a":2,"b":1}'),
        (
            {"z": [], "é": {}, "\U0001f600": None, "\uffff": True},
            '{"z":[],"é":{},"\uffff":true,"\U0001f600":null}'.encode(),
        ),
        (
            {"a": '"\\/\b\f\n\r\t\x00\x1f\x7f\u2028'},
            b'{"a":"\\"\\\\/\\b\\f\\n\\r\\t\\u0000\\u001f\x7f\xe2\x80\xa8"}',
        ),
        (
            {"a": INTEGER_LIMIT, "b": -INTEGER_LIMIT, "c": 0},
            b'{"a":9007199254740991,"b":-9007199254740991,"c":0}',
        ),
        ({"a": {"c": 1, "b": [{"e": 1, "d": 2}]}}, b'{"a":{"b":[{"d":2,"e":1}],"c":1}}'),
    ],
)
def test_the_one_encoding(value: dict, data: bytes) -> None:
    assert encode_canonical(value) == data
    assert parse_canonical(data, "JSON") == value
    assert parse_canonical(memoryview(data), "JSON") == value


@pytest.mark.parametrize(
    "data",
    [
        *(
            b"{ }",
            b'{"a": 1}',
            b' {"a":1}',
            b'{"a":1}\n',
            b'{"b":1,"a":2}',
            b'{"a":1,"a":1}',
            b'{"a":1,"a":2}',
        ),
        *(
            b'{"a":"\\u0061"}',
            b'{"a":"\\/"}',
            b'{"a":"\\u001F"}',
            b'{"a":"\\u000a"}',
            b'{"a":-0}',
            b'{"a":1.0}',
            b'{"a":1e2}',
        ),
        *(
            b'{"a":9007199254740992}',
            b'{"a":-9007199254740992}',
            b'{"a":1e400}',
            b'{"a":NaN}',
            b'{"a":Infinity}',
            b"[]",
        ),
        *(
            b"1",
            b'"a"',
            b"null",
            b"",
            b"{",
            b'{"a":1}{}',
            b'\xef\xbb\xbf{"a":1}',
            b'{"a":"\xff"}',
            b'{"a":"\xed\xa0\x80"}',
        ),
        *(
            b'{"a":"\\ud800"}',
            b'{"a":"\\udc00\\ud800"}',
            b'{"a":"\x00"}',
            b"{'a':1}",
            b'{"a":01}',
            b'{"a":1,}',
            b"\x00",
        ),
        *(
            '{"a":1}'.encode("utf-16"),
            b'{"\\u00e9":1}',
            b'{"a":' + b"9" * 5000 + b"}",
            b'{"a":0.' + b"1" * 5000 + b"}",
        ),
    ],
)
def test_any_other_encoding_is_refused(data: bytes) -> None:
    with pytest.raises(FormatError):
        parse_canonical(data, "JSON")


@pytest.mark.parametrize(
    "value",
    [{"a": 1.5}, {"a": [1.0]}, {"a": float("nan")}, {"a": 2**53}, {"a": {"b": -(2**53)}}, {"a": "\ud800"}],
)
def test_what_has_no_encoding(value: dict) -> None:
    with pytest.raises(FormatError):
        encode_canonical(value)


@pytest.mark.parametrize("opening", [b'{"a":', b"["])
def test_nesting_of_any_depth_is_read_or_refused(opening: bytes) -> None:
    closing = {b"[": b"]", b'{"a":': b"}"}[opening]
    outcomes = set()
    for depth in [*range(900, 1010), 10_000, 1_000_000]:
        data = b'{"a":' + opening * depth + b"1" + closing * depth + b"}"
        try:
            parse_canonical(data, "JSON")
        except FormatError:
            outcomes.add("refused")
        else:
            outcomes.add("read")
    assert outcomes == {"read", "refused"}


def test_any_layout_is_read_where_no_digest_depends_on_it() -> None:
    assert parse_json_object(b' {"b": 1.5,\n"a": [2]} ', "JSON") == {"b": 1.5, "a": [2]}


@pytest.mark.parametrize("value", [b"[],", b"{},", b'{"a":1},', b'"\xc3\xa9",', b"1,"])
def test_values_that_would_fill_memory_are_not_decoded(value: bytes) -> None:
    bomb = b'{"z":[' + value * (16 * MIB // len(value)) + b"1]}"
    with pytest.raises(FormatError, match="would need more than"):
        parse_canonical(bomb, "x")


@pytest.mark.parametrize("wide", ["é".encode(), b"\\u20ac"])
def test_text_that_would_grow_fourfold_is_not_decoded(wide: bytes) -> None:
    with pytest.raises(FormatError, match="would need more than"):
        parse_canonical(b'{"z":"' + wide + b"a" * (40 * MIB) + b'"}', "x")
    assert parse_canonical(b'{"z":"' + b"a" * (40 * MIB) + b'"}', "x")


def test_the_manifest_of_the_largest_models_is_read() -> None:
    chunks = b"A" * (400 * 1000 * 48)  # 400 GB at 1 MiB a chunk
    row = b'["model.layers.60.mlp.experts.255.down_proj.weight","f8_e4m3",[7168,2048],123456789012]'
    rows = b",".join([row] * 200_000)
    value = parse_json_object(b'{"chunks":"' + chunks + b'","tensors":[' + rows + b"]}", "x")
    assert len(value["tensors"]) == 200_000
