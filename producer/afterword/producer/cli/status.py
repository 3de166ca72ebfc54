"""`afterword status`: queues, workers, gates, dead letters; or tenants; or one job."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import click

from afterword.producer.admin.fleet_status import found_in
from afterword.producer.admin.wording import duration, utc_time
from afterword.producer.checked_ledger import CheckedLedger
from afterword.producer.cli import render
from afterword.producer.cli import tenants as tenants_shown
from afterword.producer.cli.command import command
from afterword.producer.cli.options import json_option
from afterword.producer.cli.terminal import echo
from afterword.producer.cli.watch import checked_interval, watch, watch_option
from afterword.producer.cli.workers_seen import open_ledger
from afterword.shared.names import check_job_id
from afterword.shared.plurals import quantity


@command(
    examples=[
        "afterword status",
        "afterword status --json",
        "afterword status JOB_ID",
        "afterword status --tenants --limit 10",
        "afterword status --watch 5s",
    ]
)
@click.argument("job_id", required=False)
@click.option("--tenants", is_flag=True, help="Show who has how much of the response workers.")
@click.option(
    "--limit",
    type=click.IntRange(1, 10_000),
    metavar="N",
    help="List at most this many tenants. Default: 20.",
)
@click.option("--after", metavar="TENANT", help="Go on after this tenant.")
@watch_option
@json_option
def status(
    *,
    job_id: str | None,
    tenants: bool,
    limit: int | None,
    after: str | None,
    every_s: float | None,
    as_json: bool,
) -> None:
    """Show queues, workers and gates, or tenants, or one job.

    Queues: "ready" waits for a worker, "delayed" for a later time, "running" is held by a worker.
    Gates: providers that are not called at the moment. Tenants: those with most waiting jobs first;
    "share" is what they had of all attempts of the last hour. With --watch, --json prints one line
    for each look, and a job is looked at until it and its turn are settled. Nothing is changed.
    """
    if job_id is not None:
        check_job_id(job_id)
    if every_s is not None:
        checked_interval(every_s)
    part = tenants_shown.Part(limit, after)
    part.check(tenants=tenants, job_id=job_id)
    asyncio.run(_status(job_id, part if tenants else None, every_s, as_json=as_json))


async def _status(
    job_id: str | None, part: tenants_shown.Part | None, every_s: float | None, *, as_json: bool
) -> None:
    async with open_ledger() as checked:
        look, show = _chosen(checked, job_id, part)
        if every_s is not None:
            show = render.json_line if as_json else show
            await watch(look, show, every_s, until=_is_settled, head=not as_json)
        elif as_json:
            render.json_record(await look())
        else:
            show(await look())


def _chosen(
    checked: CheckedLedger, job_id: str | None, part: tenants_shown.Part | None
) -> tuple[Callable[[], Awaitable[Any]], Callable[[Any], None]]:
    """Return what looks at what was asked for, and what prints that."""
    if part is not None:
        return tenants_shown.looking(checked, part), tenants_shown.print_loads

    async def look() -> dict[str, Any]:
        ledger = await checked.for_reading()
        return await (ledger.queries.details(job_id) if job_id else found_in(ledger))

    return look, render.record if job_id else print_status


def _is_settled(found: Any) -> bool:
    """Return whether nothing will change any more; never of a fleet."""
    of_job = isinstance(found, dict) and "job_id" in found
    return bool(of_job and found["state"].terminal and found["turn"].settled)


def print_status(found: dict[str, Any]) -> None:
    """Print what `found_in` returned, as tables and lines."""
    render.table(
        ("queue", "ready", "delayed", "running", "oldest ready"),
        [
            (name, row["ready"], row["delayed"], row["running"],
             duration(row["oldest_ready_s"]))
            for name, row in found["queues"].items()
        ],
    )  # fmt: skip
    echo()
    if found["workers"]:
        render.workers(found["workers"])
    else:
        echo("no workers: start some with `afterword worker responses|memories`")
    echo()
    if found["gates"]:
        render.gates(found["gates"])
        echo()
    if found["orders"]:
        render.orders(found["orders"])
        echo()
    for name, value in _lines(found).items():
        echo(f"{name}: {value}")


def _lines(found: dict[str, Any]) -> dict[str, object]:
    """Return what stands on a line of its own below the tables."""
    lines: dict[str, object] = {
        "jobs": render.counts(found["jobs"]) or "none yet",
        "turns": render.counts(found["turns"]) or "none yet",
        "dead letters": render.counts(found["dead_letters"]) or "none",
    }
    if found["degraded_replies"]:
        lines["replies without memory"] = found["degraded_replies"]
    if empty := found["turns_without_facts"]:
        lines["turns without facts"] = render.share(empty, empty + found["turns"]["stored"])
    if turns := (waiting := found["message_batches"])["turns"]:
        since = duration(waiting["oldest_s"])
        lines["turns in message batches"] = f"{turns:,}, the oldest for {since}"
    if undeleted := waiting["undeleted"]:
        lines["message batches to delete"] = f"{undeleted:,}, which the provider still has"
    if version := (held := found["held"])["newest_version"]:
        lines[f"held for version {version}"] = ", ".join(
            (quantity(held["jobs"], "job"), quantity(held["lanes"], "lane"))
        )
    if found["quarantined"]:
        newest = found["newest_quarantined"]
        last = f"; last at {utc_time(newest.at)}" if newest else ""
        lines["quarantined"] = render.counts(found["quarantined"]) + last
    return lines | {"durability": found["durability"]}
