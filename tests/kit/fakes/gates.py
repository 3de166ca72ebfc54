"""Gates that a test opens and shuts, for those who only need to be let through."""

from __future__ import annotations

import asyncio

from afterword.shared.ledger.records import CallOutcome, CallReport, Gate, GateDecision, GateState


class FakeGates:
    """Stands in for the ledger's `Gates`: gives what the test says, keeps what it hears.

    Unless it is `fixed`, five failures in a row shut it and a success opens it.
    """

    def __init__(self) -> None:
        self.stand = GateDecision(GateState.OPEN)
        self.asked: list[str] = []
        self.leases: list[float] = []
        self.told: list[CallReport] = []
        self.listed: list[Gate] = []
        self.lists = 0
        self.late: list[str] = []
        self.fixed = False
        self.hangs = False
        self.trouble: Exception | None = None
        self._failures = 0

    async def request(self, name: str, token: str, *, canary_s: float) -> GateDecision:
        """Give how the gate stands."""
        assert token
        assert canary_s > 0
        self.asked.append(name)
        self.leases.append(canary_s)
        await self._answer()
        return self.stand

    async def report_outcome(self, name: str, token: str, report: CallReport) -> GateDecision:
        """Take note, and give how the gate stands then."""
        assert name
        assert token
        await self._answer()
        self.told.append(report)
        if not self.fixed:
            self._follow(report)
        return self.stand

    async def not_open(self) -> list[Gate]:
        """Give the gates that the test says are not open."""
        await self._answer()
        self.lists += 1
        return self.listed

    async def announce_late(self, name: str) -> None:
        """Take note that calls behind this gate are late."""
        await self._answer()
        self.late.append(name)

    def _follow(self, report: CallReport) -> None:
        self._failures = self._failures + 1 if report.outcome is CallOutcome.FAILED else 0
        if report.outcome is CallOutcome.WORKED:
            self.stand = GateDecision(GateState.OPEN)
        elif self._failures >= 5:
            self.stand = GateDecision(
                GateState.SHUT, retry_after_s=1.0, code=report.code, news=True
            )

    async def _answer(self) -> None:
        if self.hangs:
            await asyncio.Event().wait()
        if self.trouble is not None:
            raise self.trouble
