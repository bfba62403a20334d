from __future__ import annotations

import ipaddress

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from yarnstore.backends.http import HttpBackend
from yarnstore.backends.targets import is_refused_address, join_key, parse_url
from yarnstore.backends.urls import origin_of, shown
from yarnstore.errors import ConfigError, UsageError

HOSTILE = r"""
http://169.254.169.254/latest/meta-data/
http://169.254.169.254:80/
http://169.254.0.1/
http://169.254.255.255/
http://169.254.169.254./
https://169.254.170.2/v2/credentials
http://2852039166/
http://0xa9fea9fe/
http://0xA9FEA9FE:8080/
http://0xa9.0xfe.0xa9.0xfe/
http://0251.0376.0251.0376/
http://0251.254.0xa9.254/
http://169.254.43518/
http://169.16689662/
http://100.100.100.200/
http://168.63.129.16/machine
http://192.0.0.192/opc/v2/
http://[fe80::1]/
http://[fe80::1%25eth0]/
http://[febf::1]/
http://[FE80:0:0:0:0:0:0:1]/
http://[fd00:ec2::254]/
http://[fd20:ce::254]/
http://[::ffff:169.254.169.254]/
http://[::ffff:a9fe:a9fe]/
http://[0:0:0:0:0:ffff:a9fe:a9fe]/
http://[::169.254.169.254]/
http://[64:ff9b::169.254.169.254]/
http://[64:ff9b::a9fe:a9fe]/
http://[2002:a9fe:a9fe::]/
http://[2001:0:a9fe:a9fe::]/
http://user@host/
http://user:pw@host/
http://:pw@host/
http://host%40evil/
http://good.test\\@evil.test/
http://a b/
http://a%00b/
http://-a.test/
http://a..test/
http:///path
http://
http:
//host/path
/path
host/path
ftp://host/
file:///etc/passwd
gopher://host/
javascript:alert(1)
data:text/plain,x
unix:///run/docker.sock
http://host:0/
http://host:65536/
http://host:-1/
http://host:http/
http://[::1/
http://ho\nst/
http://host/\r\nX:1
"""
URLS = [line.encode().decode("unicode_escape") for line in HOSTILE.split("\n") if line]


def test_there_are_enough_hostile_urls() -> None:
    assert len(URLS) >= 50


@pytest.mark.parametrize("url", URLS)
def test_hostile_urls_are_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"^(is|has|holds|names) "):
        parse_url(url)
    with pytest.raises(UsageError) as caught:
        HttpBackend(url)
    assert "pw" not in caught.value.message


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1/", "http://localhost:8000/a", "https://host.test/a?b=c", "http://[::1]:80/", "http://10.0.0.1",
     "http://169.253.255.255/", "http://169.255.0.0/", "http://[fec0::1]/", "http://[2001:db8::1]/",
     "https://models_cdn.example.test./x", "http://bücher.test/", "http://169.254.169.254.nip.test/"],
)  # fmt: skip
def test_urls_that_are_taken(url: str) -> None:
    assert parse_url(url).host


@given(st.ip_addresses(v=4), st.sampled_from(["{}", "::ffff:{}", "64:ff9b::{}", "[::ffff:{}]", "{}."]))
def test_embedded_addresses_are_judged_alike(address: ipaddress.IPv4Address, form: str) -> None:
    assert is_refused_address(form.format(address)) == is_refused_address(str(address))


@given(st.integers(0, 0xFFFF))
def test_all_of_link_local_in_numbers(low: int) -> None:
    number = (169 << 24) + (254 << 16) + low
    for form in (str(number), hex(number), str(ipaddress.IPv4Address(number)), f"169.254.{low}"):
        assert is_refused_address(form)


@pytest.mark.parametrize(
    ("left", "right", "same"),
    [
        ("http://a/x", "http://A:80/y?z", True),
        ("https://a/", "https://a:443/", True),
        ("https://a./", "https://a/", True),
        ("http://a/", "https://a/", False),
        ("http://a/", "http://a:81/", False),
        ("http://a/", "http://b/", False),
        ("http://a/", "http://a.b/", False),
        ("http://localhost/", "http://127.0.0.1/", False),
    ],
)
def test_origins(left: str, right: str, same: bool) -> None:
    assert (origin_of(parse_url(left)) == origin_of(parse_url(right))) is same


def test_join_and_show() -> None:
    base = parse_url("https://host:8443/models/")
    assert str(join_key(base, "packs/a b#?%.pack")) == "https://host:8443/models/packs/a%20b%23%3F%25.pack"
    assert shown(httpx.URL("https://u:secret@host/a%0Ab?sig=secret#f")) == "https://host/a%0Ab"


@pytest.mark.parametrize(
    ("address", "safe"),
    [
        ("https://Host.test/a", "https://Host.test/a"),
        ("HTTPS://user:hunter2@Host.test:8443/a/?k=hunter2#hunter2", "HTTPS://Host.test:8443/a/"),
        ("https://hunter2@host.test", "https://host.test"),
        ("https://me:hun@ter2@host.test/", "https://host.test/"),
        ("https://me:hun/hunter2@host.test/r", "host.test/r"),
        ("https://me:hun?hunter2@host.test/r?k=hunter2", "host.test/r"),
        ("https://me:hun#hunter2@host.test/r", "host.test/r"),
        ("https://host.test/@org/model", "https://host.test/@org/model"),
        ("s3://me:hunter2@bucket/r?k=hunter2", "s3://bucket/r"),
        ("me:hunter2@host.test/r", "host.test/r"),
        ("host.test/r?k=hunter2", "host.test/r"),
        ("http://[::1", "http://[::1"),
        ("/srv/a?b#c@d", "/srv/a?b#c@d"),
        ("folder@2/x", "folder@2/x"),
        ("file:///srv/a@b", "file:///srv/a@b"),
        ("C:\\models@2", "C:\\models@2"),
        ("", ""),
    ],
)
def test_an_address_is_shown_without_secrets_and_else_as_it_is(address: str, safe: str) -> None:
    assert shown(address) == safe


PASSWORDS = st.characters(codec="ascii", exclude_characters="/?#@", categories=["L", "P", "S"])


@given(st.text(PASSWORDS, min_size=4))
def test_no_password_is_shown(password: str) -> None:
    for address in (f"https://me:{password}@host.test/r", f"https://host.test/r?k={password}"):
        for folder in (True, False):
            assert password not in shown(address, folder=folder).removeprefix("https://host.test/r")


@pytest.mark.parametrize("token", ["", "a b", "a\nX-Injected: 1", "é", "a\0", "tab\t"])
def test_tokens_that_no_header_takes(token: str) -> None:
    with pytest.raises(ConfigError) as caught:
        HttpBackend("http://host/", token=token)
    assert token == "" or token not in str(caught.value.as_dict())


def test_credentials_in_the_address_are_refused_and_not_shown() -> None:
    for url in ("https://me:hunter2@host/", "https://hunter2@host/", "http://me:hun@ter2@host/?x=hunter2"):
        with pytest.raises(UsageError, match="user name or password") as caught:
            HttpBackend(url)
        assert "token" in caught.value.hint
        assert "hunter2" not in str(caught.value.as_dict())
        assert "ter2" not in str(caught.value.as_dict())
    with pytest.raises(UsageError, match="query"):
        HttpBackend("https://host/?key=hunter2")


def test_the_url_ends_in_a_slash_and_holds_no_token() -> None:
    backend = HttpBackend("https://Host.test:443/models", token="hunter2")
    assert backend.url == "https://host.test/models/"
    assert "hunter2" not in repr(backend)
    backend.close()
