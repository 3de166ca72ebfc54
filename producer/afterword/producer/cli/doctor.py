"""`afterword doctor`: checks what Afterword depends on and says what to do."""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime

import click

from afterword.producer.cli.render import json_option, print_json, why
from afterword.producer.cli.stack import QUEUES
from afterword.producer.cli.status import GONE_S
from afterword.shared.discovery import settings_in_use
from afterword.shared.errors import AfterwordError, Fault
from afterword.shared.ledger.ledger import Ledger
from afterword.shared.ledger.records import GateState
from afterword.shared.names import MEMORIES
from afterword.shared.settings import Settings


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found; `remedy` says what to do if it is not well, or soon will not be."""

    check: str
    well: bool
    found: str
    remedy: str = ""


@click.command()
@json_option
def doctor(*, as_json: bool) -> None:
    """Check settings, Redis, workers, Claude and memory; exit 1 if something is wrong."""
    findings = asyncio.run(_examine())
    if as_json:
        print_json(findings)
    else:
        for finding in findings:
            click.echo(f"{_mark(finding)}  {finding.check}: {finding.found}")
            if finding.remedy:
                click.echo(f"      -> {finding.remedy}")
    if not all(finding.well for finding in findings):
        raise click.exceptions.Exit(1)


async def _examine() -> list[Finding]:
    try:
        settings = settings_in_use()
    except AfterwordError as error:
        return [Finding("settings", well=False, found=str(error), remedy="mend it, then ask again")]
    findings = [Finding("settings", well=True, found=f"memory {settings.backend}")]
    for check, look, remedy in (
        (
            "redis",
            _redis,
            "see AFTERWORD_REDIS_URL and AFTERWORD_DURABILITY",
        ),
        ("claude", _claude, "see ANTHROPIC_API_KEY and ANTHROPIC_BASE_URL"),
        ("memory", _memory, "see AFTERWORD_MEMORY"),
    ):
        findings.append(await _look(check, look, settings, remedy))
    if findings[1].well:
        findings.extend(await _gates(settings))
        findings.extend(await _workers(settings))
    return findings


def _mark(finding: Finding) -> str:
    if not finding.well:
        return "FAIL"
    return "warn" if finding.remedy else "ok  "


async def _look(
    check: str,
    look: Callable[[Settings], Awaitable[str | Finding]],
    settings: Settings,
    remedy: str,
) -> Finding:
    try:
        found = await look(settings)
        return found if isinstance(found, Finding) else Finding(check, well=True, found=found)
    except AfterwordError as error:
        return Finding(check, well=False, found=str(error), remedy=remedy)


async def _redis(settings: Settings) -> str:
    async with Ledger(settings, patience_s=settings.submit_timeout_s) as ledger:
        found = await ledger.check()
    return f"{found['server']}, policy {found['policy']}, durability {found['durability']}"


async def _claude(settings: Settings) -> str | Finding:
    if importlib.util.find_spec("anthropic") is None:
        return "not installed here, which is fine for a producer"
    from afterword.workers.wiring import open_model

    model = open_model(settings)
    try:
        checked = [await model.check(name) for name in (settings.model, *settings.fallback_models)]
    finally:
        await model.aclose()
    found = "; ".join(one.found for one in checked)
    warnings = [f"{one.warning}: choose another one" for one in checked if one.warning]
    return Finding("claude", well=True, found=found, remedy="; ".join(warnings))


async def _memory(settings: Settings) -> str:
    if importlib.util.find_spec("mem0") is None:
        return "not installed here, which is fine for a producer"
    from afterword.workers.wiring import open_memories

    memories = await open_memories(settings)
    if memories is None:
        return "off"
    try:
        await memories.search("afterword/doctor", "are you well?", 1)
    finally:
        await memories.aclose()
    return f"{settings.backend} answers"


#: What to do about a gate that is shut, by whose failure it was.
_REMEDIES = {
    Fault.OPERATOR: "mend it (key, account, address); the work goes on by itself within a minute",
    Fault.PROVIDER: "nothing: the provider is asked now and then, and the work goes on by itself",
}


async def _gates(settings: Settings) -> list[Finding]:
    """Find each gate that is shut; one that opens is on its way."""
    async with Ledger(settings, patience_s=settings.submit_timeout_s) as ledger:
        gates = await ledger.gates.not_open()
    return [
        Finding(
            f"gate {gate.name}",
            well=False,
            found=f"shut since {gate.since:%Y-%m-%d %H:%M:%S}: {why(gate)}",
            remedy=_REMEDIES.get(gate.fault, ""),
        )
        for gate in gates
        if gate.state is GateState.SHUT
    ]


async def _workers(settings: Settings) -> list[Finding]:
    async with Ledger(settings, patience_s=settings.submit_timeout_s) as ledger:
        shards = await ledger.maintenance.overview()
    at: datetime = max(shard.at for shard in shards)
    seen = [
        worker.queue.split("+")
        for worker in shards[0].workers
        if (at - worker.seen_at).total_seconds() < GONE_S
    ]
    return [
        _running(kind, sum(queue in queues for queues in seen))
        for kind, queue in QUEUES.items()
        if queue != MEMORIES or settings.backend != "off"
    ]


def _running(kind: str, count: int) -> Finding:
    check = f"workers for {kind}"
    if count:
        return Finding(check, well=True, found=f"{count} running")
    remedy = f"start one: afterword worker {kind}"
    return Finding(check, well=False, found="none running", remedy=remedy)
