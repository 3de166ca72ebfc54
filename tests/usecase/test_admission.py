"""Admission: what the provider's limit has no room for waits, and spends nothing meanwhile."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest

from afterword.shared.contracts import Usage
from afterword.shared.errors import BadAnswer, RateLimited
from afterword.shared.events import JobReleased, TurnPostponed
from afterword.shared.ledger.ledger import Ledger
from afterword.shared.ledger.quota_records import QuotaLevel, Reserved
from afterword.shared.ledger.records import GateState
from afterword.shared.lifecycle import JobState, TurnState
from afterword.shared.settings import Settings
from afterword.workers import quotas
from afterword.workers.memories.admitted_model import AdmittedModel
from afterword.workers.ports import AddResult, ChatMessage, Prompt, Turn
from afterword.workers.quotas import BUDGET, QUOTA, ROOMY, QuotaClient
from afterword.workers.replies.model_call import ModelCaller
from tests.kit.fakes.memory import FakeMemories
from tests.kit.fakes.model import FakeModel
from tests.kit.ledger.builder import (
    LedgerInspector,
    claim_lane,
    lane_of,
    reply_to,
    submit_and_answer,
    submit_and_claim,
    submit_job,
)
from tests.kit.ledger.lane_writer import FailingMemories, LaneWriter
from tests.kit.workers.observed import observed
from tests.usecase.test_respond import Desk, reply_of

pytestmark = pytest.mark.redis

URL = "https://api.anthropic.com"
SPENT = (QuotaLevel("output", 1_000_000, 0, refill_s=3e4),)
PLENTY = (QuotaLevel("output", 1_000_000, 900_000, refill_s=3e4),)
OF_A_DAY = (QuotaLevel("requests", 50, 0, refill_s=86_400.0),)
USED = Usage(input=10, output=5)


class AdmittingDesk(Desk):
    """A responder whose calls are admitted first."""

    def __init__(self, settings: Settings, ledger: Ledger, memories: FakeMemories) -> None:
        super().__init__(settings, ledger, memories)
        self.quotas = QuotaClient(ledger.quotas, URL)
        caller = ModelCaller(settings, self.model, self.gates, self.quotas)
        self.responder._model_caller = caller
        self.name = self.quotas._name(settings.model)


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for Redis however busy the machine is: else calls would be admitted unasked."""
    monkeypatch.setattr(quotas, "PATIENCE_S", 60.0)


@pytest.fixture
def memories() -> FakeMemories:
    return FakeMemories()


@pytest.fixture
def desk(settings: Settings, ledger: Ledger, memories: FakeMemories) -> AdmittingDesk:
    return AdmittingDesk(settings, ledger, memories)


async def room(ledger: Ledger, name: str, levels: tuple[QuotaLevel, ...]) -> None:
    """Let the provider have told that this is left."""
    await ledger.quotas.settle(name, [], levels, 10**9)


async def test_a_reply_without_room_waits_uncounted_and_is_not_recalled_for(
    desk: AdmittingDesk, ledger: Ledger, inspector: LedgerInspector
) -> None:
    await room(ledger, desk.name, SPENT)
    job_id = await submit_job(ledger)
    with observed(JobReleased) as seen:
        await desk.respond(job_id)

    assert [event.code for event in seen.of(JobReleased)] == [QUOTA]
    assert desk.model.prompts == []
    status = await ledger.queries.status(job_id)
    assert (status.state, status.attempts) == (JobState.QUEUED, 0)
    assert "snoozes" not in inspector.job(job_id)
    assert inspector.waits_s(job_id) > 1
    assert await ledger.gates.not_open() == []

    await room(ledger, desk.name, PLENTY)
    inspector.make_due(job_id)
    await desk.respond(job_id)
    assert (await reply_of(ledger, job_id)).attempts == 1


async def test_who_waited_goes_before_who_comes(
    desk: AdmittingDesk, ledger: Ledger, inspector: LedgerInspector
) -> None:
    await room(ledger, desk.name, (QuotaLevel("output", 1_000_000, 0, refill_s=1e4),))
    waited, newcomer = await submit_job(ledger), await submit_job(ledger)
    await desk.respond(waited)
    few = (QuotaLevel("output", 1_000_000, 50_000, refill_s=1e4),)  # less than a tenth
    await room(ledger, desk.name, few)

    await desk.respond(newcomer)
    inspector.make_due(waited)
    await desk.respond(waited)

    assert (await ledger.queries.status(newcomer)).state is JobState.QUEUED
    assert (await ledger.queries.status(waited)).state is JobState.SUCCEEDED


async def test_the_fallback_answers_while_the_first_model_has_no_room(
    settings: Settings, ledger: Ledger, memories: FakeMemories
) -> None:
    both = settings.model_copy(update={"fallback_models": ("second",)})
    desk = AdmittingDesk(both, ledger, memories)
    await room(ledger, desk.name, SPENT)
    job_id = await submit_job(ledger)

    await desk.respond(job_id)

    assert [prompt.model for prompt in desk.model.prompts] == ["second"]
    assert (await reply_of(ledger, job_id)).attempts == 1


@pytest.mark.parametrize("known", [True, False])
async def test_a_refusal_that_headers_explain_delays_its_job_and_shuts_no_gate(
    desk: AdmittingDesk, ledger: Ledger, inspector: LedgerInspector, *, known: bool
) -> None:
    if known:
        await room(ledger, desk.name, PLENTY)
    desk.model.quota = SPENT
    desk.model.fails(RateLimited("rate_limited", retry_after_s=20))
    job_id = await submit_job(ledger)
    await desk.respond(job_id)
    await desk.gates.flush()

    assert await ledger.gates.not_open() == []
    assert inspector.waits_s(job_id) > 19
    assert inspector.job(job_id)["attempts"] == "0"


async def test_a_limit_that_hardly_refills_holds_nothing_back_until_the_gate_says_so(
    desk: AdmittingDesk, ledger: Ledger
) -> None:
    await room(ledger, desk.name, OF_A_DAY)
    answered, refused = await submit_job(ledger), await submit_job(ledger)

    await desk.respond(answered)
    desk.model.quota = OF_A_DAY
    desk.model.fails(RateLimited("rate_limited", retry_after_s=20))
    await desk.respond(refused)
    await desk.gates.flush()

    assert (await reply_of(ledger, answered)).attempts == 1
    (gate,) = await ledger.gates.not_open()
    assert (gate.code, gate.state) == ("rate_limited", GateState.SHUT)
    status = await ledger.queries.status(refused)
    assert (status.state, status.attempts) == (JobState.QUEUED, 0)


async def test_recall_runs_while_the_reservation_is_made_if_much_is_left(
    desk: AdmittingDesk,
    ledger: Ledger,
    inspector: LedgerInspector,
    memories: FakeMemories,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await room(ledger, desk.name, PLENTY)
    await desk.respond(await submit_job(ledger))
    assert desk.quotas.is_ample(desk.responder._settings.model)
    recalled = asyncio.Event()
    search, reserve = memories.search, ledger.quotas.reserve

    async def noted(*arguments: object) -> object:
        recalled.set()
        return await search(*arguments)  # type: ignore[arg-type]

    async def slow(*arguments: object, **how: object) -> object:
        await recalled.wait()
        return await reserve(*arguments, **how)  # type: ignore[arg-type]

    monkeypatch.setattr(memories, "search", noted)
    monkeypatch.setattr(ledger.quotas, "reserve", slow)
    job_id = await submit_job(ledger)

    await desk.respond(job_id)  # would wait in vain, one after the other

    assert (await ledger.queries.status(job_id)).state is JobState.SUCCEEDED
    assert inspector.redis.hget(inspector.keys.quota(desk.name), "calls") == "2"


async def test_what_a_reply_used_is_settled(
    desk: AdmittingDesk, ledger: Ledger, inspector: LedgerInspector
) -> None:
    await room(ledger, desk.name, (QuotaLevel("output", 2000, 2000, refill_s=3e4),))
    desk.model.answers("hello", usage=USED)
    await desk.respond(await submit_job(ledger))
    await desk.quotas.flush()

    record = inspector.redis.hgetall(inspector.keys.quota(desk.name))
    assert 1990 < float(record["level:output"]) < 2000
    assert [value for name, value in record.items() if name.startswith("open:")] == ["0"]


async def test_a_job_that_is_stopped_gives_its_reservation_back(
    desk: AdmittingDesk, ledger: Ledger, inspector: LedgerInspector
) -> None:
    await room(ledger, desk.name, (QuotaLevel("output", 2000, 2000, refill_s=3e4),))
    desk.model.fails(RateLimited("ramp_limit"))
    await desk.respond(await submit_job(ledger))
    await desk.quotas.flush()

    record = inspector.redis.hgetall(inspector.keys.quota(desk.name))
    assert float(record["level:output"]) == 2000


# -- memory


class ExtractingMemories(FailingMemories):
    """A memory that asks a model for the facts of a turn, as the self-hosted one does."""

    def __init__(self, model: AdmittedModel, name: str = "m") -> None:
        super().__init__()
        self._model = model
        self._name = name

    async def add(self, owner: str, turn: Turn) -> AddResult:
        said = Prompt((), (ChatMessage("user", turn.user_text),), self._name, 100, "tag")
        async for _ in self._model.stream_answer(said):
            pass
        return await super().add(owner, turn)


async def test_a_turn_without_room_waits_and_nothing_of_it_is_spent(
    settings: Settings, ledger: Ledger, inspector: LedgerInspector
) -> None:
    client, model = QuotaClient(ledger.quotas, URL), FakeModel()
    name = client._name("m")
    some = (QuotaLevel("output", 1000, 250, refill_s=3e4),)
    await room(ledger, name, some)
    writer = LaneWriter(settings, ledger, ExtractingMemories(AdmittedModel(model, client)))
    turn_id = await submit_and_answer(ledger, "I prefer Celsius.")
    with observed(TurnPostponed) as seen:
        await writer.write()

    (postponed,) = seen.of(TurnPostponed)
    assert (postponed.code, postponed.counted) == (QUOTA, False)
    assert model.prompts == []
    record = inspector.job(turn_id)
    assert (record["turn"], record["turn_code"]) == ("pending", QUOTA)
    assert (record["turn_attempts"], record.get("turn_snoozes")) == ("0", None)
    assert "turn_first_failed" not in record
    assert inspector.waits_s(lane_of()) > 4
    assert await ledger.gates.not_open() == []
    reply = await ledger.quotas.reserve(name, 10, 100, reply=True, returning=False)
    assert isinstance(reply, Reserved), "a reply has room where memory has none"

    await room(ledger, name, PLENTY)
    inspector.make_due(lane_of())
    await writer.write()
    assert (await ledger.queries.status(turn_id)).turn is TurnState.STORED


async def test_replies_go_on_where_extraction_waits_and_it_catches_up_in_the_quiet(
    desk: AdmittingDesk, settings: Settings, ledger: Ledger, inspector: LedgerInspector
) -> None:
    model = FakeModel()
    memories = ExtractingMemories(AdmittedModel(model, desk.quotas), settings.model)
    has_room = partial(desk.quotas.is_ample, settings.model, ROOMY)
    writer = LaneWriter(settings, ledger, memories, has_room)
    users = [f"user-{number}" for number in range(5)]
    for user in users:
        await submit_and_answer(ledger, "I like tea.", user_id=user)
    # Room for ten replies; extraction leaves just that to them.
    await room(ledger, desk.name, (QuotaLevel("output", 51_200, 10_300, refill_s=3e4),))
    for user in users:
        await writer.write(lane_of(user))
        await desk.respond(await submit_job(ledger, "I like tea.", user_id=f"other-{user}"))

    assert (len(desk.model.prompts), len(model.prompts)) == (5, 0)
    assert inspector.counts()["turn:pending:default"] == 10

    others = [f"other-{user}" for user in users]
    await room(ledger, desk.name, PLENTY)
    for user in others:
        await writer.write(lane_of(user))
    hinted = set(inspector.hinted("memories.0"))
    assert {lane_of(user) for user in users} <= hinted, "what waited for room is woken"
    for user in users:
        await writer.write(lane_of(user))
    assert inspector.counts()["turn:stored:default"] == 10
    assert len(model.prompts) == 10


@pytest.mark.parametrize("backend", ["selfhosted", "embedded"])
async def test_memory_waits_when_most_of_a_budget_is_spent_and_replies_go_on(
    settings: Settings, ledger: Ledger, inspector: LedgerInspector, backend: str
) -> None:
    limited = settings.model_copy(
        update={"memory": backend, "budgets": {"*": {"user_usd": 1.0}}, "budget_soft": 0.5}
    )
    async with Ledger(limited, patience_s=5.0) as spending:
        claim = await submit_and_claim(spending, "I prefer Celsius.")
        await spending.jobs.finish(claim, reply_to(claim), cost=500_000)
        memories = FailingMemories()
        writer = LaneWriter(limited, spending, memories)
        with observed(TurnPostponed) as seen:
            await writer.write()
        turn = (await ledger.queries.status(claim.job_id)).turn
        if backend == "embedded":  # it extracts nothing, so it spends nothing
            assert turn is TurnState.STORED
            return
        assert [event.code for event in seen.of(TurnPostponed)] == [BUDGET]
        assert (turn, memories.calls) == (TurnState.PENDING, [])
        assert inspector.job(claim.job_id)["turn_attempts"] == "0"
        assert inspector.waits_s(lane_of()) > 60
        await submit_job(spending, "And tea.")  # the hard limit is not reached

        enough = limited.model_copy(update={"budgets": {"*": {"user_usd": 2.0}}})
        inspector.make_due(lane_of())
        async with Ledger(enough, patience_s=5.0) as raised:
            await LaneWriter(enough, raised, memories).write()
    assert (await ledger.queries.status(claim.job_id)).turn is TurnState.STORED


async def test_facts_that_are_paid_for_are_stored_whatever_is_spent(
    settings: Settings, ledger: Ledger
) -> None:
    limited = settings.model_copy(
        update={"memory": "selfhosted", "budgets": {"*": {"user_usd": 1.0}}, "budget_soft": 0.5}
    )
    async with Ledger(limited, patience_s=5.0) as spending:
        claim = await submit_and_claim(spending, "I prefer Celsius.")
        await spending.jobs.finish(claim, reply_to(claim), cost=900_000)
        lane = await claim_lane(spending)
        await spending.turns.begin(lane, claim.job_id)
        await spending.turns.record_facts(lane, claim.job_id, '{"memory": [{"text": "x"}]}')
        await spending.turns.postpone(
            lane, claim.job_id, 0.0, counted=True, code="unavailable", unknown_outcome=False
        )
        await LaneWriter(limited, spending, FailingMemories()).write()

    assert (await ledger.queries.status(claim.job_id)).turn is TurnState.STORED


async def test_a_reply_costs_what_its_calls_cost(
    settings: Settings, ledger: Ledger, memories: FakeMemories, inspector: LedgerInspector
) -> None:
    priced = settings.model_copy(
        update={"model": "m", "model_prices": {"m": (1000.0, 2000.0), "n": (1.0, 1.0)}}
    )
    desk = AdmittingDesk(priced, ledger, memories)
    desk.model.fails(BadAnswer("truncated"), usage=USED)
    desk.model.answers("hello", usage=USED)
    job_id = await submit_job(ledger)
    await desk.respond(job_id)
    first = (await ledger.queries.usage("default", "ann")).cost_usd
    assert first == pytest.approx(0.01)  # the output was not told
    inspector.make_due(job_id)
    await desk.respond(job_id)

    found = await ledger.queries.usage("default", "ann")
    assert found.cost_usd == pytest.approx(0.01 + 0.02)
    assert (await ledger.queries.usage("default", None)).cost_usd == found.cost_usd
