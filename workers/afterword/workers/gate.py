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
    """A provider is not to be asked; `comeback_s` is this caller's own time to come back."""

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
        self._reporting: set[asyncio.Task[object]] = set()

    async def enter(self, name: str, *, canary_s: float) -> Permit:
        """Let pass, or raise `GateShut`; a canary has `canary_s` to say how it went."""
        token = secrets.token_hex(8)
        view = self._views.get(name)
        if view is None or view.state is GateState.DOUBTED:
            return Permit(self, name, token)
        lease_s = min(canary_s, LEASE_S)
        decision = await self._decision_of(name, self._gates.request(name, token, canary_s=lease_s))
        if decision is not None and decision.canary:
            emit(GateCanarySent, gate=name)
            return Permit(self, name, token, self._renew_canary(name, token, canary_s))
        if decision is None or decision.state is not GateState.SHUT:
            return Permit(self, name, token)
        view.look_at = self._clock() + LOOK_S
        raise GateShut(name, decision.retry_after_s, decision.code)

    async def try_enter(self, name: str, *, canary_s: float) -> Permit:
        """Do the same for someone who does not come back, mostly without asking Redis."""
        view = self._views.get(name)
        if view is not None and self._clock() < view.look_at:
            raise GateShut(name, 0.0, view.state)
        if view is not None and view.state is GateState.SHUT:
            view.look_at = self._clock() + LOOK_S  # one looks for all of this process
        return await self.enter(name, canary_s=canary_s)

    def receive(self, message: str) -> None:
        """Take '<shut|doubted> <gate>'; what was missed costs one call that fails."""
        word, _, name = message.partition(" ")
        known = word in (GateState.SHUT, GateState.DOUBTED)  # a newer build may say more
        if name and known and (word == GateState.SHUT or name not in self._views):
            self._see(name, GateState(word))

    def note_success(self, name: str) -> bool:
        """Take note that a call worked; return true if the fleet has to know."""
        self._worked.add(name)
        view = self._views.get(name)
        return view is not None and view.state is GateState.DOUBTED

    async def report(
        self, name: str, token: str, report: CallReport, *, canary: bool
    ) -> GateShut | None:
        """Report to a gate; return when to come back if it is shut now."""
        worked = name in self._worked and report.outcome is not CallOutcome.LEFT
        if worked:
            self._worked.discard(name)
        full = replace(report, worked=worked)
        decision = await self._decision_of(name, self._gates.report_outcome(name, token, full))
        if decision is None or decision.state is not GateState.SHUT:
            if canary and decision is not None and report.outcome is CallOutcome.WORKED:
                emit(GateOpened, gate=name)
            return None
        if decision.news:
            emit(GateClosed, gate=name, code=full.code, fault=full.fault)
        return GateShut(name, decision.retry_after_s, decision.code)

    def report_later(self, reporting: Coroutine[object, object, object]) -> None:
        """Let a report go its way while its caller goes on."""
        task = asyncio.create_task(reporting)
        self._reporting.add(task)
        task.add_done_callback(self._reporting.discard)

    async def flush(self) -> None:
        """Wait until all reports have arrived."""
        await asyncio.gather(*self._reporting)

    async def _renew_canary(self, name: str, token: str, canary_s: float) -> None:
        """Renew the lease of a canary, for as long as it may take."""
        with suppress(TimeoutError):
            async with asyncio.timeout(canary_s):
                still = True
                while still:
                    await asyncio.sleep(LEASE_S / 3)
                    decision = await self._decision_of(
                        name, self._gates.request(name, token, canary_s=LEASE_S)
                    )
                    still = decision is None or decision.canary

    async def _decision_of(self, name: str, asked: Awaitable[GateDecision]) -> GateDecision | None:
        """Return how a gate stands; None, and nothing learnt, if that cannot be told in time."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                decision = await asked
        except Exception as error:  # noqa: BLE001 whatever a gate has, the work goes on
            emit(GateUnknown, gate=name, error=type(error).__name__)
            return None
        self._see(name, decision.state)
        return decision

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
        renewal: Coroutine[object, object, None] | None = None,
    ) -> None:
        """Take what keeps the gate meanwhile, if this is for the canary."""
        self._gate_client = gate_client
        self._name = name
        self._token = token
        self._renewal = asyncio.create_task(renewal) if renewal else None

    def worked(self, pause_s: float = 0.0) -> None:
        """Say that the provider answers, and for how long it asks to be left alone now."""
        wanted = self._gate_client.note_success(self._name) or self.canary
        if pause_s > 0:
            self._report_later(CallReport(CallOutcome.SHUT, BUDGET, pause_s=_capped(pause_s)))
        elif wanted:
            self._report_later(CallReport(CallOutcome.WORKED))

    async def failed(self, error: ProviderError) -> GateShut | None:
        """Say what went wrong; return when to come back if the gate is shut now."""
        report = self._report_of(error)
        return await self._report(report, canary=self._end_canary()) if report else None

    def left(self, error: ProviderError | None = None) -> None:
        """Say what went wrong, if anything, and do not wait; another one may be the canary."""
        report = self._report_of(error) if error else CallReport(CallOutcome.LEFT)
        if report and (error or self.canary):
            self._report_later(report)

    def _report_of(self, error: ProviderError) -> CallReport | None:
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
        return self._renewal is not None

    def _end_canary(self) -> bool:
        """Be the canary no more; return whether this was it."""
        renewal, self._renewal = self._renewal, None
        if renewal is not None:
            renewal.cancel()
        return renewal is not None

    def _report_later(self, report: CallReport) -> None:
        self._gate_client.report_later(self._report(report, canary=self._end_canary()))

    async def _report(self, report: CallReport, *, canary: bool) -> GateShut | None:
        return await self._gate_client.report(self._name, self._token, report, canary=canary)


def _capped(asked_s: float | None) -> float:
    return min(asked_s or 0.0, policy.LONGEST_SNOOZE_S)
