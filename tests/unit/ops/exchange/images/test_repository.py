"""The addresses of repositories."""

from __future__ import annotations

import pytest

from yarnstore.errors import UsageError
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


def test_the_password_in_an_address_is_not_repeated_and_the_error_says_where_to_put_it() -> None:
    with pytest.raises(UsageError) as caught:
        parse_address("docker://bob:secret@models.example.org:5000/acme/m:1")
    said = f"{caught.value} {caught.value.hint} {caught.value.fields}"
    assert "secret" not in said
    assert "bob" not in said
    assert "give docker://models.example.org:5000/acme/m:1; log in with `docker login`" in said
