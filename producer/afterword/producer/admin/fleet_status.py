"""What one look at the ledger says of the whole fleet."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from afterword.shared.ledger.ledger import Ledger
from afterword.shared.ledger.message_batches import OpenMessageBatch
from afterword.shared.ledger.records import Account, Overview
from afterword.shared.lifecycle import JobState, TurnState
from afterword.shared.names import MEMORIES, REPLIES

#: A worker whose last heartbeat is older than this many seconds does not count as running.
GONE_S = 15.0


async def found_in(ledger: Ledger) -> dict[str, Any]:
    """Return what `afterword status --json` prints: queues, workers, gates, counts."""
    return await _status(ledger, await ledger.maintenance.overview())


@dataclass(frozen=True, slots=True)
class FleetLook:
    """What one look found: status, an account per tenant, what makes Redis unfit, all counts."""

    status: dict[str, Any]
    accounts: Sequence[Account]
    problems: Sequence[str]
    counts: Sequence[Mapping[str, int]]


async def look_at(ledger: Ledger, late_s: float) -> FleetLook:
    """Look at a fleet; the counts, which are many with many tenants, are read once."""
    shards = await ledger.maintenance.overview()
    counts = [shard.counts for shard in shards]
    return FleetLook(
        await _status(ledger, shards),
        await ledger.accounts.by_tenant(late_s=late_s, counts=counts),
        [str(problem) for problem in (await ledger.examine()).problems],
        counts,
    )


async def _status(ledger: Ledger, shards: Sequence[Overview]) -> dict[str, Any]:
    found = summary(shards)
    found["gates"] = await ledger.gates.not_open()
    found["orders"] = await ledger.orders.in_force()
    found["quarantined"] = await ledger.quarantine.counts()
    found["newest_quarantined"] = next(iter(await ledger.quarantine.newest(1)), None)
    found["message_batches"] = _message_batches(await ledger.message_batches.all())
    return found | {"durability": ledger.settings.durability}


def _message_batches(batches: Sequence[OpenMessageBatch]) -> dict[str, float]:
    """Count the message batches under way, the turns that wait for them, and since when.

    `undeleted` ones have ended, or were given up, and the provider still has them.
    """
    under_way = [batch for batch in batches if batch.turns]
    return {
        "batches": len(under_way),
        "turns": sum(batch.turns for batch in under_way),
        "oldest_s": round(max((batch.age_s for batch in under_way), default=0.0), 1),
        "undeleted": len(batches) - len(under_way),
    }


def summary(shards: Sequence[Overview]) -> dict[str, Any]:
    """Return the sum of all shards: queues, workers, jobs and turns by state."""
    at = max(shard.at for shard in shards)
    counts: Counter[str] = Counter()
    for shard in shards:
        for name, value in shard.counts.items():
            what, state, _tenant = name.split(":", 2)  # a tenant may hold colons
            counts[f"{what}:{state}"] += value
    return {
        "queues": {queue: _queue(queue, shards, at) for queue in (REPLIES, MEMORIES)},
        "workers": _workers(shards, at),
        "jobs": {str(state): counts[f"job:{state}"] for state in JobState},
        "turns": {str(state): counts[f"turn:{state}"] for state in TurnState},
        "degraded_replies": counts["reply:degraded"],
        "turns_without_facts": counts["facts:none"],
        "dead_letters": {
            "turns": sum(shard.dead_turns for shard in shards),
            "jobs": sum(shard.failed_jobs for shard in shards),
        },
        "held": _held(shards),
    }


def other_memories(workers: Iterable[tuple[str, str, str]]) -> str:
    """Return how the memories of workers differ, nothing if all use the same.

    Each worker is a name, the memory that it uses, and the place of that; one that does not say
    which is left out. What one stores in a memory of its own, no other finds.
    """
    by_memory: dict[tuple[str, str], str] = {}
    for name, memory, place in workers:
        if memory:
            by_memory.setdefault((memory, place), name)
    if len(by_memory) <= 1:
        return ""
    told = ", ".join(f"{name} uses {memory}" for (memory, _), name in sorted(by_memory.items()))
    is_one_kind = len({memory for memory, _ in by_memory}) == 1
    return f"{told} at another address" if is_one_kind else told


def _held(shards: Sequence[Overview]) -> dict[str, int]:
    """Count the records that only a newer version can process."""
    rows = [agenda for shard in shards for agenda in shard.agendas]
    lanes = sum(row.held for row in rows if row.name.startswith(MEMORIES))
    return {
        "jobs": sum(row.held for row in rows) - lanes,
        "lanes": lanes,
        "newest_version": max(shard.newest_version for shard in shards),
    }


def _queue(queue: str, shards: Sequence[Overview], at: datetime) -> dict[str, Any]:
    rows = [
        agenda
        for shard in shards
        for agenda in shard.agendas
        if agenda.name.partition(".")[0] == queue
    ]
    oldest = min((row.ready_since for row in rows if row.ready_since), default=None)
    return {
        "ready": sum(row.hinted for row in rows),
        "delayed": sum(row.waiting for row in rows),
        "running": sum(row.leased for row in rows),
        "oldest_ready_s": round((at - oldest).total_seconds(), 1) if oldest else 0.0,
    }


def _workers(shards: Sequence[Overview], at: datetime) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = [
        {
            "queue": worker.queue,
            "name": worker.name,
            "version": worker.version,
            "seen_s": round((at - worker.seen_at).total_seconds(), 1),
            "draining": worker.draining,
            "memory": worker.memory,
            "memory_place": worker.memory_place,
            "periodic_tasks": [asdict(task) for task in worker.tasks],
        }
        for worker in sorted(shards[0].workers, key=lambda one: (one.queue, one.name))
    ]
    return [row for row in rows if row["seen_s"] < GONE_S]
