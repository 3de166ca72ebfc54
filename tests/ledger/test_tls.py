"""A Redis behind TLS, as its providers have it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from afterword.shared.errors import LedgerUnavailable
from afterword.shared.ledger.ledger import Ledger
from afterword.shared.settings import Settings
from tests.kit.ledger.builder import LedgerInspector, chat_request, is_broken, submit_job
from tests.kit.servers.certificate import needs_openssl, server_context
from tests.kit.servers.faulty_proxy import FaultyProxy
from tests.kit.servers.valkey import Valkey
from tests.kit.waiting import until

pytestmark = [pytest.mark.redis, needs_openssl]


@pytest.fixture
async def line(valkey: Valkey, certificate: Path) -> AsyncIterator[FaultyProxy]:
    async with FaultyProxy(valkey.port, server_context(certificate)) as opened:
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
        await until(lambda: is_broken(ledger._pipelines[0]._reconnector), "the line is cut")
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
