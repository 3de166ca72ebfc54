"""An older file restored: a process that saw newer data reports it; no fence is issued twice."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from afterword.shared.ledger.ledger import Ledger
from afterword.shared.settings import RedisSettings, Settings
from afterword.workers.background.rollback_detector import RollbackDetector, SeenFile, place_of
from tests.kit.ledger.builder import (
    LedgerInspector,
    claim_job,
    claim_lane,
    submit_and_answer,
    submit_job,
)
from tests.kit.servers.valkey import Valkey

pytestmark = [pytest.mark.redis, pytest.mark.faults]


@pytest.fixture
def own() -> Iterator[Valkey]:
    with Valkey("--appendonly", "yes") as server:
        yield server


@pytest.fixture
def settings(own: Valkey, namespace: str) -> Settings:
    return Settings(redis_url=own.url, namespace=namespace, memory="embedded")


@pytest.fixture
def file(tmp_path: Path) -> SeenFile:
    return SeenFile(tmp_path / "state", "name", "here")


def _critical(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [one.message for one in caplog.records if one.levelno == logging.CRITICAL]


async def test_an_older_file_put_back_is_noticed(
    ledger: Ledger, own: Valkey, file: SeenFile, caplog: pytest.LogCaptureFixture
) -> None:
    rollback_detector = RollbackDetector(ledger.maintenance, file)
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
    ledger: Ledger,
    own: Valkey,
    inspector: LedgerInspector,
    file: SeenFile,
    caplog: pytest.LogCaptureFixture,
) -> None:
    rollback_detector = RollbackDetector(ledger.maintenance, file)
    await rollback_detector.check()
    for _ in range(3):
        await submit_job(ledger)
        await rollback_detector.check()
    own.restart()
    await rollback_detector.check()

    assert not _critical(caplog)


def _set_back(inspector: LedgerInspector, number: int) -> None:
    """Let the ledger be what it was when its counter stood there."""
    inspector.redis.set(inspector.keys.sequence, number)
    inspector.redis.zremrangebyscore(inspector.keys.witnesses, number + 1, "+inf")


@pytest.mark.finding(35)
async def test_a_worker_that_starts_on_an_older_ledger_than_it_last_saw_says_so(
    ledger: Ledger, inspector: LedgerInspector, file: SeenFile, caplog: pytest.LogCaptureFixture
) -> None:
    await RollbackDetector(ledger.maintenance, file).check()
    for _ in range(3):
        await submit_job(ledger)
    await RollbackDetector(ledger.maintenance, file).check()
    _set_back(inspector, 1)

    await RollbackDetector(ledger.maintenance, file).check()
    await RollbackDetector(ledger.maintenance, file).check()

    [alarm] = _critical(caplog)
    assert "from number 3 to 1," in alarm
    assert inspector.redis.get(inspector.keys.put_back) == "1"
    assert int(inspector.redis.get(inspector.keys.sequence)) > 3


@pytest.mark.finding(35)
async def test_an_older_ledger_that_producers_went_on_filling_is_noticed_all_the_same(
    ledger: Ledger, inspector: LedgerInspector, file: SeenFile, caplog: pytest.LogCaptureFixture
) -> None:
    await submit_job(ledger)
    await RollbackDetector(ledger.maintenance, file).check()
    await submit_job(ledger)
    await RollbackDetector(ledger.maintenance, file).check()
    _set_back(inspector, 1)
    for _ in range(5):
        await submit_job(ledger)

    await RollbackDetector(ledger.maintenance, file).check()

    assert len(_critical(caplog)) == 1
    assert inspector.redis.get(inspector.keys.put_back) == "6"


@pytest.mark.finding(35)
async def test_a_turn_of_an_older_ledger_is_looked_for_before_it_is_added(
    ledger: Ledger, inspector: LedgerInspector, file: SeenFile
) -> None:
    old = [await submit_and_answer(ledger) for _ in range(2)]
    await RollbackDetector(ledger.maintenance, file).check()
    number = int(inspector.redis.get(inspector.keys.sequence))
    await submit_job(ledger, user_id="bob")
    await RollbackDetector(ledger.maintenance, file).check()
    _set_back(inspector, number)
    await RollbackDetector(ledger.maintenance, file).check()
    new = await submit_and_answer(ledger)

    claim = await claim_lane(ledger)

    assert [(turn.id, turn.batch) for turn in claim.turns] == [
        *((turn, (turn,)) for turn in old),
        (new, ()),
    ]
    assert [await ledger.turns.begin(claim, turn.id) for turn in claim.turns] == [True, True, False]


@pytest.mark.finding(35)
async def test_a_folder_that_cannot_be_written_is_reported_once(
    ledger: Ledger, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "state").write_text("no folder")
    detector = RollbackDetector(ledger.maintenance, SeenFile(tmp_path / "state", "name", "here"))
    for _ in range(2):
        await submit_job(ledger)
        await detector.check()

    assert [one.levelname for one in caplog.records].count("WARNING") == 1


@pytest.mark.parametrize("text", ["", "{", "[]", '{"numbers": {"a": 1}}', '{"witness": ""}'])
async def test_a_file_that_cannot_be_read_says_nothing(
    ledger: Ledger, tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str
) -> None:
    (tmp_path / "ledger-name.json").write_text(text)

    await RollbackDetector(ledger.maintenance, SeenFile(tmp_path, "name", "here")).check()

    assert not _critical(caplog)


async def _start_worker(settings: Settings, folder: Path) -> None:
    """Do what a worker does that starts: found the ledger, and compare it with what was seen."""
    async with Ledger(settings, patience_s=5.0) as ledger:
        await ledger.check(founds=True)
        assert ledger.identity is not None
        await submit_job(ledger)
        file = SeenFile(folder, ledger.identity.name, place_of(settings))
        await RollbackDetector(ledger.maintenance, file).check()


async def test_an_empty_redis_in_the_place_of_a_ledger_is_told_once(
    settings: Settings, own: Valkey, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await _start_worker(settings, tmp_path)
    await _start_worker(settings, tmp_path)
    assert not _critical(caplog)
    with own.client() as redis:
        redis.flushall()

    await _start_worker(settings, tmp_path)
    await _start_worker(settings, tmp_path)

    [alarm] = _critical(caplog)
    assert alarm.startswith("the ledger is new, and another one was in its place, up to number 2")


@pytest.mark.parametrize("change", [{"namespace": "other"}, {"redis_url": "/1"}])
async def test_a_ledger_in_another_place_replaces_none(
    settings: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture, change: dict[str, str]
) -> None:
    await _start_worker(settings, tmp_path)
    if "redis_url" in change:
        change = {"redis_url": str(settings.redis_url).replace("/0", change["redis_url"])}

    await _start_worker(settings.model_copy(update=change), tmp_path)

    assert not _critical(caplog)


async def test_a_folder_that_knows_nothing_makes_no_alarm(
    settings: Settings, own: Valkey, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await _start_worker(settings, tmp_path / "lost")
    with own.client() as redis:
        redis.flushall()
    await _start_worker(settings, tmp_path / "new")
    assert not _critical(caplog)


def test_a_place_has_the_same_name_for_every_user_and_password() -> None:
    urls = ["redis://h:1/0", "redis://:secret@h:1/0", "redis://u:other@h:1/0"]
    assert len({place_of(RedisSettings(redis_url=url)) for url in urls}) == 1
