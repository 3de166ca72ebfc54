"""Importing past turns: each once, in order, into the same lanes, and never too many at once."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from afterword.producer import AsyncOperator, ImportCounts, InvalidRequest
from afterword.producer.admin import history
from afterword.shared.clock import utc_now
from afterword.shared.history import HistoryTurn
from afterword.shared.ledger import imports
from afterword.shared.ledger.imports import ImportOutcome
from afterword.shared.ledger.ledger import Ledger
from afterword.shared.ledger.records import EraseClaim
from afterword.shared.lifecycle import JobState, TurnState
from afterword.shared.settings import Settings
from tests.kit.ledger.builder import (
    LedgerInspector,
    claim_lane,
    lane_of,
    submit_and_answer,
    submit_and_claim,
)
from tests.kit.waiting import until

pytestmark = pytest.mark.redis

AT = datetime(2024, 5, 8, 8, tzinfo=UTC)
SECRET = "marmalade"


def past(number: int = 1, **fields: Any) -> dict[str, Any]:
    said = {"user_id": "ann", "message": f"I have {number} cats.", "reply": "Noted."}
    return said | {"at": (AT + timedelta(minutes=number)).isoformat()} | fields


def turn(number: int = 1, **fields: Any) -> HistoryTurn:
    return HistoryTurn.parse(past(number, **fields), max_bytes=65_536, max_tokens=16_000)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "history.jsonl"


def write(file: Path, *lines: object) -> None:
    texts = (line if isinstance(line, str) else json.dumps(line) for line in lines)
    file.write_text("".join(f"{text}\n" for text in texts))


async def test_a_past_turn_stands_in_its_lane_as_one_that_was_answered(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    live = await submit_and_answer(ledger, "now")

    assert await ledger.imports.add(turn(conversation_id="c", timezone="UTC")) is ImportOutcome.NEW

    first, second = (await claim_lane(ledger)).turns
    assert first.id == live
    assert (second.user_text, second.reply_text) == ("I have 1 cats.", "Noted.")
    assert (second.at, second.conversation_id) == (AT + timedelta(minutes=1), "c")
    assert (second.imported, first.imported) == (True, False)
    status = await ledger.queries.status(second.id)
    assert (status.state, status.turn) == (JobState.SUCCEEDED, TurnState.PENDING)
    assert utc_now() - status.created_at < timedelta(hours=1), "its lane is not years late"
    story = await ledger.stories.of(second.id)
    page = await ledger.stories.users.newest("ann", "default", since=None, limit=2, after=None)
    assert (story.memory, page.jobs[0].imported, page.jobs[0].memory) == (None, True, None)
    assert [gap async for gap in ledger.maintenance.find_inconsistencies()] == []
    assert inspector.open_counts() == {}


async def test_the_next_reply_knows_it_before_it_is_stored(ledger: Ledger) -> None:
    await ledger.imports.add(turn())
    held = await submit_and_claim(ledger, "How many cats do I have?")
    assert [said.user_text for said in held.overlay] == ["I have 1 cats."]


async def test_a_turn_is_imported_once(ledger: Ledger, inspector: LedgerInspector) -> None:
    same = [turn(), turn(), turn(key="k"), turn(2, key="k")]
    outcomes = [await ledger.imports.add(one) for one in same]
    assert outcomes == [
        ImportOutcome.NEW,
        ImportOutcome.SAME,
        ImportOutcome.NEW,
        ImportOutcome.SAME,
    ]

    others = [turn(user_id="bob"), turn(tenant="acme"), turn(2), turn(reply=None), turn(key="l")]
    assert {await ledger.imports.add(one) for one in others} == {ImportOutcome.NEW}
    key = inspector.keys.imported(lane_of())
    assert 0 < inspector.redis.pttl(key) <= imports.KEYS_S * 1000


async def test_an_import_waits_for_what_is_to_be_stored(
    ledger: Ledger, inspector: LedgerInspector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(imports, "MOST_WAITING", 2)
    await submit_and_answer(ledger)
    assert await ledger.imports.add(turn(1)) is ImportOutcome.NEW
    assert await ledger.imports.add(turn(2)) is ImportOutcome.WAIT
    assert inspector.counts()["turn:pending:default"] == 2
    assert await ledger.imports.add(turn(2, tenant="acme")) is ImportOutcome.NEW, "another tenant"

    held = await claim_lane(ledger)
    await ledger.turns.begin(held, held.turns[0].id)
    assert await ledger.imports.add(turn(2)) is ImportOutcome.WAIT, "one is being stored"
    await ledger.turns.settle(held, held.turns[0].id, TurnState.STORED)

    assert await ledger.imports.add(turn(2)) is ImportOutcome.NEW


async def test_an_erasure_leaves_nothing_of_an_import(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    await ledger.imports.add(turn(message=SECRET))
    await ledger.erasures.begin(lane_of(), "test")
    assert await ledger.imports.add(turn(2)) is ImportOutcome.ERASED
    held = await ledger.turns.claim_lane(lane_of(), "eraser", max_turns=1)
    assert isinstance(held, EraseClaim)

    await ledger.erasures.remove_records(held)

    assert not inspector.redis.exists(inspector.keys.imported(lane_of()))
    assert not inspector.redis.keys(inspector.keys.user_jobs("*"))
    assert not any(
        SECRET in str(inspector.redis.hgetall(key))
        for key in inspector.redis.scan_iter(inspector.keys.job("*"))
    )


async def test_a_file_is_imported_in_its_order_and_resumed(
    settings: Settings, ledger: Ledger, file: Path
) -> None:
    write(file, *(past(number) for number in range(5)), "", past(5))
    told: list[tuple[int, int]] = []
    async with AsyncOperator(settings) as operator:
        counts = await operator.import_history(
            file, lambda counts, total: told.append((counts.turns, total))
        )
        again = await operator.import_history(file)

    assert (counts, again) == (ImportCounts(imported=6), ImportCounts(known=6))
    assert told == [(number, 6) for number in range(1, 7)]
    texts = [said.user_text for said in (await claim_lane(ledger)).turns]
    assert texts == [f"I have {number} cats." for number in range(6)]


@pytest.mark.parametrize(
    ("line", "place"),
    [
        ("{", "line 2"),
        ("[]", "line 2, request"),
        ('"\\ud800"', "line 2, request"),
        (past(user_id=""), "line 2, user_id"),
        (past(message=" "), "line 2, message"),
        (past(message=SECRET * 20_000), "line 2, message"),
        (past(reply=5), "line 2, reply"),
        (past(at="yesterday"), "line 2, at"),
        (past(at="2024-05-08T08:00:00"), "line 2, at"),
        (past(at="2999-01-01T00:00:00Z"), "line 2, at"),
        (past(timezone="Berlin"), "line 2, timezone"),
        (past(said=SECRET), "line 2, said"),
        ({"message": SECRET}, "line 2, user_id"),
    ],
)
async def test_a_line_that_is_not_valid_is_named_and_nothing_is_written(
    settings: Settings, inspector: LedgerInspector, file: Path, line: object, place: str
) -> None:
    write(file, past(), line, past(3))
    async with AsyncOperator(settings) as operator:
        with pytest.raises(InvalidRequest) as refused:
            await operator.import_history(file)
    assert refused.value.field == f"history.jsonl, {place}"
    assert SECRET not in str(refused.value)
    assert inspector.counts() == {}


async def test_a_file_that_is_not_there_is_named(settings: Settings, file: Path) -> None:
    async with AsyncOperator(settings) as operator:
        with pytest.raises(InvalidRequest) as refused:
            await operator.import_history(file)
    assert refused.value.field == "path"


async def test_an_import_goes_on_when_there_is_room(
    settings: Settings, ledger: Ledger, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(imports, "MOST_WAITING", 1)
    monkeypatch.setattr(history, "_PAUSE_S", 0.001)
    write(file, *(past(number) for number in range(3)))
    stored: list[str] = []

    async def store_one() -> None:
        held = await claim_lane(ledger)
        await ledger.turns.begin(held, held.turns[0].id)
        await ledger.turns.settle(held, held.turns[0].id, TurnState.STORED)
        await ledger.turns.release_lane(held)
        stored.append(held.turns[0].user_text)

    async with AsyncOperator(settings) as operator:
        work = asyncio.create_task(operator.import_history(file))
        for _ in range(3):
            await until(lambda: waiting(ledger), "a turn waits")
            await store_one()
        assert await work == ImportCounts(imported=3)
    assert stored == [f"I have {number} cats." for number in range(3)]


async def test_an_import_that_is_interrupted_is_in_the_audit(
    settings: Settings, ledger: Ledger, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(imports, "MOST_WAITING", 1)
    write(file, past(1), past(2), past(3))
    async with AsyncOperator(settings, by="ann") as operator:
        work = asyncio.create_task(operator.import_history(file))
        await until(lambda: waiting(ledger), "a turn waits")
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work
        assert await told(operator) == [("ann", "import", {"turns": 3})]

        monkeypatch.setattr(imports, "MOST_WAITING", 10)
        await operator.import_history(file)
        counts = {"imported": 2, "known": 1, "erased": 0}
        assert (await told(operator))[1:] == [
            ("ann", "import", {"turns": 3}),
            ("ann", "imported", counts),
        ]


async def told(operator: AsyncOperator) -> list[tuple[str, str, dict[str, Any]]]:
    return [(one.by, one.action, one.details) for one in reversed(await operator.audit())]


async def waiting(ledger: Ledger) -> bool:
    return any(account.users_behind for account in await ledger.accounts.by_tenant(late_s=1.0))
