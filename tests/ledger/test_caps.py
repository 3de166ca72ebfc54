"""What one user, tenant or conversation may have open: capped, and counted through every end."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeAlias

import pytest

from afterword.shared.errors import QueueFull
from afterword.shared.ledger.ledger import Ledger
from afterword.shared.ledger.records import EraseClaim, SubmitResult
from afterword.shared.settings import Settings
from tests.kit.ledger.builder import (
    LedgerInspector,
    chat_request,
    claim_job,
    lane_of,
    reply_to,
    submit_job,
)

pytestmark = [pytest.mark.redis, pytest.mark.finding(13)]

Opened: TypeAlias = Callable[..., Awaitable[Ledger]]


@pytest.fixture
async def opened(settings: Settings) -> AsyncIterator[Opened]:
    """Give what opens a ledger with some settings of its own."""
    ledgers: list[Ledger] = []

    async def open_with(**other: int) -> Ledger:
        ledgers.append(Ledger(settings.model_copy(update=other), patience_s=5.0))
        return ledgers[-1]

    yield open_with
    for ledger in ledgers:
        await ledger.aclose()


#: A cap of two jobs, whose it is, what meets it and what does not.
CAPS: list[tuple[str, str, dict[str, Any], list[dict[str, Any]]]] = [
    (
        "max_open_per_conversation",
        "conversation",
        {"conversation_id": "c"},
        [{"conversation_id": "d"}, {}, {"conversation_id": "c", "user_id": "bob"}],
    ),
    ("max_open_per_user", "user", {}, [{"user_id": "bob"}, {"tenant": "acme"}]),
    ("max_open_per_tenant", "tenant", {"user_id": "carl"}, [{"tenant": "acme"}]),
    (
        "max_high_per_tenant",
        "tenant",
        {"priority": "high"},
        [{"priority": "normal"}, {"priority": "high", "tenant": "acme"}],
    ),
]


@pytest.mark.parametrize(("setting", "scope", "mine", "others"), CAPS)
async def test_a_cap_of_one_is_not_anothers(
    opened: Opened,
    inspector: LedgerInspector,
    setting: str,
    scope: str,
    mine: dict[str, Any],
    others: list[dict[str, Any]],
) -> None:
    ledger = await opened(**{setting: 2})
    first = await submit_job(ledger, **mine)
    await submit_job(ledger, **mine)

    with pytest.raises(QueueFull) as full:
        await submit_job(ledger, **mine)

    variable = f"AFTERWORD_{setting.upper()}"
    assert (full.value.scope, full.value.setting) == (scope, variable)
    assert str(full.value).startswith(f"{variable}: the {scope} may have 2 open jobs")
    for other in others:
        await submit_job(ledger, **other)
    await ledger.jobs.cancel(first)
    await submit_job(ledger, **mine)
    assert inspector.open_counts() == inspector.expected_open_counts()


@pytest.mark.parametrize("scope", ["conversation", "user", "tenant"])
async def test_bytes_are_capped_too(opened: Opened, scope: str) -> None:
    ledger = await opened(**{f"max_bytes_per_{scope}": 1000})
    first = await submit_job(ledger, "x" * 600, conversation_id="c")

    with pytest.raises(QueueFull, match=f"the {scope} may have 1000 bytes of open requests"):
        await submit_job(ledger, "x" * 600, conversation_id="c")
    await submit_job(ledger, "x" * 100, conversation_id="c")
    await ledger.jobs.cancel(first)
    await submit_job(ledger, "x" * 600, conversation_id="c")


async def test_zero_is_no_cap(opened: Opened) -> None:
    names = [name for name in Settings.model_fields if "_per_" in name]
    ledger = await opened(**dict.fromkeys(names, 0))

    for _ in range(5):
        await submit_job(ledger, "x" * 1000, conversation_id="c", priority="high")


async def test_submits_of_one_command_are_counted_in_order(
    opened: Opened, inspector: LedgerInspector
) -> None:
    ledger = await opened(max_open_per_user=3)
    requests = [chat_request(user_id=user) for user in ["ann", "bob"] * 8]
    told = await ledger.jobs.submit_many((ledger.jobs.new_id(one), one) for one in requests)

    assert [isinstance(one, SubmitResult) for one in told] == [True] * 6 + [False] * 10
    assert inspector.open_counts() == inspector.expected_open_counts()


async def test_a_full_conversation_may_be_interrupted(
    opened: Opened, inspector: LedgerInspector
) -> None:
    ledger = await opened(max_open_per_conversation=2, max_queued=2)
    for _ in range(2):
        await submit_job(ledger, conversation_id="c")

    last = await submit_job(ledger, conversation_id="c", when_busy="interrupt")

    assert inspector.redis.zrange(inspector.keys.open, 0, -1) == [last]
    assert inspector.open_counts() == inspector.expected_open_counts()


async def _finish(ledger: Ledger, job_id: str, _: LedgerInspector) -> None:
    claimed = await claim_job(ledger, job_id)
    await ledger.jobs.finish(claimed, reply_to(claimed))


async def _fail(ledger: Ledger, job_id: str, _: LedgerInspector) -> None:
    await ledger.jobs.fail(await claim_job(ledger, job_id), "rejected")


async def _cancel(ledger: Ledger, job_id: str, _: LedgerInspector) -> None:
    await ledger.jobs.cancel(job_id)
    await ledger.jobs.cancel(job_id)


async def _crash(ledger: Ledger, job_id: str, inspector: LedgerInspector) -> None:
    for _ in range(ledger.settings.max_attempts):
        await claim_job(ledger, job_id)
        inspector.make_due(job_id)
        await ledger.maintenance.sweep()
    assert await ledger.jobs.claim(job_id, "last") is None


async def _expire(ledger: Ledger, job_id: str, inspector: LedgerInspector) -> None:
    inspector.outlive(job_id)
    await ledger.maintenance.sweep()


async def _claim_too_late(ledger: Ledger, job_id: str, inspector: LedgerInspector) -> None:
    inspector.outlive(job_id)
    assert await ledger.jobs.claim(job_id, "late") is None


async def _interrupt(ledger: Ledger, job_id: str, _: LedgerInspector) -> None:
    await ledger.jobs.cancel(
        await submit_job(ledger, conversation_id="c", when_busy="interrupt", priority="high")
    )
    assert (await ledger.queries.status(job_id)).code == "interrupted"


async def _erase(ledger: Ledger, _job_id: str, _: LedgerInspector) -> None:
    await ledger.erasures.begin(lane_of(), "test")
    claim = await ledger.turns.claim_lane(lane_of(), "token", max_turns=20)
    assert isinstance(claim, EraseClaim)
    await ledger.erasures.remove_records(claim)


@pytest.mark.parametrize(
    "end", [_finish, _fail, _cancel, _crash, _expire, _claim_too_late, _interrupt, _erase]
)
async def test_every_end_of_a_job_is_counted(
    ledger: Ledger,
    inspector: LedgerInspector,
    end: Callable[[Ledger, str, LedgerInspector], Awaitable[None]],
) -> None:
    stays = await submit_job(ledger, user_id="bob", conversation_id="c", priority="high")
    job_id = await submit_job(ledger, conversation_id="c", priority="high")
    before = inspector.open_counts()
    assert before[":default"].startswith("2 ")

    await end(ledger, job_id, inspector)

    assert inspector.redis.zrange(inspector.keys.open, 0, -1) == [stays]
    assert inspector.open_counts() == inspector.expected_open_counts() != before


async def test_a_job_that_is_found_open_again_is_counted(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    await submit_job(ledger)
    whole = inspector.open_counts()
    inspector.redis.delete(inspector.keys.open, inspector.keys.open_counts)

    fixed = [one.problem async for one in ledger.maintenance.find_inconsistencies(fix=True)]

    assert fixed == ["not_open"]
    assert inspector.open_counts() == whole


async def test_a_job_that_another_program_deleted_counts_until_it_would_have_ended(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    job_id = await submit_job(ledger)
    inspector.redis.delete(inspector.keys.job(job_id))
    inspector.outlive(job_id)

    await ledger.maintenance.sweep()

    assert inspector.open_counts() == {}
