"""The addresses of repositories."""

from __future__ import annotations

import pytest

from yarnstore.ops.exchange.address import parse_address


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("docker://docker.io/smollm", "https://registry-1.docker.io/v2/library/smollm/"),
        ("docker://docker.io/ai/smollm:1", "https://registry-1.docker.io/v2/ai/smollm/"),
        ("docker://ghcr.io/a/b-c/d__e", "https://ghcr.io/v2/a/b-c/d__e/"),
        ("docker://10.0.0.1:5000/x", "https://10.0.0.1:5000/v2/x/"),
        ("docker+http://10.0.0.1:5000/x", "http://10.0.0.1:5000/v2/x/"),
        ("docker://localhost/x", "http://localhost/v2/x/"),
        ("docker://127.0.0.1:5000/x", "http://127.0.0.1:5000/v2/x/"),
        ("docker://[::1]:5000/x", "http://[::1]:5000/v2/x/"),
        ("docker+https://localhost:5000/x", "https://localhost:5000/v2/x/"),
    ],
)
def test_a_registry_is_asked_over_https_unless_it_is_this_machine(text: str, url: str) -> None:
    address = parse_address(text)
    assert address is not None
    assert address.url == url
    assert str(address) == text
