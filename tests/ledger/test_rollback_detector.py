"""An older file restored: a process that saw newer data reports it; no fence is issued twice."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator

import pytest

from afterword.shared.ledger.ledger import Ledger
from afterword.shared.settings import Settings
from afterword.workers.background.rollback_detector import RollbackDetector
from tests.kit.ledger.builder import LedgerInspector, claim_job, submit_job
from tests.kit.servers.valkey import Valkey

pytestmark = [pytest.mark.redis, pytest.mark.faults]


@pytest.fixture
def own() -> Iterator[Valkey]:
    with Valkey("--appendonly", "yes") as server:
        yield server


@pytest.fixture
def settings(own: Valkey, namespace: str) -> Settings:
    return Settings(redis_url=own.url, namespace=namespace, memory="embedded")


def _critical(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [one.message for one in caplog.records if one.levelno == logging.CRITICAL]


async def test_an_older_file_put_back_is_noticed(
    ledger: Ledger, own: Valkey, caplog: pytest.LogCaptureFixture
) -> None:
    rollback_detector = RollbackDetector(ledger.maintenance)
    first = await submit_job(ledger, user_id="ann")
    own.kill()
    shutil.copytree(own.folder / "appendonlydir", own.folder / "older")
    own.start()
    given = await claim_job(ledger, first)
    await submit_job(ledger, user_id="bob")
    await rollback_detector.check()

    own.kill()
    shutil.rmtree(own.folder / "appendonlydir")
    (own.folder / "older").rename(own.folder / "appendonlydir")
    own.start()
    await rollback_detector.check()
    again = await claim_job(ledger, first)

    [alarm] = _critical(caplog)
    assert "went back" in alarm
    assert int(again.fence) > int(given.fence), "no fence is given twice"
    await rollback_detector.check()
    assert len(_critical(caplog)) == 1


async def test_a_ledger_that_goes_on_is_no_alarm(
    ledger: Ledger, own: Valkey, inspector: LedgerInspector, caplog: pytest.LogCaptureFixture
) -> None:
    rollback_detector = RollbackDetector(ledger.maintenance)
    await rollback_detector.check()
    for _ in range(3):
        await submit_job(ledger)
        await rollback_detector.check()
    own.restart()
    await rollback_detector.check()

    assert not _critical(caplog)
