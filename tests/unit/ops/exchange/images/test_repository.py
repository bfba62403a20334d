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


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("hf:org/name", "hf://ORG/NAME"),
        ("hf:", "hf://ORG/NAME"),
        ("ollama:llama3.2:1b", "ollama://"),
        ("lmstudio:a/b", "lmstudio://"),
        ("docker:localhost/x", "docker://HOST"),
        ("docker+http:localhost/x", "docker://HOST"),
        ("oci://folder", "oci:FOLDER"),
    ],
)
def test_an_address_with_the_wrong_slashes_is_no_folder_of_that_name(text: str, form: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_address(text)
    assert caught.value.hint.startswith(f"give {form}")
    assert parse_address(f"./{text}") is None


@pytest.mark.parametrize("text", ["C:\\models", "C:/models", "hf", "folder/hf:x", "https://example.org/x"])
def test_other_texts_with_a_colon_are_left_to_others(text: str) -> None:
    assert parse_address(text) is None


def test_the_password_in_an_address_is_not_repeated_and_the_error_says_where_to_put_it() -> None:
    with pytest.raises(UsageError) as caught:
        parse_address("docker://bob:secret@models.example.org:5000/acme/m:1")
    said = f"{caught.value} {caught.value.hint} {caught.value.fields}"
    assert "secret" not in said
    assert "bob" not in said
    assert "give docker://models.example.org:5000/acme/m:1; log in with `docker login`" in said
