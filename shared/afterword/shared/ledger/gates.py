"""The gates before the providers: circuit breakers that the whole fleet shares."""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from afterword.shared.errors import Fault
from afterword.shared.ledger import gate_steps
from afterword.shared.ledger.records import (
    CallReport,
    Gate,
    GateDecision,
    GateState,
    moment,
    readable,
)
from afterword.shared.ledger.shard import Shards, milliseconds


@dataclass(frozen=True, slots=True)
class RecoveryPace:
    """How long gates wait: pauses double from `first_s` to `longest_s` while nothing works.

    A gate that opens lets twice as many calls through in each `octave_s`, for ten octaves; then
    all of them.
    """

    first_s: float = 1.0
    longest_s: float = 60.0
    octave_s: float = 1.0


class Gates:
    """Requests permits, reports outcomes, lists gates; all gates are on the first shard."""

    def __init__(self, shards: Shards, pace: RecoveryPace | None = None) -> None:
        self._shards = shards
        self._keys = shards.all[0]
        self._pace = pace or RecoveryPace()

    @property
    def channel(self) -> str:
        """Return the channel that says which gate was just shut, or is doubted or late."""
        return self._keys.gate_news

    async def request(self, name: str, token: str, *, canary_s: float) -> GateDecision:
        """Ask whether a provider may be called; `token` names the caller.

        While a gate is shut, one canary at a time passes once the pause is over, and holds the
        gate for `canary_s` seconds.
        """
        arguments = gate_steps.AskGate(
            gate=name,
            token=token,
            canary_ms=milliseconds(canary_s),
            octave_ms=milliseconds(self._pace.octave_s),
        )
        return _decision(*await self._shards.run_script(self._keys, arguments))

    async def report_outcome(self, name: str, token: str, report: CallReport) -> GateDecision:
        """Report the outcome of a call; repeated with the same token, it counts once."""
        pace = self._pace
        arguments = gate_steps.ReportToGate(
            gate=name,
            token=token,
            outcome=report.outcome,
            code=report.code,
            fault=report.fault,
            pause_ms=milliseconds(report.pause_s) if report.pause_s > 0 else 0,
            cap_ms=milliseconds(self._shards.settings.pause_cap_s),
            first_ms=milliseconds(pace.first_s),
            longest_ms=milliseconds(pace.longest_s),
            octave_ms=milliseconds(pace.octave_s),
            worked=report.worked,
            age_ms=round(report.age_s * 1000),
        )
        return _decision(*await self._shards.run_script(self._keys, arguments))

    async def shut(
        self, name: str, *, by: str, reason: str = "", for_s: float | None = None
    ) -> None:
        """Shut a gate by hand, for `for_s` seconds or until somebody opens it; audited.

        No outcome of a call opens it before that time.
        """
        details = {"gate": name, "reason": reason, "for_s": for_s}
        arguments = gate_steps.ShutGate(
            gate=name,
            by=by,
            reason=reason,
            for_ms=milliseconds(for_s) if for_s else 0,
            token=secrets.token_hex(8),
            details=json.dumps({key: value for key, value in details.items() if value}),
        )
        await self._shards.run_script(self._keys, arguments)

    async def open(self, name: str, *, by: str) -> bool:
        """Open a gate by hand, slowly; return whether it was shut. Audited if it was."""
        arguments = gate_steps.OpenGate(
            gate=name, by=by, token=secrets.token_hex(8), details=json.dumps({"gate": name})
        )
        (was_shut,) = await self._shards.run_script(self._keys, arguments)
        return bool(was_shut)

    async def announce_late(self, name: str) -> None:
        """Tell all workers that calls behind this gate are late, so that others yield to them."""
        await self._shards.send_command("PUBLISH", self.channel, f"late {name}")

    async def not_open(self) -> Sequence[Gate]:
        """Return the gates that are not open, by name."""
        arguments = gate_steps.ListGates(octave_ms=milliseconds(self._pace.octave_s))
        (rows,) = await self._shards.run_script(self._keys, arguments)
        gates = readable(_gate, ((row,) for row in rows), "gate")
        return sorted(gates, key=lambda gate: gate.name)


def _decision(word: str, retry_after_ms: int = 0, code: str = "", news: int = 0) -> GateDecision:
    match word:
        case "canary":
            return GateDecision(GateState.SHUT, canary=True)
        case "pass":
            return GateDecision(GateState.OPENING)
        case "shut":
            return GateDecision(
                GateState.SHUT,
                retry_after_s=max(1, retry_after_ms) / 1000,
                code=code,
                news=bool(news),
            )
        case _:
            return GateDecision(GateState(word))


def _gate(row: Sequence[Any]) -> Gate:
    name, state, code, fault, since, until, untested, by, reason = row
    return Gate(
        name,
        GateState(state),
        code,
        Fault(fault),
        since=moment(since),
        until=moment(float(until)) if until else None,
        untested_s=float(untested) / 1000,
        by=by,
        reason=reason,
    )
