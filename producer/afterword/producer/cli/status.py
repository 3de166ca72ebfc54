"""`afterword status`: queues, lanes, workers, gates, dead letters; or one job."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import click

from afterword.producer.cli.render import age, json_option, print_json, table, why
from afterword.producer.client.sync_client import Producer
from afterword.shared.discovery import settings_in_use
from afterword.shared.ledger.ledger import Ledger
from afterword.shared.ledger.records import Gate, Overview
from afterword.shared.lifecycle import JobState, TurnState
from afterword.shared.names import MEMORIES, REPLIES

#: A worker that has not swept for this long is not counted as running.
GONE_S = 15.0

#: What the counts of messages that were no hints begin with; a reason follows.
_QUARANTINED = "quarantined:"


@click.command()
@click.argument("job_id", required=False)
@json_option
def status(*, job_id: str | None, as_json: bool) -> None:
    """Show what is queued, running, late and dead; or where one job is."""
    if job_id is not None:
        _show_job(job_id, as_json=as_json)
        return
    found = asyncio.run(_found())
    if as_json:
        print_json(found)
    else:
        _show(found)


async def _found() -> dict[str, Any]:
    settings = settings_in_use()
    async with Ledger(settings, patience_s=settings.submit_timeout_s) as ledger:
        redis = await ledger.check()
        found = summary(await ledger.maintenance.overview())
        found["gates"] = await ledger.gates.not_open()
        found["newest_quarantined"] = next(iter(await ledger.quarantine.newest(1)), None)
        return found | {"durability": redis["durability"]}


def summary(shards: Sequence[Overview]) -> dict[str, Any]:
    """Add up the shards: what waits and runs per queue, workers, jobs and turns by state."""
    at = max(shard.at for shard in shards)
    counts: Counter[str] = Counter()
    for shard in shards:
        for name, value in shard.counts.items():
            counts[name.rpartition(":")[0]] += value
    return {
        "queues": {queue: _queue(queue, shards, at) for queue in (REPLIES, MEMORIES)},
        "workers": _workers(shards, at),
        "jobs": {str(state): counts[f"job:{state}"] for state in JobState},
        "turns": {str(state): counts[f"turn:{state}"] for state in TurnState},
        "dead_letters": sum(shard.dead_letters for shard in shards),
        "held": _held(shards),
        "quarantined": {
            name.removeprefix(_QUARANTINED): count
            for name, count in sorted(counts.items())
            if name.startswith(_QUARANTINED)
        },
    }


def _held(shards: Sequence[Overview]) -> dict[str, int]:
    """Count what only a newer version of this software can go on with."""
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
    oldest = min((row.oldest_hint_at for row in rows if row.oldest_hint_at), default=None)
    return {
        "hinted": sum(row.hinted for row in rows),
        "waiting": sum(row.waiting for row in rows),
        "working": sum(row.leased for row in rows),
        "oldest_s": round((at - oldest).total_seconds(), 1) if oldest else 0.0,
    }


def _workers(shards: Sequence[Overview], at: datetime) -> list[dict[str, Any]]:
    seen = {
        (worker.queue, worker.name): (at - worker.seen_at).total_seconds()
        for shard in shards
        for worker in shard.workers
    }
    return [
        {"queue": queue, "name": name, "seen_s": round(ago, 1)}
        for (queue, name), ago in sorted(seen.items())
        if ago < GONE_S
    ]


def _show(found: dict[str, Any]) -> None:
    head = ("queue", "hinted", "waiting", "working", "oldest hint")
    rows = [
        (name, row["hinted"], row["waiting"], row["working"], age(row["oldest_s"]))
        for name, row in found["queues"].items()
    ]
    table(head, rows)
    click.echo()
    if found["workers"]:
        seen = [(row["queue"], row["name"], f"{row['seen_s']} s ago") for row in found["workers"]]
        table(("worker of", "name", "seen"), seen)
    else:
        click.echo("no workers: start some with `afterword worker responses|memories`")
    click.echo()
    if found["gates"]:
        table(("gate", "state", "why", "since", "until"), [_row(gate) for gate in found["gates"]])
        click.echo()
    for what in ("jobs", "turns"):
        states = ", ".join(f"{count} {state}" for state, count in found[what].items() if count)
        click.echo(f"{what}: {states or 'none yet'}")
    click.echo(f"dead letters: {found['dead_letters']}")
    if (held := found["held"])["newest_version"]:
        version = held["newest_version"]
        click.echo(f"held for version {version}: {held['jobs']} jobs, {held['lanes']} lanes")
    if found["quarantined"]:
        click.echo(f"quarantined: {_quarantined(found)}")
    click.echo(f"durability: {found['durability']}")


def _quarantined(found: dict[str, Any]) -> str:
    counts = ", ".join(f"{count} {reason}" for reason, count in found["quarantined"].items())
    newest = found["newest_quarantined"]
    return f"{counts}; the newest {newest.at:%Y-%m-%d %H:%M:%S}" if newest else counts


def _row(gate: Gate) -> Sequence[object]:
    times = (f"{moment:%Y-%m-%d %H:%M:%S}" for moment in (gate.since, gate.until))
    return (gate.name, gate.state, why(gate), *times)


def _show_job(job_id: str, *, as_json: bool) -> None:
    with Producer() as producer:
        job = producer.job(job_id).status()
    if as_json:
        print_json(job)
        return
    for name, value in job.model_dump(mode="json", exclude_none=True).items():
        click.echo(f"{name}: {value}")
