"""The gates as this process sees them: a permit for each call to a provider, and its outcome."""

from __future__ import annotations

import asyncio
import math
import secrets
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from afterword.shared.errors import (
    SETTING_OF,
    AccessDenied,
    BadAnswer,
    Fault,
    LedgerUnavailable,
    ProviderError,
    RateLimited,
)
from afterword.shared.events import GateCanarySent, GateClosed, GateOpened, GateUnknown
from afterword.shared.ledger.gates import Gates
from afterword.shared.ledger.records import CallOutcome, CallReport, Gate, GateDecision, GateState
from afterword.shared.names import RECALL_GATE
from afterword.shared.observer import emit
from afterword.workers.ports import EventFailed
from afterword.workers.rules import retry_policy as policy

#: If Redis does not say within this time how a gate stands, it counts as open: a gate never delays
#: a reply for longer, and never fails one.
PATIENCE_S = 1.0

#: While a gate is shut, `try_enter` asks Redis once in this time, for the whole process.
LOOK_S = 1.0

#: A canary holds its gate for this long and renews that while it lives: so nobody waits long for
#: the canary of a process that is gone.
LEASE_S = 10.0

#: How often a process says that recall is late, and for how long a write yields to it.
ANNOUNCE_S = 0.5
LATE_S = 1.0

#: The code of a gate that is shut because the provider said that our rate limit is used up.
BUDGET_USED_UP = "budget_used_up"


class GateShut(Exception):
    """A provider must not be called; this caller should retry after `retry_after_s` seconds."""

    def __init__(self, name: str, retry_after_s: float, code: str) -> None:
        super().__init__(f"the gate {name} is shut: {code}")
        self.name = name
        self.retry_after_s = retry_after_s
        self.code = code


@dataclass(slots=True)
class _View:
    """What this process knows of a gate that is not simply open."""

    state: GateState
    seen_at: float
    look_at: float = 0.0
    code: str = ""


class GateClient:
    """Hands out permits; it remembers how gates stood, so that an open one costs no command."""

    def __init__(self, gates: Gates, clock: Callable[[], float] = time.monotonic) -> None:
        self._gates = gates
        self._clock = clock
        self._views: dict[str, _View] = {}
        self._worked: dict[str, float] = {}  # when the newest call that succeeded began
        self._announce_at = self._late_until = -math.inf
        self._yielding = asyncio.Lock()
        self._reporting: set[asyncio.Task[object]] = set()

    async def enter(self, name: str, *, canary_s: float) -> Permit:
        """Return a permit, or raise `GateShut`.

        If the permit is a canary's, its gate waits up to `canary_s` seconds for the outcome.
        """
        view = self._views.get(name)
        if view is None or view.state is GateState.DOUBTED:
            return Permit(self, name)
        token = _new_token()
        lease_s = min(canary_s, LEASE_S)
        decision = await self._decision_of(name, self._gates.request(name, token, canary_s=lease_s))
        if decision is not None and decision.canary:
            emit(GateCanarySent, gate=name)
            return Permit(self, name, token, self._renew_canary(name, token, canary_s))
        if decision is None or decision.state is not GateState.SHUT:
            return Permit(self, name)
        view.look_at, view.code = self._clock() + LOOK_S, decision.code
        raise GateShut(name, decision.retry_after_s, decision.code)

    async def try_enter(self, name: str, *, canary_s: float) -> Permit:
        """Do as `enter` does, for a caller that will not retry; mostly without asking Redis."""
        view = self._views.get(name)
        if view is not None and self._clock() < view.look_at:
            raise GateShut(name, 0.0, view.code or view.state)
        if view is not None and view.state is GateState.SHUT:
            view.look_at = self._clock() + LOOK_S  # one call asks for the whole process
        return await self.enter(name, canary_s=canary_s)

    def now(self) -> float:
        """Return the time by the clock of this process."""
        return self._clock()

    def receive(self, message: str) -> None:
        """Process '<shut|doubted|late> <gate>'; "" says that messages may have been missed."""
        word, _, name = message.partition(" ")
        if not message:
            self.report_later(self._refresh_again())
            return
        if word == "late" and name == RECALL_GATE:
            self._late_until = self._clock() + LATE_S
        known = word in (GateState.SHUT, GateState.DOUBTED)  # a newer build may say more
        if name and known and (word == GateState.SHUT or name not in self._views):
            self._see(name, GateState(word))

    def announce_late(self, name: str) -> None:
        """Tell all workers, once a second at most, that calls behind this gate are late."""
        if self._clock() >= self._announce_at:
            self._announce_at = self._clock() + ANNOUNCE_S
            self.report_later(self._announce_late(name))

    async def yield_to_recall(self) -> None:
        """Wait while recall is late anywhere in the fleet, for `LATE_S` seconds at most.

        Writes of this process pass one after another then: a reply waits for recall, and nobody
        for a write.
        """
        async with self._yielding:
            left_s = min(LATE_S, self._late_until - self._clock())
            if left_s > 0:
                await asyncio.sleep(left_s)

    async def refresh(self) -> Sequence[Gate]:
        """Learn how all gates stand, and return those that are not open.

        A process does so before its first call: what was shut before it started was not announced
        to it. A gate that is shut although calls succeed is told so.
        """
        asked_at = self._clock()
        found = await self._gates.not_open()
        listed = {gate.name for gate in found}
        for name, view in list(self._views.items()):
            stale = view.seen_at < asked_at and view.state is not GateState.DOUBTED
            if stale and name not in listed:
                del self._views[name]
        for gate in found:
            self._see(gate.name, gate.state)
            if gate.state is GateState.SHUT and gate.name in self._worked:
                await self._report_success(gate.name)
        return found

    def note_success(self, name: str, began: float) -> bool:
        """Remember that a call that began then succeeded; return true if the fleet must be told."""
        self._worked[name] = max(began, self._worked.get(name, began))
        view = self._views.get(name)
        return view is not None and view.state is GateState.DOUBTED

    async def report(
        self, name: str, token: str, report: CallReport, *, began: float, canary: bool
    ) -> GateShut | None:
        """Report the outcome of a call; return a `GateShut` if the gate is shut now."""
        worked = name in self._worked and report.outcome is not CallOutcome.LEFT
        if worked:
            del self._worked[name]
        full = replace(report, worked=worked, age_s=self._clock() - began)
        decision = await self._decision_of(name, self._gates.report_outcome(name, token, full))
        if decision is None or decision.state is not GateState.SHUT:
            if canary and decision is not None and report.outcome is CallOutcome.WORKED:
                emit(GateOpened, gate=name)
            return None
        if decision.news:
            setting = SETTING_OF.get(full.code, "")
            emit(GateClosed, gate=name, code=full.code, fault=full.fault, setting=setting)
        return GateShut(name, decision.retry_after_s, decision.code)

    def report_later(self, reporting: Coroutine[object, object, object]) -> None:
        """Send a report in the background."""
        task = asyncio.create_task(reporting)
        self._reporting.add(task)
        task.add_done_callback(self._reporting.discard)

    async def flush(self) -> None:
        """Wait until all reports were sent."""
        await asyncio.gather(*self._reporting)

    async def _refresh_again(self) -> None:
        with suppress(LedgerUnavailable):  # it is refreshed now and then in any case
            await self.refresh()

    async def _announce_late(self, name: str) -> None:
        with suppress(LedgerUnavailable):  # then nobody yields
            await self._gates.announce_late(name)

    async def _report_success(self, name: str) -> None:
        """Report that a call worked while this process did not know that the gate was shut."""
        report, began = CallReport(CallOutcome.WORKED), self._worked[name]
        await self.report(name, _new_token(), report, began=began, canary=True)

    async def _renew_canary(self, name: str, token: str, canary_s: float) -> None:
        """Renew a canary's lease for up to `canary_s` seconds."""
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
        """Return how a gate stands; None if Redis does not say in time."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                decision = await asked
        except Exception as error:  # noqa: BLE001 the work goes on without the gate
            emit(GateUnknown, gate=name, error=type(error).__name__)
            return None
        self._see(name, decision.state)
        return decision

    def _see(self, name: str, state: GateState) -> None:
        if state is GateState.OPEN:
            self._views.pop(name, None)
            return
        view = self._views.setdefault(name, _View(state, 0.0))
        if state is not GateState.SHUT:
            view.look_at = 0.0
        view.state, view.seen_at = state, self._clock()


class Permit:
    """The right to call a provider once. Its holder reports the outcome."""

    def __init__(
        self,
        gate_client: GateClient,
        name: str,
        token: str = "",
        renewal: Coroutine[object, object, None] | None = None,
    ) -> None:
        """Be the right of a caller; a canary's has the `token` and is renewed by `renewal`."""
        self._gate_client = gate_client
        self._name = name
        self._token = token
        self._began = gate_client.now()
        self._renewal = asyncio.create_task(renewal) if renewal else None

    def report_success(self, pause_s: float = 0.0) -> None:
        """Report that the provider answers, and for how many seconds it asks us to pause."""
        wanted = self._gate_client.note_success(self._name, self._began) or self.canary
        if pause_s > 0:
            self._report_later(
                CallReport(CallOutcome.SHUT, BUDGET_USED_UP, pause_s=_capped(pause_s))
            )
        elif wanted:
            self._report_later(CallReport(CallOutcome.WORKED))

    async def report_failure(self, error: ProviderError) -> GateShut | None:
        """Report a failure; return a `GateShut` if the gate is shut now."""
        report = self._report_of(error)
        return await self._report(report, canary=self._end_canary()) if report else None

    def release(self, error: ProviderError | None = None) -> None:
        """Report a failure, or no outcome, in the background: another call may be the canary."""
        if error is not None:
            report = self._report_of(error)
        else:
            report = CallReport(CallOutcome.LEFT) if self.canary else None
        if report is not None:
            self._report_later(report)

    def _report_of(self, error: ProviderError) -> CallReport | None:
        """Return what a failure tells the gate; None if it says nothing about the provider."""
        match error:
            case EventFailed():  # the provider's or the turn's: that of others will tell
                return CallReport(CallOutcome.FAILED, error.code)
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
            case _:  # the provider answers: it refused this one request
                return CallReport(CallOutcome.WORKED) if self.canary else None

    @property
    def canary(self) -> bool:
        """Whether this call decides if the gate opens."""
        return self._renewal is not None

    def _end_canary(self) -> bool:
        """Stop being the canary; return whether this was it."""
        renewal, self._renewal = self._renewal, None
        if renewal is not None:
            renewal.cancel()
        return renewal is not None

    def _report_later(self, report: CallReport) -> None:
        self._gate_client.report_later(self._report(report, canary=self._end_canary()))

    async def _report(self, report: CallReport, *, canary: bool) -> GateShut | None:
        return await self._gate_client.report(
            self._name, self._token or _new_token(), report, began=self._began, canary=canary
        )


def _new_token() -> str:
    """Return what tells a call from all others; most calls need none."""
    return secrets.token_hex(8)


def _capped(asked_s: float | None) -> float:
    return min(asked_s or 0.0, policy.LONGEST_SNOOZE_S)
