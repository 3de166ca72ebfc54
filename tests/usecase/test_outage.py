"""Three hours without a provider, on the real scripts, in a time that the test passes by."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence

import pytest

from afterword.shared.contracts import Usage
from afterword.shared.errors import AccessDenied, ProviderError, RateLimited, Unavailable
from afterword.shared.ledger.ledger import Ledger
from afterword.shared.lifecycle import JobState, TurnState
from afterword.shared.settings import Settings
from afterword.workers.gate import GateClient
from afterword.workers.leases import Leases
from afterword.workers.memories.erase import Eraser
from afterword.workers.memories.lane import LaneProcessor
from afterword.workers.memories.store_turns import TurnWriter
from afterword.workers.ports import (
    AddOutcome,
    AddResult,
    Answer,
    ModelCheck,
    OnQuota,
    OnUsage,
    Prompt,
    Turn,
)
from afterword.workers.replies.model_call import ModelCaller
from afterword.workers.replies.recall import RecallBudget, Recaller
from afterword.workers.replies.respond import Responder
from tests.kit.fakes.memory import FakeMemories
from tests.kit.ledger.builder import LedgerInspector, lane_of, submit_and_answer, submit_job

pytestmark = [pytest.mark.redis, pytest.mark.slow]

HOURS_S = 3 * 3600.0
JOBS = 5

#: What a worker does about one hint.
Work = Callable[[str], Awaitable[None]]


class Provider:
    """A provider that is down until the test says otherwise; counts what it is asked."""

    def __init__(self, error: ProviderError) -> None:
        self.error: ProviderError | None = error
        self.calls = 0

    def asked(self) -> None:
        """Count a call, and fail it during the outage."""
        self.calls += 1
        if self.error is not None:
            raise self.error


class Claude:
    """A model behind such a provider."""

    def __init__(self, provider: Provider) -> None:
        self._provider = provider

    async def stream_answer(
        self, prompt: Prompt, on_usage: OnUsage | None = None, on_quota: OnQuota | None = None
    ) -> AsyncGenerator[str | Answer, None]:
        del on_usage, on_quota
        self._provider.asked()
        yield Answer("hello", "end_turn", prompt.model, Usage())

    async def check(self, model: str) -> ModelCheck:
        return ModelCheck(model)

    async def aclose(self) -> None:
        """Nothing is open."""


class Mem0(FakeMemories):
    """A memory behind such a provider."""

    def __init__(self, provider: Provider) -> None:
        super().__init__()
        self._provider = provider

    async def add(self, owner: str, turn: Turn) -> AddResult:
        self._provider.asked()
        return AddResult(AddOutcome.STORED)


class Fleet:
    """Several workers without a process, and the time that passes for them."""

    def __init__(self, ledger: Ledger, inspector: LedgerInspector, work: Sequence[Work]) -> None:
        self._ledger = ledger
        self._inspector = inspector
        self._work = work
        self.passed_s = 0.0

    async def run(self, agenda: str, *, for_s: float) -> None:
        """Let them work until so much time has passed or nothing is left to wait for."""
        end_s = self.passed_s + for_s
        while self.passed_s < end_s:
            hinted = self._inspector.hinted(agenda)
            self._inspector.drop_hints()
            await asyncio.gather(
                *(self._work[at % len(self._work)](name) for at, name in enumerate(hinted))
            )
            wake_s = self._inspector.next_wake_s()
            if wake_s is None:
                return
            wake_s = max(wake_s, 0.0) + 0.25
            self.passed_s += wake_s
            self._inspector.pass_time(wake_s)
            await self._ledger.maintenance.sweep()


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"job_ttl_s": 4 * 3600.0, "lease_s": 1e6})


def house(ledger: Ledger) -> GateClient:
    """Return the gates as one more process sees them, with a clock that says nothing."""
    return GateClient(ledger.gates)


def responders(settings: Settings, ledger: Ledger, claude: Claude) -> list[Responder]:
    leases = Leases(ledger.jobs.renew_leases, settings.lease_s)
    houses = [house(ledger) for _ in range(3)]
    return [
        Responder(
            settings,
            ledger.jobs,
            ModelCaller(settings, claude, gates),
            Recaller(None, gates, budget=RecallBudget(1), limit=1, least_score=0),
            leases,
            b"tag key",
        )
        for gates in houses
    ]


@pytest.mark.parametrize(
    ("error", "most_calls"),
    [
        (Unavailable("overloaded"), 3 * JOBS + 190),
        (RateLimited("rate_limited", retry_after_s=300), JOBS + 40),
        (AccessDenied("key_refused"), JOBS + 185),
    ],
    ids=lambda value: getattr(value, "code", ""),
)
async def test_three_hours_without_claude_fail_nothing(
    settings: Settings,
    ledger: Ledger,
    inspector: LedgerInspector,
    error: ProviderError,
    most_calls: int,
) -> None:
    provider = Provider(error)
    work = [one.respond for one in responders(settings, ledger, Claude(provider))]
    fleet = Fleet(ledger, inspector, work)
    jobs = [await submit_job(ledger, user_id=f"user-{number}") for number in range(JOBS)]

    await fleet.run("replies.3", for_s=HOURS_S)
    assert fleet.passed_s >= HOURS_S
    assert provider.calls <= most_calls
    states = [await ledger.queries.status(job) for job in jobs]
    assert {(one.state, one.attempts, one.code) for one in states} == {
        (JobState.QUEUED, 0, error.code)
    }

    provider.error = None
    back_s, before = fleet.passed_s, provider.calls
    await fleet.run("replies.3", for_s=HOURS_S)
    assert provider.calls == before + JOBS
    assert fleet.passed_s - back_s < 60 + 300
    states = [await ledger.queries.status(job) for job in jobs]
    assert {(one.state, one.attempts) for one in states} == {(JobState.SUCCEEDED, 1)}


async def test_three_hours_without_mem0_bury_nothing(
    settings: Settings, ledger: Ledger, inspector: LedgerInspector
) -> None:
    provider = Provider(Unavailable("mem0_down"))
    leases = Leases(ledger.jobs.renew_leases, settings.lease_s)
    memories, eraser = Mem0(provider), Eraser(ledger.erasures, None, 0)
    writers = [
        LaneProcessor(
            ledger.turns,
            leases,
            TurnWriter(settings, ledger.turns, memories, leases, "1", house(ledger)),
            eraser,
        )
        for _ in range(3)
    ]
    fleet = Fleet(ledger, inspector, [writer.process for writer in writers])
    turns = [
        await submit_and_answer(ledger, "I like tea.", user_id=f"user-{n}") for n in range(JOBS)
    ]

    await fleet.run("memories.0", for_s=HOURS_S)
    assert provider.calls <= 3 * JOBS + 190
    assert [letter async for letter in ledger.dead_letters.select()] == []
    assert {inspector.job(turn).get("turn_attempts", "0") for turn in turns} == {"0"}

    provider.error = None
    await fleet.run("memories.0", for_s=HOURS_S)
    states = {(await ledger.queries.status(turn)).turn for turn in turns}
    assert states == {TurnState.STORED}
    assert {inspector.places(lane_of(f"user-{n}")) == [] for n in range(JOBS)} == {True}
