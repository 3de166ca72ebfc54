"""The gates before the providers: one for the whole fleet each, asked and told by scripts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from afterword.shared.errors import Fault
from afterword.shared.ledger.records import CallReport, Gate, GateDecision, GateState, moment
from afterword.shared.ledger.shard import Shards, milliseconds


@dataclass(frozen=True, slots=True)
class RecoveryPace:
    """How long gates wait: pauses double from `first_s` to `longest_s` while nothing works.

    A gate that opens lets twice as many through in each `octave_s`, ten octaves long; then
    everyone.
    """

    first_s: float = 1.0
    longest_s: float = 60.0
    octave_s: float = 1.0


class Gates:
    """Ask, report, list."""

    def __init__(self, shards: Shards, pace: RecoveryPace | None = None) -> None:
        """Take the shards; all gates stand on the first one."""
        self._shards = shards
        self._keys = shards.all[0]
        self._pace = pace or RecoveryPace()

    @property
    def channel(self) -> str:
        """Return the channel that says which gate was just shut or is doubted."""
        return self._keys.gate_news

    async def request(self, name: str, token: str, *, canary_s: float) -> GateDecision:
        """Ask to pass; `token` names the asker, who holds the gate for so long if a canary.

        While a gate is shut, one canary at a time passes once the pause is over.
        """
        octave_ms = milliseconds(self._pace.octave_s)
        answer = await self._shards.run(
            "gate/ask", self._keys, name, token, milliseconds(canary_s), octave_ms
        )
        return _stand(*answer)

    async def report_outcome(self, name: str, token: str, report: CallReport) -> GateDecision:
        """Say what came of asking; telling it twice under the same token counts once."""
        pace = self._pace
        answer = await self._shards.run(
            "gate/report",
            self._keys,
            name,
            token,
            report.outcome,
            report.code,
            report.fault,
            milliseconds(report.pause_s) if report.pause_s > 0 else 0,
            milliseconds(pace.first_s),
            milliseconds(pace.longest_s),
            milliseconds(pace.octave_s),
            int(report.worked),
        )
        return _stand(*answer)

    async def not_open(self) -> Sequence[Gate]:
        """Return the gates that are not open, by name."""
        _, *rows = await self._shards.run(
            "gate/list", self._keys, milliseconds(self._pace.octave_s)
        )
        return sorted((_gate(*row) for row in rows), key=lambda gate: gate.name)


def _stand(word: str, comeback_ms: int = 0, code: str = "", news: int = 0) -> GateDecision:
    match word:
        case "canary":
            return GateDecision(GateState.SHUT, canary=True)
        case "pass":
            return GateDecision(GateState.OPENING)
        case "shut":
            return GateDecision(
                GateState.SHUT, retry_after_s=max(1, comeback_ms) / 1000, code=code, news=bool(news)
            )
        case _:
            return GateDecision(GateState(word))


def _gate(name: str, state: str, code: str, fault: str, since: Any, until: Any) -> Gate:
    return Gate(name, GateState(state), code, Fault(fault), moment(since), moment(float(until)))
