"""Lint sees every fault that a reader stumbles over, and stumbles over none itself."""

from __future__ import annotations

import json
import re
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tests.support.models import REPO
from yarnstore.errors import FormatError
from yarnstore.registry.lint import lint_registry
from yarnstore.registry.schema import parse_registry

EXAMPLE = re.findall(
    r"```json\n(.*?)```", (REPO / "docs" / "registry.md").read_text(encoding="utf-8"), re.DOTALL
)[0]
words = st.sampled_from(
    ["", "1.0.0", "../x", "latest", "phi-3-mini", "cpu-int4", "2024-01-01T00:00:00Z", "^1", "A", "a"]
)
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | words
    | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(words | st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where something can be put in a document."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    below = [place for key in keys for place in places(value[key], (*path, key))]
    return [*((*path, key) for key in keys), *below]


PLACES = places(json.loads(EXAMPLE))


@given(
    st.lists(
        st.tuples(st.sampled_from(PLACES), st.sampled_from(["set", "drop", "add"]), words, values),
        min_size=1,
        max_size=3,
    )
)
def test_what_a_reader_refuses_is_an_error_here(changes: list[tuple[tuple[Any, ...], str, str, Any]]) -> None:
    raw: Any = json.loads(EXAMPLE)
    for path, kind, word, value in changes:
        parent: Any = raw
        try:
            for step in path[:-1]:
                parent = parent[step]
            if kind == "set":
                parent[path[-1]] = value
            elif kind == "drop":
                del parent[path[-1]]
            else:
                parent[path[-1]][word] = value
        except (LookupError, TypeError):
            continue  # an earlier change took the place away
    data = json.dumps(raw).encode()
    errors = [item for item in lint_registry(data).findings if item.severity == "error"]
    refused = ""
    try:
        parse_registry(data)
    except FormatError as error:
        refused = error.message
    assert errors or not refused, refused
    assert all(item.path.startswith("$") and item.message for item in errors)


@given(st.binary(max_size=200) | values.map(lambda value: json.dumps(value).encode()))
def test_other_bytes_have_errors(data: bytes) -> None:
    assert any(item.severity == "error" for item in lint_registry(data).findings)
