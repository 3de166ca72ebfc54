"""The sweep: lost or due work gets a hint again, and nothing else does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from afterword.shared.contracts import RECORD_VERSION
from afterword.shared.ledger.jobs import Jobs
from afterword.shared.ledger.ledger import Ledger
from afterword.shared.ledger.maintenance import SWEEP_LIMIT, Maintenance
from afterword.shared.ledger.records import SweepCounts, TaskHealth
from afterword.shared.ledger.shard import Shards
from afterword.shared.lifecycle import JobState
from afterword.shared.settings import Settings
from afterword.shared.transport.pipeline import Pipeline
from afterword.shared.version import __version__
from tests.kit.ledger.builder import (
    LedgerInspector,
    chat_request,
    claim_job,
    claim_lane,
    lane_of,
    submit_and_answer,
    submit_and_claim,
    submit_job,
    submit_request,
)

pytestmark = pytest.mark.redis

PAST_GRACE_S = 6.0
PAST_LEASE_S = 31.0


async def test_a_fresh_ledger_has_nothing_to_sweep(ledger: Ledger) -> None:
    assert await ledger.maintenance.sweep() == SweepCounts()


async def test_lost_hints_are_hinted_again_after_the_grace(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    job_id = await submit_job(ledger)
    await submit_and_answer(ledger, user_id="bob")
    inspector.drop_hints()

    assert (await ledger.maintenance.sweep()).hinted_again == 0
    assert inspector.hinted("replies.3") == []
    inspector.pass_time(PAST_GRACE_S)
    assert (await ledger.maintenance.sweep()).hinted_again == 2
    assert inspector.hinted("replies.3") == [job_id]
    assert inspector.hinted("memories.0") == [lane_of("bob")]


async def test_a_hint_that_still_stands_in_its_queue_is_not_doubled(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    ids = await asyncio.gather(*(submit_job(ledger, user_id=f"u{n}") for n in range(1000)))

    for _ in range(3):
        inspector.pass_time(PAST_GRACE_S)
        assert await ledger.maintenance.sweep() == SweepCounts()
        await claim_job(ledger, inspector.pop_hint("replies.3"))

    assert len(inspector.hinted("replies.3")) == len(ids) - 3


async def test_a_single_lost_hint_is_found_behind_those_taken_up(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    lost = await submit_job(ledger, "lost")
    inspector.pop_hint("replies.3")
    inspector.pass_time(PAST_GRACE_S)
    later = [await submit_job(ledger) for _ in range(2)]

    assert (await ledger.maintenance.sweep()).hinted_again == 0
    await claim_job(ledger, inspector.pop_hint("replies.3"))
    assert (await ledger.maintenance.sweep()).hinted_again == 1
    assert inspector.hinted("replies.3") == [later[1], lost]


async def test_a_hint_that_was_taken_before_older_ones_makes_none_of_them_lost(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    for _ in range(2):
        await submit_job(ledger)
    inspector.pass_time(PAST_GRACE_S)
    newest = await submit_job(ledger)

    assert await ledger.jobs.claim(newest, "token", ahead=True)
    assert await ledger.maintenance.sweep() == SweepCounts()


class Elsewhere:
    """A broker on another server, and the messages sent to it."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, str]] = []

    def send(self, hints: Sequence[tuple[str, str]]) -> None:
        self.sent.extend(hints)


@pytest.fixture
async def far(settings: Settings) -> AsyncIterator[tuple[Elsewhere, Jobs, Maintenance]]:
    broker, pipeline = Elsewhere(), Pipeline(str(settings.redis_url), patience_s=5.0)
    shards = Shards(settings, [pipeline], broker.send)
    yield broker, Jobs(shards), Maintenance(shards)
    await pipeline.aclose()


async def test_hints_for_a_broker_elsewhere_are_sent_by_the_caller(
    far: tuple[Elsewhere, Jobs, Maintenance], inspector: LedgerInspector
) -> None:
    broker, jobs, _ = far
    job_id = jobs.new_id(chat_request())

    await submit_request(jobs, job_id, chat_request())

    assert broker.sent == [("replies.3", job_id)]
    assert inspector.hinted("replies.3") == []


async def test_a_hint_lost_elsewhere_is_sent_again_though_nothing_else_happens(
    far: tuple[Elsewhere, Jobs, Maintenance], inspector: LedgerInspector
) -> None:
    broker, jobs, upkeep = far
    ids = [jobs.new_id(chat_request()) for _ in range(3)]
    for job_id in ids:
        await submit_request(jobs, job_id, chat_request())
        inspector.pass_time(1)
    broker.sent.clear()

    inspector.pass_time(PAST_GRACE_S)
    assert (await upkeep.sweep()).hinted_again == 0
    inspector.pass_time(60)
    assert (await upkeep.sweep()).hinted_again == 1
    assert broker.sent == [("replies.3", ids[0])]
    assert await jobs.claim(ids[0], "token") is not None
    assert (await upkeep.sweep()).hinted_again == 2


async def test_a_snoozed_job_is_hinted_when_it_is_due(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    held = await submit_and_claim(ledger)
    await ledger.jobs.snooze(held, 10, counted=False)
    inspector.drop_hints()

    assert (await ledger.maintenance.sweep()).woken == 0
    inspector.pass_time(11)
    assert (await ledger.maintenance.sweep()).woken == 1
    assert inspector.hinted("replies.3") == [held.job_id]
    assert inspector.places(held.job_id) == [("hinted", "replies.3")]


async def test_a_lapsed_job_is_queued_and_hinted(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    held = await submit_and_claim(ledger)
    inspector.drop_hints()

    assert (await ledger.maintenance.sweep()).taken_back == 0
    inspector.pass_time(PAST_LEASE_S)
    assert (await ledger.maintenance.sweep()).taken_back == 1
    assert (await ledger.queries.status(held.job_id)).state is JobState.QUEUED
    assert inspector.hinted("replies.3") == [held.job_id]
    assert (await claim_job(ledger, held.job_id)).attempt == 2


async def test_a_lapsed_lane_is_taken_from_its_writer_and_hinted(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    await submit_and_answer(ledger)
    old = await claim_lane(ledger)
    inspector.drop_hints()

    inspector.pass_time(PAST_LEASE_S)
    assert (await ledger.maintenance.sweep()).taken_back == 1

    assert inspector.hinted("memories.0") == [lane_of()]
    assert await ledger.jobs.renew_leases([(old.lane, old.fence)]) == [old.lane]
    assert int((await claim_lane(ledger)).fence.split(".")[0]) > int(old.fence.split(".")[0])


async def test_jobs_past_their_deadline_expire(ledger: Ledger, inspector: LedgerInspector) -> None:
    queued, running = (
        await submit_job(ledger, expires_in=10),
        await submit_and_claim(ledger, expires_in=10),
    )
    inspector.pass_time(11)

    assert (await ledger.maintenance.sweep()).expired == 2

    for job_id in (queued, running.job_id):
        assert (await ledger.queries.status(job_id)).state is JobState.EXPIRED


async def test_one_sweep_is_bounded(ledger: Ledger, inspector: LedgerInspector) -> None:
    over = 5
    await asyncio.gather(*(submit_job(ledger, user_id=f"u{n}") for n in range(SWEEP_LIMIT + over)))
    inspector.drop_hints()
    inspector.pass_time(PAST_GRACE_S)

    assert (await ledger.maintenance.sweep()).hinted_again == SWEEP_LIMIT
    await claim_job(ledger, inspector.pop_hint("replies.3"))
    assert (await ledger.maintenance.sweep()).hinted_again == over


async def test_expiry_is_bounded_too(ledger: Ledger, inspector: LedgerInspector) -> None:
    many = (submit_job(ledger, user_id=f"u{n}", expires_in=10) for n in range(SWEEP_LIMIT + 5))
    await asyncio.gather(*many)
    inspector.pass_time(11)

    assert (await ledger.maintenance.sweep()).expired == SWEEP_LIMIT
    assert (await ledger.maintenance.sweep()).expired == 5


async def test_records_that_are_missing_do_not_break_it(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    lapsed, open_one, hinted = (
        await submit_and_claim(ledger),
        await submit_job(ledger),
        await submit_job(ledger),
    )
    snoozed = await submit_and_claim(ledger)
    await ledger.jobs.snooze(snoozed, 1, counted=False)
    gone = [lapsed.job_id, open_one, hinted, snoozed.job_id]
    inspector.redis.delete(*map(inspector.keys.job, gone))
    alive = await submit_and_claim(ledger, user_id="bob")
    inspector.drop_hints()
    inspector.pass_time(PAST_LEASE_S)

    await ledger.maintenance.sweep()
    assert alive.job_id in inspector.hinted("replies.3")
    inspector.drop_hints()
    inspector.pass_time(PAST_LEASE_S)
    await ledger.maintenance.sweep()

    assert inspector.hinted("replies.3") == [alive.job_id]
    assert [inspector.places(name) for name in gone] == [[]] * 4


async def test_two_sweepers_do_the_work_of_one(ledger: Ledger, inspector: LedgerInspector) -> None:
    job_id = await submit_job(ledger)
    inspector.drop_hints()
    inspector.pass_time(PAST_GRACE_S)

    await asyncio.gather(*(ledger.maintenance.sweep() for _ in range(5)))

    assert inspector.hinted("replies.3") == [job_id]


async def test_a_held_record_is_looked_at_again(ledger: Ledger, inspector: LedgerInspector) -> None:
    job_id = await submit_job(ledger)
    inspector.redis.hset(inspector.keys.job(job_id), "version", RECORD_VERSION + 1)
    await ledger.jobs.claim(job_id, "old worker")
    inspector.drop_hints()

    inspector.pass_time(61)
    await ledger.maintenance.sweep()

    assert inspector.hinted("replies.3") == [job_id]


async def test_a_worker_is_seen_by_its_heartbeat(ledger: Ledger) -> None:
    await ledger.maintenance.record_heartbeat("replies", "host:1", [])
    await ledger.maintenance.record_heartbeat("memories", "host:2", [])

    (seen,) = await ledger.maintenance.overview()
    assert {(one.queue, one.name, one.version, one.tasks) for one in seen.workers} == {
        ("replies", "host:1", __version__, ()),
        ("memories", "host:2", __version__, ()),
    }


async def test_a_worker_without_a_heartbeat_for_an_hour_is_forgotten(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    await ledger.maintenance.record_heartbeat("replies", "host:1", [])
    inspector.redis.zincrby(inspector.keys.workers, -3_600_001, "replies host:1")

    await ledger.maintenance.record_heartbeat("replies", "host:2", [])

    (seen,) = await ledger.maintenance.overview()
    assert [one.name for one in seen.workers] == ["host:2"]
    assert inspector.redis.hkeys(inspector.keys.worker_status) == ["replies host:2"]


async def test_a_heartbeat_says_which_periodic_tasks_fail_until_none_does(ledger: Ledger) -> None:
    failing = TaskHealth("sweep", "failing", 3, 0.2, None)
    await ledger.maintenance.record_heartbeat("replies", "host:1", [failing])
    await ledger.maintenance.record_heartbeat("replies", "host:2", [])

    (seen,) = await ledger.maintenance.overview()
    assert {one.name: one.tasks for one in seen.workers} == {"host:1": (failing,), "host:2": ()}

    await ledger.maintenance.record_heartbeat("replies", "host:1", [])

    (seen,) = await ledger.maintenance.overview()
    assert {one.name: one.tasks for one in seen.workers} == {"host:1": (), "host:2": ()}


@pytest.mark.parametrize(
    "told", ["{", "[1]", '{"tasks": [{"name": "sweep", "state": "unheard of"}]}']
)
async def test_a_heartbeat_in_a_newer_form_is_left_out(
    ledger: Ledger, inspector: LedgerInspector, told: str
) -> None:
    await ledger.maintenance.record_heartbeat("replies", "host:1", [])
    inspector.redis.hset(inspector.keys.worker_status, "replies host:1", told)

    (seen,) = await ledger.maintenance.overview()
    assert [one.tasks for one in seen.workers] == [()]


async def test_the_overview_counts_what_is_open_late_and_dead(ledger: Ledger) -> None:
    await submit_job(ledger)
    await submit_and_claim(ledger, user_id="bob")
    await submit_and_answer(ledger, user_id="cyd")

    (seen,) = await ledger.maintenance.overview()

    assert seen.open_jobs == 2
    assert seen.counts["job:queued:default"] == 1
    replies = next(agenda for agenda in seen.agendas if agenda.name == "replies.3")
    assert (replies.hinted, replies.waiting, replies.leased, replies.messages) == (1, 0, 1, 3)
    lanes = next(agenda for agenda in seen.agendas if agenda.name == "memories.0")
    assert (lanes.hinted, lanes.messages) == (1, 1)
