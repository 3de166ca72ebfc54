"""A Redis behind TLS, as its providers have it."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from afterword.shared.errors import LedgerUnavailable
from afterword.shared.ledger.ledger import Ledger
from afterword.shared.settings import Settings
from tests.kit.ledger.builder import LedgerInspector, chat_request, is_broken, submit_job
from tests.kit.servers.faulty_proxy import FaultyProxy
from tests.kit.servers.valkey import Valkey
from tests.kit.waiting import until

pytestmark = [
    pytest.mark.redis,
    pytest.mark.skipif(shutil.which("openssl") is None, reason="makes a certificate with openssl"),
]

_CERTIFICATE = (
    "openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=test "
    "-addext subjectAltName=IP:127.0.0.1 -keyout key.pem -out cert.pem"
)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(_CERTIFICATE.split(), cwd=folder, check=True, capture_output=True)
    return folder / "cert.pem"


@pytest.fixture
async def line(valkey: Valkey, certificate: Path) -> AsyncIterator[FaultyProxy]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, certificate.with_name("key.pem"))
    async with FaultyProxy(valkey.port, context) as opened:
        yield opened


@pytest.fixture
def settings(line: FaultyProxy, certificate: Path, namespace: str) -> Settings:
    url = f"{line.url}?ssl_ca_certs={certificate}"
    return Settings(redis_url=url, namespace=namespace, memory="embedded")


@pytest.fixture
def inspector(settings: Settings, valkey: Valkey) -> LedgerInspector:
    return LedgerInspector(settings.model_copy(update={"redis_url": valkey.url}))


async def test_jobs_are_accepted_over_tls_and_over_the_next_line_too(
    settings: Settings, line: FaultyProxy, inspector: LedgerInspector
) -> None:
    async with Ledger(settings, patience_s=5.0) as ledger:
        message = "a" * 50_000  # more than one record of TLS
        before = await submit_job(ledger, message)
        line.cut()
        await until(lambda: is_broken(ledger._pipeline._reconnector), "the line is cut")
        after = await submit_job(ledger, message)
        request = chat_request()
        told = await ledger.jobs.submit_many((ledger.jobs.new_id(request), request) for _ in "abc")

    ids = [one.job_id for one in told if not isinstance(one, Exception)]
    assert inspector.hinted("replies.3") == [before, after, *ids]


async def test_an_untrusted_certificate_is_refused(settings: Settings, line: FaultyProxy) -> None:
    strange = settings.model_copy(update={"redis_url": line.url})
    async with Ledger(strange, patience_s=0.5) as ledger:
        with pytest.raises(LedgerUnavailable, match=r"0\.5 s"):
            await submit_job(ledger)
