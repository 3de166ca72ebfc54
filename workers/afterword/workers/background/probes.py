"""Idle canaries: calls that cost nothing test a gate while no work waits that would test it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial

from afterword.shared.errors import Fault, ProviderError, Unavailable
from afterword.shared.ledger.records import GateState
from afterword.shared.names import RECALL_GATE, REMEMBER_GATE, model_of
from afterword.workers.gate import GateClient, GateShut, Permit
from afterword.workers.ports import Memories, Model

#: Work that waits tests a gate sooner than this after its pause: a probe is for a quiet fleet.
IDLE_S = 3.0

#: A probe that takes longer has failed.
PROBE_S = 10.0

#: What only the real call shows to be over: a free call succeeds all the same.
UNSEEN = frozenset(
    {"billing", "spend_limit", "organization_on_hold", "store_full", "store_read_only"}
    | {"pending_too_long", "event_gone", "event_failed", "quota_spent", "memory_model_not_found"}
)

#: No user has this memory key.
_NOBODY = "afterword/probe"

Probe = Callable[[], Awaitable[object]]


class Probes:
    """Keeps a process's view of the gates true, and tests those that nobody else tests.

    Claude is asked to count tokens, memory is searched. Without that, a gate would stay shut after
    an outage until the next job comes.
    """

    def __init__(
        self, gates: GateClient, model: Model | None, memories: Memories | None, *, writes: bool
    ) -> None:
        self._gates = gates
        self._model = model
        self._memories = memories
        self._writes = writes

    async def refresh_and_test(self) -> None:
        """Ask how the gates stand; test those that have waited long enough for a call."""
        for gate in await self._gates.refresh():
            idle = gate.state is GateState.SHUT and gate.untested_s >= IDLE_S
            if idle and gate.code not in UNSEEN and (probe := self._probe_of(gate.name)):
                await self._test(gate.name, probe)

    def _probe_of(self, name: str) -> Probe | None:
        """Return a call that costs nothing behind this gate, None if this worker makes none."""
        model, memories = model_of(name), self._memories
        if model is not None:
            return partial(self._model.check, model) if self._model else None
        if name == RECALL_GATE and memories and self._model:
            return partial(memories.search, _NOBODY, "are you well?", 1)
        if name == REMEMBER_GATE and memories and self._writes:
            return partial(memories.find, _NOBODY, "probe")
        return None

    async def _test(self, name: str, probe: Probe) -> None:
        with suppress(GateShut):
            permit = await self._gates.enter(name, canary_s=PROBE_S + 1)
            try:
                if permit.canary:
                    await _call(permit, probe)
            finally:
                permit.release()


async def _call(permit: Permit, probe: Probe) -> None:
    """Make the call and report it; a refusal says nothing: a server may not know such calls."""
    try:
        async with asyncio.timeout(PROBE_S):
            await probe()
    except TimeoutError:
        await permit.report_failure(Unavailable("provider_timeout"))
    except ProviderError as error:
        if error.fault is not Fault.REQUEST:
            await permit.report_failure(error)
    else:
        permit.report_success()
