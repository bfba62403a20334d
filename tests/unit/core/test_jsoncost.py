"""What a JSON document takes in memory is counted right wherever its blocks end."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yarnstore.core import jsoncost
from yarnstore.core.jsoncost import JsonShape, count_pairs, measure

texts = st.text(st.sampled_from('ab\\"{}[]:, \u00e9\u4e2d\U0001f600'), max_size=12)
documents = st.dictionaries(
    texts,
    st.recursive(
        texts | st.integers(300, 9999) | st.booleans() | st.none(),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
        max_leaves=30,
    ),
    max_size=5,
)


def walk(value: Any, shape: JsonShape, *, keyed: bool) -> None:
    if isinstance(value, dict):
        shape.keyed_objects += keyed
        shape.listed_objects += not keyed
        for item in value.values():
            shape.keys += 1
            shape.numbers += type(item) is int
            walk(item, shape, keyed=True)
    elif isinstance(value, list):
        shape.arrays += 1
        for item in value:
            shape.elements += isinstance(item, str)
            walk(item, shape, keyed=False)


@pytest.mark.parametrize("block_bytes", [160, 200, 1 << 20])
@given(document=documents, indent=st.sampled_from([None, 2]), escape=st.booleans())
def test_values_are_counted(block_bytes: int, document: Any, indent: int | None, escape: bool) -> None:
    expected = JsonShape()
    walk(document, expected, keyed=False)
    data = json.dumps(document, indent=indent, ensure_ascii=escape).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jsoncost, "_BLOCK_BYTES", block_bytes)
        found = measure(data)
    counted = ("keys", "keyed_objects", "listed_objects", "arrays", "elements", "numbers")
    assert [getattr(found, name) for name in counted] == [getattr(expected, name) for name in counted]
    assert jsoncost.most_bytes(data) >= found.untyped_bytes()


def test_a_text_longer_than_a_block_counts_as_wide_and_ends_where_it_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(jsoncost, "_BLOCK_BYTES", 16)
    data = json.dumps({"m": {"t": 'a\\"' * 100, "u": {}}}).encode()
    found = measure(data)
    assert found.keyed_objects == 2
    assert found.text_bytes >= 4 * 300


def test_pairs_are_those_of_the_named_objects() -> None:
    document = {"m": {"aliases": {'st{a}b"le': "1.0.0", "x": "y"}, "other": {"a": "b"}}, "n": {"aliases": {}}}
    assert count_pairs(json.dumps(document).encode(), "aliases") >= 2
    assert count_pairs(json.dumps(document, indent=2).encode(), "aliases") <= 4
    hidden = json.dumps(document).encode().replace(b"aliases", b"\\u0061liases")
    assert count_pairs(hidden, "aliases") == hidden.count(b":")
