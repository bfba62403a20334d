"""The challenges by which registries of images ask for a login."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yarnstore.backends.tokens import Challenge, parse_challenges


@pytest.mark.parametrize(
    ("header", "found"),
    [
        ("", []),
        ("Negotiate", []),
        ("Basic", [Challenge("basic", {})]),
        ('basic realm="a \\"b\\""', [Challenge("basic", {"realm": 'a "b"'})]),
        (
            'Bearer realm="https://auth.example/token",service="x",scope="repository:a/b:pull,push"',
            [
                Challenge(
                    "bearer",
                    {
                        "realm": "https://auth.example/token",
                        "service": "x",
                        "scope": "repository:a/b:pull,push",
                    },
                )
            ],
        ),
        (
            'Bearer realm=https://a/t , Basic realm="b"',
            [Challenge("bearer", {"realm": "https://a/t"}), Challenge("basic", {"realm": "b"})],
        ),
    ],
)
def test_challenges_are_read_with_their_parameters(header: str, found: list[Challenge]) -> None:
    assert parse_challenges(header) == found


@given(st.text(alphabet="Bearer Basic,=\"\\'realm:/x\t", max_size=300))
def test_no_header_is_an_error(header: str) -> None:
    for challenge in parse_challenges(header):
        assert challenge.scheme in ("basic", "bearer")
