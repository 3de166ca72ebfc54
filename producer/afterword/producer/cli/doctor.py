"""`afterword doctor`: checks what Afterword depends on, and says what to do."""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import click

from afterword.producer.cli import render
from afterword.producer.cli.command import command
from afterword.producer.cli.options import json_option
from afterword.producer.cli.terminal import echo
from afterword.producer.cli.workers_seen import QUEUES, open_ledger, running
from afterword.shared.discovery import settings_in_use
from afterword.shared.errors import (
    AccessDenied,
    AfterwordError,
    Fault,
    Misconfigured,
    ProviderError,
)
from afterword.shared.ledger.records import Gate, GateState
from afterword.shared.names import MEMORIES
from afterword.shared.settings import Settings

_FIX = "Fix this and run the command again."


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check; a `remedy` of one that is `ok` is a warning."""

    check: str
    ok: bool
    detail: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class _Remedy:
    """What to check when a part refuses our key, and when it cannot be used for other reasons."""

    refused: str
    failed: str

    def of(self, error: AfterwordError) -> str:
        """Return what to do about an error."""
        if isinstance(error, Misconfigured):
            return _FIX
        return f"Check {self.refused if isinstance(error, AccessDenied) else self.failed}."


_REDIS = "AFTERWORD_REDIS_URL and AFTERWORD_DURABILITY"
_REMEDIES = {
    "redis": _Remedy(_REDIS, _REDIS),
    "claude": _Remedy("ANTHROPIC_API_KEY and its account", "ANTHROPIC_BASE_URL and the network"),
    "hosted": _Remedy("MEM0_API_KEY and its account", "MEM0_HOST and the network"),
    "selfhosted": _Remedy("ANTHROPIC_API_KEY and its account", "AFTERWORD_POSTGRES_URL"),
    "embedded": _Remedy("AFTERWORD_DATA_DIR", "AFTERWORD_DATA_DIR"),
}

#: What to do about a gate that is shut, by whose failure it was.
_GATE_REMEDIES = {
    Fault.OPERATOR: "Fix the key, the account or the address. Work resumes within a minute.",
    Fault.PROVIDER: "Nothing: a call tries the provider now and then, and work resumes by itself.",
}


@command(
    exit_1="a check failed, a wrong setting included",
    examples=["afterword doctor", "afterword doctor --json"],
)
@json_option
def doctor(*, as_json: bool) -> None:
    """Check the settings, Redis, Claude, memory, gates and workers.

    For each problem it prints what to do. Checks of Claude cost nothing. Nothing is changed.
    """
    findings = asyncio.run(_examine())
    if as_json:
        render.json_record(findings)
    else:
        for finding in findings:
            echo(f"{_mark(finding)}  {finding.check}: {finding.detail}")
            if finding.remedy:
                echo(f"      -> {finding.remedy}")
    if not all(finding.ok for finding in findings):
        raise click.exceptions.Exit(1)


def _mark(finding: Finding) -> str:
    if not finding.ok:
        return "FAIL"
    return "warn" if finding.remedy else "ok  "


async def _examine() -> list[Finding]:
    try:
        settings = settings_in_use()
    except AfterwordError as error:
        return [Finding("settings", ok=False, detail=str(error), remedy=_FIX)]
    redis = await _check("redis", _redis, settings, _REMEDIES["redis"])
    memory = _REMEDIES.get(settings.backend, _REMEDIES["embedded"])
    findings = [
        Finding("settings", ok=True, detail=f"valid, memory backend {settings.backend}"),
        redis,
        await _check("claude", _claude, settings, _REMEDIES["claude"]),
        await _check("memory", _memory, settings, memory),
    ]
    if redis.ok:
        findings.extend(await _gates(settings))
        findings.extend(await _workers(settings))
    return findings


async def _check(
    check: str,
    look: Callable[[Settings], Awaitable[str | Finding]],
    settings: Settings,
    remedy: _Remedy,
) -> Finding:
    try:
        found = await look(settings)
        return found if isinstance(found, Finding) else Finding(check, ok=True, detail=found)
    except ProviderError as error:
        return Finding(check, ok=False, detail=f"call failed: {error}", remedy=remedy.of(error))
    except AfterwordError as error:
        return Finding(check, ok=False, detail=str(error), remedy=remedy.of(error))


async def _redis(settings: Settings) -> str:
    async with open_ledger(settings) as checked:
        found = await checked.ledger.check()
    return f"{found.server}, policy {found.policy}, durability {found.durability}"


async def _claude(settings: Settings) -> str | Finding:
    if importlib.util.find_spec("anthropic") is None:
        return "not installed, and not needed by a producer"
    from afterword.workers.wiring import open_model

    model = open_model(settings)
    try:
        checked = [await model.check(name) for name in (settings.model, *settings.fallback_models)]
    finally:
        await model.aclose()
    found = "; ".join(one.found for one in checked)
    warnings = [f"{one.warning}: choose another model." for one in checked if one.warning]
    return Finding("claude", ok=True, detail=found, remedy=" ".join(warnings))


async def _memory(settings: Settings) -> str:
    if importlib.util.find_spec("mem0") is None:
        return "not installed, and not needed by a producer"
    from afterword.workers.wiring import open_memories

    memories = await open_memories(settings)
    if memories is None:
        return "off"
    try:
        await memories.search("afterword/doctor", "are you well?", 1)
    finally:
        await memories.aclose()
    return f"{settings.backend} answers"


async def _gates(settings: Settings) -> list[Finding]:
    """Return a finding for each gate that is shut; one that is opening needs no one."""
    async with open_ledger(settings) as checked:
        gates = await checked.ledger.gates.not_open()
    return [
        Finding(
            f"gate {gate.name}",
            ok=False,
            detail=f"shut since {render.time(gate.since)}: {render.cause(gate)}",
            remedy=_gate_remedy(gate),
        )
        for gate in gates
        if gate.state is GateState.SHUT
    ]


def _gate_remedy(gate: Gate) -> str:
    if gate.by:
        return f"Open it if the reason is gone: afterword gate open {gate.name}"
    return _GATE_REMEDIES.get(gate.fault, "")


async def _workers(settings: Settings) -> list[Finding]:
    async with open_ledger(settings) as checked:
        shards = await checked.ledger.maintenance.overview()
    return [
        _counted(kind, len(running(shards, kind)))
        for kind, queue in QUEUES.items()
        if queue != MEMORIES or settings.backend != "off"
    ]


def _counted(kind: str, count: int) -> Finding:
    check = f"workers for {kind}"
    if count:
        return Finding(check, ok=True, detail=f"{count} running")
    remedy = f"Start one: afterword worker {kind}"
    return Finding(check, ok=False, detail="none running", remedy=remedy)
