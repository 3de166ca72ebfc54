"""Several servers behind TLS: each that is asked or used is verified, and a wrong CA is named."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from redis.crc import key_slot

from afterword.shared.errors import LedgerUnavailable
from afterword.shared.ledger.ledger import Ledger
from afterword.shared.names import Keys
from afterword.shared.settings import Settings
from afterword.shared.transport.causes import WORDS
from tests.kit.ledger.builder import submit_job
from tests.kit.servers.certificate import make_certificate, needs_openssl
from tests.kit.servers.redis_groups import (
    Sentinels,
    bare_cluster,
    one_sentinel,
)
from tests.kit.servers.tls_front import TlsFront
from tests.kit.servers.valkey import Valkey
from tests.kit.waiting import until

pytestmark = [pytest.mark.redis, needs_openssl]


@pytest.fixture(scope="module")
def other_ca(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_certificate(tmp_path_factory.mktemp("other"))


@pytest.fixture(scope="module")
def urls(certificate: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Give a URL of each kind; all servers have the same certificate."""
    with ExitStack() as stack:
        primary = stack.enter_context(Valkey())
        replica = stack.enter_context(Valkey("--replicaof", f"127.0.0.1 {primary.port}"))
        fronts = [
            stack.enter_context(TlsFront(one.port, certificate)) for one in (replica, primary)
        ]
        folder = tmp_path_factory.mktemp("sentinel")
        sentinel = stack.enter_context(one_sentinel(fronts[1].port, folder, quorum=1))
        asked = stack.enter_context(TlsFront(sentinel, certificate))
        nodes = [Valkey(), Valkey()]
        of_nodes = [stack.enter_context(TlsFront(node.port, certificate)) for node in nodes]
        stack.enter_context(bare_cluster(nodes, [front.port for front in of_nodes]))
        # The node that the URL names has not the slot of the ledger's one shard.
        other = of_nodes[0 if key_slot(Keys("tls", 0).root.encode()) >= 8192 else 1]
        yield {
            "hosts": f"rediss://127.0.0.1:{fronts[0].port},127.0.0.1:{fronts[1].port}/0",
            "sentinels": f"rediss+sentinel://127.0.0.1:{asked.port}/{Sentinels.NAME}",
            "cluster": f"rediss+cluster://127.0.0.1:{other.port}",
        }


def settings_of(url: str, ca: Path) -> Settings:
    return Settings(
        redis_url=f"{url}?ssl_ca_certs={ca}",
        broker_url="redis://127.0.0.1:1/0",
        namespace="tls",
        durability="none",
        memory="embedded",
    )


@pytest.mark.parametrize("kind", ["hosts", "sentinels", "cluster"])
async def test_jobs_are_accepted_over_tls(
    urls: dict[str, str], certificate: Path, kind: str
) -> None:
    async with Ledger(settings_of(urls[kind], certificate), patience_s=20.0) as ledger:
        found = await ledger.check(founds=True)
        assert await submit_job(ledger)
        assert await ledger.maintenance.overview()

    assert found.problems == ()


@pytest.mark.parametrize("kind", ["hosts", "sentinels", "cluster"])
async def test_a_wrong_ca_is_named_whoever_shows_the_certificate(
    urls: dict[str, str], other_ca: Path, kind: str
) -> None:
    """By the preflight of every process, and by doctor, which asks the same."""
    settings = settings_of(urls[kind], other_ca)

    async def is_named() -> bool:
        async with Ledger(settings, patience_s=1.0) as ledger:
            for look in (ledger.check, ledger.examine):
                with pytest.raises(LedgerUnavailable) as refused:
                    await look()
                if refused.value.cause != "untrusted_certificate":
                    return False  # a busy machine may have had no time for a handshake
                assert WORDS["untrusted_certificate"] in str(refused.value)
                assert not refused.value.may_be_accepted
        return True

    await until(is_named, "the certificate is refused", 30)
