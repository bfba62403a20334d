"""What is a web page in place of a file, and when a signed address ends."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from yarnstore.backends.pages import expired_error, is_never_page, is_signed, looks_like_page, signed_until

NOW = datetime(2024, 5, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("head", "content_type", "page"),
    [
        (b"<!DOCTYPE html><html>", "", True),
        (b"\xef\xbb\xbf\n <HTML lang=en>", "", True),
        (b"<!-- portal --><html>", "", True),
        (b"<?xml version='1.0'?><!doctype html PUBLIC>", "", True),
        (b"<script>location='/login'</script>", "text/plain", True),
        (b"Please log in", "text/html; charset=utf-8", True),
        (b"Please log in", "text/plain", False),
        (b'{"models": {}}', "text/html", False),
        (b"YSTOREPK\x01", "text/html", False),
        (b"\x28\xb5\x2f\xfd\x00", "text/html", False),
        (b"", "text/html", False),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code>", "application/xml", False),
        (b"<headless", "", False),
    ],
)
def test_pages(head: bytes, content_type: str, *, page: bool) -> None:
    assert looks_like_page(head, content_type) is page


def test_what_a_download_url_names_may_be_a_page() -> None:
    assert is_never_page("registry.json")
    assert is_never_page("packs/ab.idx")
    assert not is_never_page("files/index.html")
    assert not is_never_page("https://example.org/tokenizer.json")


S3 = "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Date=20240501T100000Z&X-Amz-Expires=3600&X-Amz-Signature=secret"
GOOGLE = "X-Goog-Date=20240501T100000Z&X-Goog-Expires=3600&X-Goog-Signature=secret"
AZURE = "sv=2022-11-02&se=2024-05-01T11%3A00%3A00Z&sr=b&sp=r&sig=secret"
OLD_S3 = "AWSAccessKeyId=A&Expires=1714561200&Signature=secret"


@pytest.mark.parametrize("query", [S3, GOOGLE, AZURE, OLD_S3])
def test_an_expired_signed_address_is_called_that(query: str) -> None:
    assert is_signed(query)
    assert signed_until(query) == datetime(2024, 5, 1, 11, tzinfo=UTC)
    error = expired_error("https://b.example.org/w", query, 403, b"", NOW)
    assert error is not None
    assert "expired on 2024-05-01 11:00 UTC" in error.message
    assert "secret" not in str(error.as_dict())
    assert expired_error("u", query, 403, b"", datetime(2024, 5, 1, 10, 30, tzinfo=UTC)) is None
    assert expired_error("u", query, 404, b"", NOW) is None


def test_the_body_says_that_an_address_has_expired() -> None:
    body = b"<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>"
    assert expired_error("u", "", 403, body, NOW) is not None
    assert expired_error("u", "", 403, b"<Error><Code>AccessDenied</Code></Error>", NOW) is None


@pytest.mark.parametrize(
    "query", ["se=never&sig=x", "X-Amz-Expires=99&X-Amz-Signature=x", "Expires=1e99&Signature=x"]
)
def test_a_time_that_cannot_be_read_is_none(query: str) -> None:
    assert is_signed(query)
    assert signed_until(query) is None
