"""Whom `no_proxy` exempts, and how a proxy is named."""

from __future__ import annotations

import httpx
import pytest

from yarnstore.backends.proxies import is_exempt, proxy_for, shown_proxy


@pytest.mark.parametrize(
    ("entry", "host", "port", "exempt"),
    [
        ("*", "models.example.org", 443, True),
        ("example.net, *", "models.example.org", 443, True),
        ("10.0.0.0/8", "10.1.2.3", 80, True),
        ("10.0.0.0/8", "11.1.2.3", 80, False),
        ("127.0.0.0/8", "127.0.0.1", 8080, True),
        ("127.0.0.0/8", "localhost", 8080, False),
        ("10.0.0.5/8", "10.9.9.9", 80, True),
        ("fd00::/8", "fd12::1", 80, True),
        ("[fd00::]/8", "fd12::1", 80, True),
        ("[::1]", "::1", 80, True),
        ("::1", "::1", 80, True),
        ("0:0:0:0:0:0:0:1", "::1", 80, True),
        ("[::1]:8080", "::1", 8080, True),
        ("[::1]:8080", "::1", 80, False),
        ("127.0.0.1", "::ffff:127.0.0.1", 80, True),
        ("example.org", "example.org", 80, True),
        ("example.org", "models.example.org", 80, True),
        (".example.org", "models.example.org", 80, True),
        ("*.example.org", "models.example.org", 80, True),
        ("EXAMPLE.org", "models.Example.ORG", 80, True),
        ("example.org", "badexample.org", 80, False),
        ("example.org:8080", "models.example.org", 8080, True),
        ("example.org:8080", "models.example.org", 443, False),
        ("a.org b.org", "b.org", 80, True),
        ("", "example.org", 80, False),
        (",, ,", "example.org", 80, False),
        (".", "example.org", 80, False),
        ("10.0.0.0/99", "10.0.0.1", 80, False),
    ],
)
def test_no_proxy(entry: str, host: str, port: int, *, exempt: bool) -> None:
    assert is_exempt(host, port, entry) is exempt


def test_the_proxy_of_a_url() -> None:
    proxies = {"http": "http://user:pw@proxy:3128", "all": "other:1", "no": "10.0.0.0/8,dev.example.org:8443"}
    assert proxy_for(httpx.URL("http://example.org/"), proxies) == "http://user:pw@proxy:3128"
    assert proxy_for(httpx.URL("https://example.org/"), proxies) == "other:1"
    assert proxy_for(httpx.URL("http://10.1.1.1/"), proxies) == ""
    assert proxy_for(httpx.URL("https://dev.example.org:8443/"), proxies) == ""
    assert proxy_for(httpx.URL("https://dev.example.org/"), proxies) == "other:1"
    assert proxy_for(httpx.URL("https://example.org/"), {}) == ""


def test_a_proxy_is_shown_without_its_password() -> None:
    assert shown_proxy("http://user:pw@proxy:3128") == "http://proxy:3128"
    assert shown_proxy("user:pw@proxy:3128") == "http://proxy:3128"
