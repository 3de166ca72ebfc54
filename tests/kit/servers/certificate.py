"""A certificate that nobody has signed but itself, for servers on loopback."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from pathlib import Path

import pytest

needs_openssl = pytest.mark.skipif(
    shutil.which("openssl") is None, reason="makes a certificate with openssl"
)

_MAKE = (
    "openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=test "
    "-addext subjectAltName=IP:127.0.0.1 -keyout key.pem -out cert.pem"
)


def make_certificate(folder: Path) -> Path:
    """Make a certificate, with its key beside it."""
    subprocess.run(_MAKE.split(), cwd=folder, check=True, capture_output=True)
    return folder / "cert.pem"


def server_context(certificate: Path) -> ssl.SSLContext:
    """Return how a server with this certificate speaks TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, certificate.with_name("key.pem"))
    return context
