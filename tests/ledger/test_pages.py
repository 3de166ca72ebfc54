"""Every list is read page by page: each row once, whatever comes or goes meanwhile."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest

from afterword.producer import AsyncOperator, DeadLetterFilter
from afterword.shared.errors import Fault, InvalidRequest
from afterword.shared.ledger.dead_letter_records import DeadLetterKind, ReplayPace
from afterword.shared.ledger.ledger import Ledger
from afterword.shared.ledger.records import UnrecognisedMessage
from afterword.shared.settings import Settings
from tests.kit.command_line import Printed, afterword
from tests.kit.ledger.builder import (
    LedgerInspector,
    claim_lane,
    lane_of,
    submit_and_answer,
    submit_and_claim,
)

pytestmark = pytest.mark.redis

#: More than two pages of two.
ROWS = 5

Page = Callable[[str | None], Awaitable[list[str]]]


@pytest.fixture
async def operator(settings: Settings) -> AsyncIterator[AsyncOperator]:
    async with AsyncOperator(settings, by="olga") as opened:
        yield opened


async def pages(page: Page) -> list[list[str]]:
    """Return the ids of all pages, the last of which is empty."""
    found = [await page(None)]
    while found[-1]:
        found.append(await page(found[-1][-1]))
        assert len(found) < 2 * ROWS
    return found


def each_once(found: list[list[str]]) -> list[str]:
    """Return all ids of full pages, none of which comes twice."""
    assert [len(page) for page in found] == [2, 2, 1, 0]
    ids = [one for page in found for one in page]
    assert len(set(ids)) == ROWS
    return ids


@pytest.fixture
async def letters(ledger: Ledger, inspector: LedgerInspector) -> list[str]:
    """Bury turns and fail jobs, the last four in one millisecond; return their ids in order."""
    turns = [await submit_and_answer(ledger, f"turn {number}") for number in range(3)]
    held = await claim_lane(ledger, lane_of("ann"))
    for turn in turns:
        await ledger.turns.begin(held, turn)
        await ledger.turns.bury(held, turn, "rejected", Fault.REQUEST, "0.1.0")
    failed = [await submit_and_claim(ledger, f"job {number}") for number in range(2)]
    for job in failed:
        await ledger.jobs.fail(job, "too_large")
    keys, (first, *same) = inspector.keys, [*turns, *(job.job_id for job in failed)]
    now = inspector.redis.zscore(keys.dead_turns, first)
    for letter in same:
        listed = keys.dead_turns if letter in turns else keys.failed_jobs
        inspector.redis.zadd(listed, {letter: now + 1})
    return [first, *sorted(same)]


async def test_dead_letters(operator: AsyncOperator, letters: list[str]) -> None:
    async def page(after: str | None) -> list[str]:
        chosen = operator.dead_letters(DeadLetterFilter(limit=2), after=after)
        return [letter.id async for letter in chosen]

    assert each_once(await pages(page)) == letters


async def test_dead_letters_of_a_filter(operator: AsyncOperator, letters: list[str]) -> None:
    chosen = operator.dead_letters(DeadLetterFilter(kind=DeadLetterKind.REPLY), after=letters[0])
    assert len([letter.id async for letter in chosen]) == 2


async def test_a_dead_letter_that_left_is_no_place(
    operator: AsyncOperator, letters: list[str]
) -> None:
    await operator.discard(DeadLetterFilter(ids=(letters[1],)), apply=True)
    for nothing in (letters[1], "j00_" + "0" * 32, "letter"):
        with pytest.raises(InvalidRequest) as caught:
            _ = [letter async for letter in operator.dead_letters(after=nothing)]
        assert caught.value.field == "after"


async def begin_runs(ledger: Ledger, letters: list[str]) -> list[str]:
    """Begin runs, some of them in one millisecond; return their ids, the newest first."""
    chosen = [letter.ref async for letter in ledger.dead_letters.select()]
    begun = [
        await ledger.replay_runs.begin(
            chosen, by="olga", criteria={}, pace=ReplayPace(), token=f"t{number}"
        )
        for number in range(ROWS)
    ]
    assert len(chosen) == len(letters)
    return begun


async def test_replay_runs(
    ledger: Ledger, inspector: LedgerInspector, operator: AsyncOperator, letters: list[str]
) -> None:
    begun = await begin_runs(ledger, letters)
    inspector.redis.zadd(inspector.keys.replay_runs, dict.fromkeys(begun[:3], 5))
    inspector.redis.zadd(inspector.keys.replay_runs, dict.fromkeys(begun[3:], 7))

    async def page(after: str | None) -> list[str]:
        return [run.id for run in await operator.replay_runs(2, after=after)]

    ids = each_once(await pages(page))
    assert set(ids[:2]) == set(begun[3:])
    with pytest.raises(InvalidRequest, match="after: is no run"):
        await operator.replay_runs(2, after="r0")


async def test_the_audit(ledger: Ledger, operator: AsyncOperator) -> None:
    for number in range(ROWS):
        await ledger.replay_runs.add_audit_entry("olga", f"do-{number}", {}, f"t{number}")

    async def page(after: str | None) -> list[str]:
        if after is not None:  # what comes meanwhile is newer than all that was given
            await ledger.replay_runs.add_audit_entry("olga", "later", {}, after)
        return [entry.id for entry in await operator.audit(2, after=after)]

    each_once(await pages(page))


async def test_the_audit_of_one_operator_and_one_action(
    ledger: Ledger, operator: AsyncOperator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("afterword.shared.ledger.replay_runs._AUDIT_PAGE", 2)
    for number in range(ROWS):
        for by, action in (("olga", "replay"), ("ben", "discard"), ("ben", "replay")):
            await ledger.replay_runs.add_audit_entry(by, action, {}, f"{by}{action}{number}")

    async def page(after: str | None) -> list[str]:
        found = await operator.audit(2, after=after, by="ben", action="replay")
        assert {(entry.by, entry.action) for entry in found} <= {("ben", "replay")}
        return [entry.id for entry in found]

    each_once(await pages(page))
    assert len(await operator.audit(by="ben")) == 2 * ROWS
    assert await operator.audit(by="nobody") == []


async def test_notes_of_the_quarantine(ledger: Ledger) -> None:
    for number in range(ROWS):
        await ledger.quarantine.add(
            UnrecognisedMessage("replies", "not_a_hint", number, "0" * 64, "")
        )

    async def page(after: str | None) -> list[str]:
        return [note.id for note in await ledger.quarantine.newest(2, after=after)]

    each_once(await pages(page))


@dataclass(frozen=True)
class Listed:
    """A command that lists, and the field of a row that goes on the command line as `--after`."""

    command: str
    field: str = "id"


LISTS = [
    Listed("dead list --limit 2"),
    Listed("dead runs --limit 2"),
    Listed("audit --limit 2"),
    Listed("quarantine list --limit 2"),
]


@pytest.fixture
def env(settings: Settings) -> dict[str, str]:
    return {
        "AFTERWORD_REDIS_URL": str(settings.redis_url),
        "AFTERWORD_NAMESPACE": settings.namespace,
        "AFTERWORD_DURABILITY": "none",
    }


async def test_commands_say_how_their_lists_go_on(
    ledger: Ledger, letters: list[str], env: dict[str, str]
) -> None:
    await begin_runs(ledger, letters)  # each adds an entry to the audit
    for number in range(ROWS):
        await ledger.quarantine.add(
            UnrecognisedMessage("replies", "not_a_hint", number, "0" * 64, "")
        )
    for listed in LISTS:
        rows: list[str] = []
        told = await asyncio.to_thread(_read, listed, env, rows)
        while told:
            told = await asyncio.to_thread(_read, listed, env, rows, *told)
        assert len(set(rows)) == len(rows) == ROWS, listed.command


def _read(listed: Listed, env: dict[str, str], rows: list[Any], *after: str) -> tuple[str, ...]:
    """Add the ids of one page, as a person reads it; return the option of the next page."""
    words = (*listed.command.split(), *after)
    shown, printed = afterword(*words, env=env), afterword(*words, "--json", env=env)
    assert (shown.code, printed.code) == (0, 0), shown.stderr
    rows += [row[listed.field] for row in json.loads(printed.stdout)[:2]]
    return _told(shown)


def _told(shown: Printed) -> tuple[str, ...]:
    words = shown.stderr.split()
    return (words[at := words.index("--after")], words[at + 1]) if "--after" in words else ()


def test_a_wrong_place_is_named(env: dict[str, str]) -> None:
    for listed in LISTS:
        refused = afterword(*listed.command.split(), "--after", "\udcff", env=env)
        assert refused.code == 2
        assert "--after" in refused.stderr.splitlines()[-1]
