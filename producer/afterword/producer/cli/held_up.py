"""What would let a replay wait now, as the doctor finds it: workers, gates and orders."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

from afterword.producer.admin.plan import ReplayPlan
from afterword.producer.cli.checks.finding import Finding, Level
from afterword.producer.cli.checks.judgement import of_gates, of_workers
from afterword.producer.cli.checks.orders import of_orders
from afterword.producer.cli.replay_progress import Progress
from afterword.producer.cli.terminal import echo
from afterword.producer.cli.workers_seen import open_ledger
from afterword.shared.errors import AfterwordError
from afterword.shared.ledger.dead_letter_records import DeadLetterKind
from afterword.shared.ledger.order_records import STOPPING, OrderKind, SteeringOrder
from afterword.shared.ledger.records import Gate, GateState, Overview
from afterword.shared.names import REMEMBER_GATE, gate_of, model_of
from afterword.shared.settings import Settings

#: What holds a run up is looked for so often, in seconds, once it has stood still for `STILL_S`.
LOOK_S = 1.0
STILL_S = 3.0


@dataclass(frozen=True, slots=True)
class Concerned:
    """What a replay does again, so what of the fleet it depends on."""

    turns: bool
    jobs: bool
    tenant: str | None = None

    @classmethod
    def by_plan(cls, plan: ReplayPlan) -> Self:
        """Return what a plan depends on."""
        return cls(plan.turns > 0, plan.jobs > 0, plan.filter.tenant)

    @classmethod
    def by_filter(cls, criteria: Mapping[str, Any]) -> Self:
        """Return what a run may depend on, of which only the filter is known."""
        kind = criteria.get("kind")
        return cls(
            kind != DeadLetterKind.REPLY, kind != DeadLetterKind.MEMORY, criteria.get("tenant")
        )


def held_up(
    concerned: Concerned,
    shards: Sequence[Overview],
    gates: Sequence[Gate],
    orders: Sequence[SteeringOrder],
    settings: Settings,
) -> Sequence[Finding]:
    """Return what keeps turns, or jobs, from being done again; empty if nothing does."""
    workers = {"memory workers": concerned.turns, "response workers": concerned.jobs}
    found = [
        *(one for one in of_workers(shards, settings) if workers[one.check]),
        *of_gates(_gates_before(concerned, gates, settings)),
    ]
    about = of_orders([order for order in orders if _is_about(order, concerned)], shards)
    return [
        *(one for one in found if one.level is Level.FAIL),
        *(one for one in about if one.level is Level.WARN),
    ]


def _gates_before(
    concerned: Concerned, gates: Sequence[Gate], settings: Settings
) -> Sequence[Gate]:
    """Return the gates that stand before the work; mem0 of one's own asks a model for facts."""
    of_models = [gate for gate in gates if model_of(gate.name)]
    before = [gate for gate in gates if gate.name == REMEMBER_GATE and concerned.turns]
    if concerned.turns and settings.backend == "selfhosted":
        return [*before, *of_models]
    return [*before, *(_without_fallback(of_models, settings) if concerned.jobs else [])]


def _without_fallback(gates: Sequence[Gate], settings: Settings) -> Sequence[Gate]:
    """Return the gates behind which nobody else replies: a fallback does for a model before it."""
    chain = {gate_of(model) for model in (settings.model, *settings.fallback_models)}
    if chain <= {gate.name for gate in gates if gate.state is GateState.SHUT}:
        return gates
    return [gate for gate in gates if gate.name not in chain]


def _is_about(order: SteeringOrder, concerned: Concerned) -> bool:
    if None not in (order.tenant, concerned.tenant) and order.tenant != concerned.tenant:
        return False
    if order.kind is OrderKind.PAUSE_MEMORIES:
        return concerned.turns
    return concerned.jobs and (order.kind in STOPPING or order.kind is OrderKind.SLOW)


async def look(concerned: Concerned) -> Sequence[Finding]:
    """Return what holds the work up now."""
    async with open_ledger() as checked:
        ledger = await checked.for_reading()
        shards = await ledger.maintenance.overview()
        gates, orders = await ledger.gates.not_open(), await ledger.orders.in_force()
        return held_up(concerned, shards, gates, orders, ledger.settings)


def print_below_plan(found: Sequence[Finding]) -> None:
    """Print what a replay would wait for now, and what to do."""
    for one in found:
        echo(f"{'held up by:':<14}{one.check}: {one.detail}")
        echo(f"{'':<14}-> {one.remedy}")


@asynccontextmanager
async def told(progress: Progress, concerned: Concerned) -> AsyncIterator[None]:
    """While the context is open and the run does not advance, say what holds it up, each once."""
    task = asyncio.create_task(_tell(progress, partial(look, concerned)))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


async def _tell(progress: Progress, look_now: Callable[[], Awaitable[Sequence[Finding]]]) -> None:
    said: set[Finding] = set()
    while True:
        await asyncio.sleep(LOOK_S)
        if not progress.stands_still(STILL_S):
            continue
        found: Sequence[Finding] = ()
        with suppress(AfterwordError):  # the run itself finds that Redis is away
            found = await look_now()
        for finding in dict.fromkeys(found):
            if finding not in said:
                progress.say(finding)
        said.update(found)
