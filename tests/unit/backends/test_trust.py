"""A certificate that the system trusts is accepted, in addition to those of certifi."""

from __future__ import annotations

import ssl
import sys
from pathlib import Path

import certifi
import pytest

from tests.support.servers import Reply, ScriptedServer, self_signed
from yarnstore import Store
from yarnstore.backends.http import HttpBackend, trusting
from yarnstore.backends.trust import usual_trust
from yarnstore.errors import BackendError, ConfigError

on_openssl = pytest.mark.skipif(
    sys.platform in ("darwin", "win32"), reason="the system itself checks certificates"
)


@on_openssl
def test_what_the_system_trusts_is_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tls, _ = self_signed(tmp_path / "tls")

    def load(context: ssl.SSLContext, purpose: ssl.Purpose = ssl.Purpose.SERVER_AUTH) -> None:
        context.load_verify_locations(cafile=tmp_path / "tls" / "cert.pem")

    with ScriptedServer([Reply(body=b"ok")], tls=tls) as server:
        backend = HttpBackend(server.url)
        with pytest.raises(BackendError, match="certificate"):
            backend.get("registry.json", limit_bytes=10)
        backend.close()
        monkeypatch.setattr(ssl.SSLContext, "load_default_certs", load)  # as if it were installed
        backend = HttpBackend(server.url)
        found = backend.get("registry.json", limit_bytes=10)
        assert found is not None
        assert found.data == b"ok"
        backend.close()


@on_openssl
def test_those_of_certifi_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)  # they replace certifi's
    self_signed(tmp_path / "tls")
    usual = ssl.create_default_context(cafile=certifi.where()).get_ca_certs(binary_form=True)
    for context in (usual_trust(), trusting(str(tmp_path / "tls" / "cert.pem"))):
        assert set(usual) <= set(context.get_ca_certs(binary_form=True))
        assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)


@on_openssl
@pytest.mark.parametrize("name", ["SSL_CERT_FILE", "SSLKEYLOGFILE"])
def test_a_file_of_the_environment_that_cannot_be_used_is_no_fault_of_the_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    self_signed(tmp_path / "tls")
    monkeypatch.setenv(name, str(tmp_path / "nowhere" / "file"))
    with Store.open(tmp_path / "home") as store, pytest.raises(ConfigError, match="https cannot be") as told:
        store.add_registry("r", "https://127.0.0.1:9/")
    assert name in told.value.hint
    with pytest.raises(ConfigError, match="https cannot be"):
        trusting(str(tmp_path / "tls" / "cert.pem"))
