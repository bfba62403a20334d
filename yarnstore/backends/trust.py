"""The certificates that are trusted for https: the usual ones and the system's."""

from __future__ import annotations

import ssl
import sys

import httpx

from yarnstore.errors import ConfigError

# The files that httpx and Python use for https.
_HINT = (
    "SSL_CERT_FILE in the environment must name a PEM file of certificates, SSLKEYLOGFILE a file that can be "
    "written; without them, install certifi again"
)


def usual_trust(*, trust_env: bool = True) -> ssl.SSLContext:
    """Return a context that trusts the certificates of certifi and those that the system trusts.

    So a certificate authority that a company installed on its machines is trusted.  On macOS and Windows the
    system itself checks certificates.  SSL_CERT_FILE and SSL_CERT_DIR replace those of certifi.

    Raises: ConfigError if they cannot be read.
    """
    if sys.platform in ("darwin", "win32"):
        import truststore  # not installed elsewhere

        return truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context = httpx.create_ssl_context(trust_env=trust_env)
        context.load_default_certs()
    except OSError as error:  # ssl.SSLError is one
        raise ConfigError(f"https cannot be prepared: {error}", hint=_HINT) from None
    return context
