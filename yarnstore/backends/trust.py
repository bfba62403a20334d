"""The certificates that are trusted for https: the usual ones and the system's."""

from __future__ import annotations

import ssl
import sys

import httpx


def usual_trust(*, trust_env: bool = True) -> ssl.SSLContext:
    """Return a context that trusts the certificates of certifi and those that the system trusts.

    So a certificate authority that a company installed on its machines is trusted.  On macOS and Windows the
    system itself checks certificates.  SSL_CERT_FILE and SSL_CERT_DIR replace those of certifi.
    """
    if sys.platform in ("darwin", "win32"):
        import truststore  # not installed elsewhere

        return truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context = httpx.create_ssl_context(trust_env=trust_env)
    context.load_default_certs()
    return context
