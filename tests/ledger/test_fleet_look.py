"""One look at a fleet, as `afterword metrics` and `afterword top` take it again and again."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest

from afterword.producer.admin.fleet_metrics import FleetCollector, state_of
from afterword.producer.admin.fleet_status import found_in, look_at
from afterword.shared.ledger.dead_letter_records import (
    DeadLetterKind,
    DeadLetterRef,
    ReplayOutcome,
    ReplayPace,
    ReplayState,
)
from afterword.shared.ledger.ledger import Ledger
from afterword.shared.settings import Settings
from tests.kit.ledger.builder import LedgerInspector, submit_and_answer
from tests.kit.servers.valkey import Valkey

pytestmark = pytest.mark.redis

#: Hashes with the attempts that began in the last hour.
SLOTS = 6


@pytest.fixture
def own() -> Iterator[Valkey]:
    """Give a server of one's own: its statistics are of this test alone."""
    with Valkey() as server:
        yield server


@pytest.fixture
def settings(own: Valkey, namespace: str) -> Settings:
    return Settings(redis_url=own.url, namespace=namespace, durability="none")


async def test_a_look_finds_the_same_as_each_part(ledger: Ledger) -> None:
    for tenant in ("acme", "other"):
        await submit_and_answer(ledger, tenant=tenant)

    found = await look_at(ledger, 60.0)

    assert found.status["turns"] == (await found_in(ledger))["turns"]
    counted = {one.tenant: (one.jobs, one.turns) for one in found.accounts}
    again = await ledger.accounts.by_tenant(late_s=60.0)
    assert counted == {one.tenant: (one.jobs, one.turns) for one in again}
    assert set(counted) == {"acme", "other"}
    assert found.problems == [str(one) for one in (await ledger.examine()).problems]


async def test_a_look_sees_how_far_replays_are(ledger: Ledger) -> None:
    runs = ledger.replay_runs
    begin = partial(runs.begin, by="olga", criteria={}, pace=ReplayPace(), token="t")
    chosen = [DeadLetterRef(f"j00_{n}", DeadLetterKind.MEMORY, 0) for n in range(3)]
    done = await begin(chosen[:1])
    await runs.record_outcomes(done, "t", [(chosen[0], chosen[0].id, ReplayOutcome.STORED)])
    await runs.end(done, "t", ReplayState.DONE, "", by="olga")
    under_way = await begin(chosen)
    await runs.record_outcomes(under_way, "t", [(chosen[0], chosen[0].id, ReplayOutcome.WAITING)])

    collector = FleetCollector()
    collector.state = await state_of(ledger, 60.0)
    found = {
        (sample.name, *sample.labels.values()): sample.value
        for family in collector.collect()
        for sample in family.samples
        if sample.name.startswith("afterword_replay") and sample.value
    }
    assert found == {
        ("afterword_replay_runs", "done"): 1,
        ("afterword_replay_runs", "running"): 1,
        ("afterword_replay_letters", "stored"): 1,
        ("afterword_replay_letters", "waiting"): 1,
        ("afterword_replay_letters", "left"): 2,
    }


async def test_a_look_reads_the_counts_of_all_tenants_once(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    await submit_and_answer(ledger)

    def reads() -> int:
        stats = inspector.redis.info("commandstats")
        return int(stats.get("cmdstat_hscan", {}).get("calls", 0))

    before = reads()
    await found_in(ledger)
    status = reads() - before
    await look_at(ledger, 60.0)
    look = reads() - before - status
    await state_of(ledger, 60.0)
    whole = reads() - before - status - look

    assert status > 0
    assert look == status, "the accounts read them no second time"
    assert whole == look + SLOTS, "nor do the tenants, who read what began in the last hour"
