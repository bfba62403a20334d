"""Sizes as people write them."""

from __future__ import annotations

import pytest

from yarnstore.core.sizes import DEFAULT_RESERVE, Reserve, parse_size
from yarnstore.errors import ConfigError, InvalidNameError
from yarnstore.registry.policies import parse_reserve


@pytest.mark.parametrize(
    ("text", "size"),
    [("50G", 50 * 10**9), ("2.5Mi", 2_621_440), (" 3 kB ", 3000), ("7", 7), ("1T", 10**12), ("0", 0)],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "much", "-1", "5i", "1e6", "5%", "٣M", "9" * 18 + "T", "nan"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(InvalidNameError):
        parse_size(text)


def test_reserves() -> None:
    assert Reserve.parse("5%").of(1000) == 50
    assert Reserve.parse("12.5 %").of(1000) == 125
    assert Reserve.parse("10k").of(10**6) == 10_000
    assert Reserve.parse("0").of(10**6) == 0
    assert DEFAULT_RESERVE.of(10**9) == 50_000_000
    assert DEFAULT_RESERVE.of(10**12) == 512 * 1024**2
    assert parse_reserve({}) == DEFAULT_RESERVE
    assert parse_reserve({"reserve": 1000}).of(10**6) == 1000


@pytest.mark.parametrize("value", ["101%", "some", True, [], "-5%"])
def test_what_is_no_reserve(value: object) -> None:
    with pytest.raises(ConfigError, match="reserve"):
        parse_reserve({"reserve": value})
