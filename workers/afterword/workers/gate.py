"""The gates as this worker process sees them: who may ask a provider, and what came of it."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, replace

from afterword.shared.errors import AccessDenied, BadAnswer, Fault, ProviderError, RateLimited
from afterword.shared.events import GateCanarySent, GateClosed, GateOpened, GateUnknown
from afterword.shared.ledger.gates import Gates
from afterword.shared.ledger.records import CallOutcome, CallReport, GateDecision, GateState
from afterword.shared.observer import emit
from afterword.workers.rules import retry_policy as policy

RECALL = "recall"
REMEMBER = "remember"

#: A gate that Redis does not speak for within this time is taken for open: gates never hold a
#: reply up for longer, and never fail one.
PATIENCE_S = 1.0

#: Who only looks in at a shut gate asks Redis once in so long, for the whole process.
LOOK_S = 1.0

#: A canary holds its gate for no longer, unless it goes on saying that it is there: so nobody waits
#: long for one whose process is gone.
LEASE_S = 10.0

#: The code of a gate that is shut because a provider said that our budget is used up.
BUDGET = "budget_used_up"


def gate_of(model: str) -> str:
    """Return the name of the gate before a model."""
    return f"claude/{model}"


class GateShut(Exception):
    """A provider is not to be asked; `comeback_s` is this asker's own time to come back."""

    def __init__(self, name: str, retry_after_s: float, code: str) -> None:
        super().__init__(f"the gate {name} is shut: {code}")
        self.name = name
        self.retry_after_s = retry_after_s
        self.code = code


@dataclass(slots=True)
class _View:
    """What this process knows of a gate that is more than open."""

    state: GateState
    look_at: float = 0.0


class GateClient:
    """Asks at the gates and remembers how they stood: one that is open costs no command."""

    def __init__(self, gates: Gates, clock: Callable[[], float] = time.monotonic) -> None:
        """Take the gates of the fleet; the clock is this process's own, in seconds."""
        self._gates = gates
        self._clock = clock
        self._views: dict[str, _View] = {}
        self._worked: set[str] = set()
        self._telling: set[asyncio.Task[object]] = set()

    async def ask(self, name: str, *, canary_s: float) -> Permit:
        """Let pass, or raise `GateShut`; a canary has `canary_s` to say how it went."""
        token = secrets.token_hex(8)
        view = self._views.get(name)
        if view is None or view.state is GateState.DOUBTED:
            return Permit(self, name, token)
        lease_s = min(canary_s, LEASE_S)
        stand = await self._stand(name, self._gates.request(name, token, canary_s=lease_s))
        if stand is not None and stand.canary:
            emit(GateCanarySent, gate=name)
            return Permit(self, name, token, self._keep(name, token, canary_s))
        if stand is None or stand.state is not GateState.SHUT:
            return Permit(self, name, token)
        view.look_at = self._clock() + LOOK_S
        raise GateShut(name, stand.retry_after_s, stand.code)

    async def look(self, name: str, *, canary_s: float) -> Permit:
        """Do the same for someone who does not come back, mostly without asking Redis."""
        view = self._views.get(name)
        if view is not None and self._clock() < view.look_at:
            raise GateShut(name, 0.0, view.state)
        if view is not None and view.state is GateState.SHUT:
            view.look_at = self._clock() + LOOK_S  # one looks for all of this process
        return await self.ask(name, canary_s=canary_s)

    def hear(self, message: str) -> None:
        """Take '<shut|doubted> <gate>'; what was missed costs one call that fails."""
        word, _, name = message.partition(" ")
        known = word in (GateState.SHUT, GateState.DOUBTED)  # a newer build may say more
        if name and known and (word == GateState.SHUT or name not in self._views):
            self._see(name, GateState(word))

    def takes_note(self, name: str) -> bool:
        """Take note that a call worked; return true if the fleet has to know."""
        self._worked.add(name)
        view = self._views.get(name)
        return view is not None and view.state is GateState.DOUBTED

    async def tell(
        self, name: str, token: str, report: CallReport, *, canary: bool
    ) -> GateShut | None:
        """Report to a gate; return when to come back if it is shut now."""
        worked = name in self._worked and report.outcome is not CallOutcome.LEFT
        if worked:
            self._worked.discard(name)
        full = replace(report, worked=worked)
        stand = await self._stand(name, self._gates.report_outcome(name, token, full))
        if stand is None or stand.state is not GateState.SHUT:
            if canary and stand is not None and report.outcome is CallOutcome.WORKED:
                emit(GateOpened, gate=name)
            return None
        if stand.news:
            emit(GateClosed, gate=name, code=full.code, fault=full.fault)
        return GateShut(name, stand.retry_after_s, stand.code)

    def spawn(self, telling: Coroutine[object, object, object]) -> None:
        """Let a report go its way while its asker goes on."""
        task = asyncio.create_task(telling)
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)

    async def settle(self) -> None:
        """Wait until all reports have arrived."""
        await asyncio.gather(*self._telling)

    async def _keep(self, name: str, token: str, canary_s: float) -> None:
        """Renew the lease of a canary, for as long as it may take."""
        with suppress(TimeoutError):
            async with asyncio.timeout(canary_s):
                still = True
                while still:
                    await asyncio.sleep(LEASE_S / 3)
                    stand = await self._stand(
                        name, self._gates.request(name, token, canary_s=LEASE_S)
                    )
                    still = stand is None or stand.canary

    async def _stand(self, name: str, asked: Awaitable[GateDecision]) -> GateDecision | None:
        """Return how a gate stands; None, and nothing learnt, if that cannot be told in time."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                stand = await asked
        except Exception as error:  # noqa: BLE001 whatever a gate has, the work goes on
            emit(GateUnknown, gate=name, error=type(error).__name__)
            return None
        self._see(name, stand.state)
        return stand

    def _see(self, name: str, state: GateState) -> None:
        if state is GateState.OPEN:
            self._views.pop(name, None)
            return
        view = self._views.setdefault(name, _View(state))
        if state is not GateState.SHUT:
            view.look_at = 0.0
        view.state = state


class Permit:
    """The right to ask a provider once; its holder says what came of it."""

    def __init__(
        self,
        gate_client: GateClient,
        name: str,
        token: str,
        keeping: Coroutine[object, object, None] | None = None,
    ) -> None:
        """Take what keeps the gate meanwhile, if this is for the canary."""
        self._gate_client = gate_client
        self._name = name
        self._token = token
        self._keeping = asyncio.create_task(keeping) if keeping else None

    def worked(self, pause_s: float = 0.0) -> None:
        """Say that the provider answers, and for how long it asks to be left alone now."""
        wanted = self._gate_client.takes_note(self._name) or self.canary
        if pause_s > 0:
            self._spawn(CallReport(CallOutcome.SHUT, BUDGET, pause_s=_capped(pause_s)))
        elif wanted:
            self._spawn(CallReport(CallOutcome.WORKED))

    async def failed(self, error: ProviderError) -> GateShut | None:
        """Say what went wrong; return when to come back if the gate is shut now."""
        report = self._judged(error)
        return await self._told(report, canary=self._sing()) if report else None

    def left(self, error: ProviderError | None = None) -> None:
        """Say what went wrong, if anything, and do not wait; another one may be the canary."""
        report = self._judged(error) if error else CallReport(CallOutcome.LEFT)
        if report and (error or self.canary):
            self._spawn(report)

    def _judged(self, error: ProviderError) -> CallReport | None:
        """Return what a failure says of the provider; None if nothing that concerns its gate."""
        match error:
            case BadAnswer():
                return CallReport(CallOutcome.FAILED, error.code) if self.canary else None
            case AccessDenied():
                return CallReport(
                    CallOutcome.SHUT, error.code, Fault.OPERATOR, policy.OPERATOR_PAUSE_S
                )
            case RateLimited():
                return CallReport(
                    CallOutcome.SHUT, error.code, pause_s=_capped(error.retry_after_s)
                )
            case _ if error.fault is Fault.PROVIDER:
                return CallReport(
                    CallOutcome.FAILED, error.code, pause_s=_capped(error.retry_after_s)
                )
            case _:  # it answers: it has refused this one request
                return CallReport(CallOutcome.WORKED) if self.canary else None

    @property
    def canary(self) -> bool:
        """Return whether this call decides if the gate opens."""
        return self._keeping is not None

    def _sing(self) -> bool:
        """Be the canary no more; return whether this was it."""
        keeping, self._keeping = self._keeping, None
        if keeping is not None:
            keeping.cancel()
        return keeping is not None

    def _spawn(self, report: CallReport) -> None:
        self._gate_client.spawn(self._told(report, canary=self._sing()))

    async def _told(self, report: CallReport, *, canary: bool) -> GateShut | None:
        return await self._gate_client.tell(self._name, self._token, report, canary=canary)


def _capped(asked_s: float | None) -> float:
    return min(asked_s or 0.0, policy.LONGEST_SNOOZE_S)
