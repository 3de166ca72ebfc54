"""Answering a job: what the model is told, what becomes of each failure, who is stopped."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncGenerator, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from afterword.shared.contracts import Reply, StopDetails, Usage
from afterword.shared.errors import (
    AccessDenied,
    BadAnswer,
    Fault,
    LedgerUnavailable,
    NoSuchModel,
    ProviderError,
    RateLimited,
    Rejected,
    Unavailable,
)
from afterword.shared.events import (
    ForeignMemoriesDropped,
    InternalError,
    JobGivenUp,
    JobRetried,
    ReplyPublished,
)
from afterword.shared.ledger.ledger import Ledger
from afterword.shared.ledger.records import GateDecision, GateState
from afterword.shared.lifecycle import JobState, TurnState
from afterword.shared.names import RECALL_GATE, gate_of, lane_tag, memory_key
from afterword.shared.settings import Settings
from afterword.workers.gate import GateClient
from afterword.workers.leases import Leases
from afterword.workers.ports import (
    Answer,
    Memories,
    OnQuota,
    OnUsage,
    Prompt,
    RecalledMemory,
    Turn,
)
from afterword.workers.replies import prompt as prompts
from afterword.workers.replies.model_call import ModelCaller
from afterword.workers.replies.recall import RecallBudget, Recaller
from afterword.workers.replies.respond import Responder
from afterword.workers.rules.retry_policy import OPERATOR_PAUSE_S
from tests.kit.fakes.memory import FakeMemories
from tests.kit.fakes.model import FakeModel
from tests.kit.ledger.builder import (
    LedgerInspector,
    claim_job,
    lane_of,
    replay_one,
    submit_and_answer,
    submit_job,
)
from tests.kit.waiting import until
from tests.kit.workers.observed import observed

pytestmark = pytest.mark.redis

ANN = memory_key("default", "ann")
SECRET = "marmalade"
AT = datetime(2026, 5, 8, tzinfo=UTC)


class Desk:
    """A responder between fakes, on a real ledger."""

    def __init__(
        self, settings: Settings, ledger: Ledger, memories: Memories | None, **recall: float
    ) -> None:
        self.model = FakeModel()
        self.leases = Leases(ledger.jobs.renew_leases, settings.lease_s)
        budget = RecallBudget(recall.get("budget_s", 5.0), recall.get("patience", 0.0), 60.0)
        self.gates = GateClient(ledger.gates)
        recaller = Recaller(memories, self.gates, budget=budget, limit=5, least_score=0.0)
        model_caller = ModelCaller(settings, self.model, self.gates)
        self.responder = Responder(
            settings, ledger.jobs, model_caller, recaller, self.leases, b"tag key"
        )
        self.respond = self.responder.respond

    @property
    def told(self) -> str:
        """Return the last message that the model was told."""
        return self.model.prompts[-1].messages[-1].text


@pytest.fixture
def memories() -> FakeMemories:
    return FakeMemories()


@pytest.fixture
def desk(settings: Settings, ledger: Ledger, memories: FakeMemories) -> Desk:
    return Desk(settings, ledger, memories)


async def reply_of(ledger: Ledger, job_id: str) -> Reply:
    reply = await ledger.queries.reply(job_id)
    assert reply is not None
    return reply


# -- the straight way


async def test_the_model_is_told_what_day_it_is_for_the_user(
    desk: Desk, ledger: Ledger, memories: FakeMemories
) -> None:
    await memories.add(ANN, Turn("t1", "Celsius is good.", "Noted.", AT - timedelta(hours=1)))
    for fields in ({"timezone": "UTC"}, {"timezone": "UTC", "at": AT}, {}):
        await desk.respond(await submit_job(ledger, "How warm is it? Celsius?", **fields))
    now, before, unknown = [prompt.messages[-1].text for prompt in desk.model.prompts]

    assert re.search(r"\nToday is \w+day, \d+ \w+ \d{4}\.\n", now)
    assert "The message was sent on Friday, 8 May 2026." in before
    assert "Today is Friday, 8 May 2026" not in before
    assert "Today" not in unknown
    assert "<07 May 2026" in unknown


async def test_a_message_that_is_not_to_be_remembered_is_answered_with_what_is(
    desk: Desk, ledger: Ledger, memories: FakeMemories, inspector: LedgerInspector
) -> None:
    await memories.add(ANN, Turn("t1", "I prefer Celsius.", "Noted.", AT))
    job_id = await submit_job(ledger, "How warm is it? Celsius?", remember=False)

    with observed(ReplyPublished) as seen:
        await desk.respond(job_id)

    assert "I prefer Celsius." in desk.told
    assert (await ledger.queries.status(job_id)).turn is TurnState.NONE
    assert inspector.lane(lane_of()) == []
    assert [event.not_remembered for event in seen.of(ReplyPublished)] == ["opted_out"]


async def test_a_job_is_answered_with_what_is_remembered(
    desk: Desk, ledger: Ledger, memories: FakeMemories
) -> None:
    await memories.add(ANN, Turn("t1", "I prefer Celsius.", "Noted.", AT))
    desk.model.answers("It is ", "20 °C.", usage=Usage(input=7, output=3))
    job_id = await submit_job(ledger, "How warm is it? Celsius?", conversation_id="c")

    await desk.respond(job_id)

    reply = await reply_of(ledger, job_id)
    assert (reply.text, reply.stop_reason, reply.usage.input) == ("It is 20 °C.", "end_turn", 7)
    assert (reply.user_id, reply.conversation_id, reply.attempts) == ("ann", "c", 1)
    assert reply.memory == "fresh"
    assert [memory.text for memory in reply.memories] == ["I prefer Celsius."]
    assert "I prefer Celsius." in desk.told
    timings = reply.timings_ms
    assert timings.total == timings.queued + timings.recall + timings.model
    assert len(desk.leases) == 0


async def test_a_replayed_job_was_queued_when_it_was_replayed(
    desk: Desk, ledger: Ledger, inspector: LedgerInspector
) -> None:
    old = await submit_job(ledger)
    desk.model.fails(Rejected("too_large"))
    await desk.respond(old)
    inspector.redis.hincrby(inspector.keys.job(old), "created", -3_600_000)
    await replay_one(ledger, old)
    new = inspector.job(old)["replayed_as"]

    await desk.respond(new)

    assert (await reply_of(ledger, new)).timings_ms.queued < 60_000


async def test_the_stream_has_the_whole_text_and_then_the_reply(desk: Desk, ledger: Ledger) -> None:
    desk.model.answers(*"It is 20 °C.")
    job_id = await submit_job(ledger)

    await desk.respond(job_id)

    events = await ledger.queries.events(job_id, None)
    assert (events[0].type, events[-1].type) == ("started", "final")
    assert "".join(event.text or "" for event in events) == "It is 20 °C."


async def test_the_next_turn_knows_what_the_last_one_said(desk: Desk, ledger: Ledger) -> None:
    await submit_and_answer(ledger, "My cat is called Ada.")
    job_id = await submit_job(ledger, "What is my cat's name?")

    await desk.respond(job_id)

    assert "My cat is called Ada." in desk.told
    assert (await reply_of(ledger, job_id)).memory == "overlay"


async def test_a_conversation_goes_on(desk: Desk, ledger: Ledger) -> None:
    await submit_and_answer(ledger, "Tell me a joke.", conversation_id="c")
    job_id = await submit_job(ledger, "Another one.", conversation_id="c")

    await desk.respond(job_id)

    said = [(say.role, say.text) for say in desk.model.prompts[-1].messages]
    assert said[:2] == [("user", "Tell me a joke."), ("assistant", "hi there")]


async def test_a_job_may_bring_its_own_model_system_and_length(desk: Desk, ledger: Ledger) -> None:
    await desk.respond(await submit_job(ledger, model="other", system="Rhyme.", max_tokens=7))

    told = desk.model.prompts[-1]
    assert (told.model, told.max_tokens) == ("other", 7)
    assert "Rhyme." in told.system


async def test_the_provider_learns_no_id_of_the_user(desk: Desk, ledger: Ledger) -> None:
    for user_id in ("ann", "ann", "bob"):
        await desk.respond(await submit_job(ledger, user_id=user_id))

    first, again, other = [told.user_tag for told in desk.model.prompts]
    assert first == again != other
    assert "ann" not in first


async def test_with_memory_off_nothing_is_said_of_it(settings: Settings, ledger: Ledger) -> None:
    desk = Desk(settings, ledger, None)
    job_id = await submit_job(ledger, "hello")

    await desk.respond(job_id)

    assert (await reply_of(ledger, job_id)).memory == "off"
    assert desk.told == "hello"


async def test_a_job_that_cannot_be_claimed_is_left_alone(desk: Desk, ledger: Ledger) -> None:
    ended = await submit_and_answer(ledger)
    taken = await submit_job(ledger)
    await claim_job(ledger, taken)

    for job_id in (ended, taken, f"j00_{1:032x}"):
        await desk.respond(job_id)

    assert desk.model.prompts == []


# -- memory that fails


async def test_without_recall_the_reply_comes_and_the_model_is_told(
    desk: Desk, ledger: Ledger, memories: FakeMemories
) -> None:
    memories.fail("search", Unavailable("down"))
    job_id = await submit_job(ledger)

    await desk.respond(job_id)

    assert (await reply_of(ledger, job_id)).memory == "degraded"
    assert prompts.UNAVAILABLE in desk.told


async def test_of_a_user_who_is_being_erased_nothing_is_recalled(
    desk: Desk, ledger: Ledger, memories: FakeMemories
) -> None:
    await memories.add(ANN, Turn("t1", SECRET, "Noted.", AT))
    await ledger.erasures.begin(lane_of(), "op")
    job_id = await submit_job(ledger, SECRET)

    await desk.respond(job_id)

    assert [call.verb for call in memories.calls] == ["add"]
    assert prompts.UNAVAILABLE in desk.told
    reply = await reply_of(ledger, job_id)
    assert (reply.memory, reply.memories) == ("degraded", ())


async def test_with_memory_off_an_erasure_changes_nothing(
    settings: Settings, ledger: Ledger
) -> None:
    desk = Desk(settings, ledger, None)
    await ledger.erasures.begin(lane_of(), "op")
    job_id = await submit_job(ledger)

    await desk.respond(job_id)

    assert (await reply_of(ledger, job_id)).memory == "off"


async def test_a_recall_that_hangs_holds_up_no_reply(
    settings: Settings, ledger: Ledger, memories: FakeMemories
) -> None:
    desk = Desk(settings, ledger, memories, budget_s=0.02)
    memories.hang("search")
    job_id = await submit_job(ledger)

    await desk.respond(job_id)

    reply = await reply_of(ledger, job_id)
    assert reply.memory == "degraded", "and the search hangs still"
    assert prompts.UNAVAILABLE in desk.told


@pytest.mark.finding(33)
async def test_a_job_that_has_waited_a_minute_waits_for_its_memory(
    settings: Settings, ledger: Ledger, inspector: LedgerInspector, memories: FakeMemories
) -> None:
    desk = Desk(settings, ledger, memories, budget_s=0.01, patience=1.0)
    hang, loop = memories.hang("search"), asyncio.get_running_loop()
    job_id = await submit_job(ledger)
    inspector.redis.hincrby(inspector.keys.job(job_id), "created", -60_000)
    work = asyncio.create_task(desk.respond(job_id))
    await hang.reached.wait()
    began = loop.time()
    await until(lambda: loop.time() > began + 0.02, "more than the budget is over")
    hang.released.set()
    await work

    assert (await reply_of(ledger, job_id)).memory == "fresh"


async def test_a_memory_of_another_user_never_reaches_the_model(
    desk: Desk, ledger: Ledger, memories: FakeMemories, caplog: pytest.LogCaptureFixture
) -> None:
    bobs = RecalledMemory("m1", memory_key("default", "bob"), SECRET, 0.9, AT)
    memories.plant(ANN, bobs)
    await memories.add(ANN, Turn("t1", "hello from ann", "", AT))
    job_id = await submit_job(ledger, "hello")

    with observed(ForeignMemoriesDropped) as seen:
        await desk.respond(job_id)

    reply = await reply_of(ledger, job_id)
    assert [memory.text for memory in reply.memories] == ["hello from ann"]
    assert reply.memory == "degraded"
    assert SECRET not in str(desk.model.prompts)
    assert [record.levelno for record in caplog.records if "another user" in record.message] == [
        logging.ERROR
    ]
    (alarm,) = seen.contexts(ForeignMemoriesDropped)
    assert (alarm.job_id, alarm.lane) == (job_id, lane_tag(lane_of()))
    assert SECRET not in caplog.text


# -- a model that fails


@pytest.mark.parametrize(
    ("error", "least_s", "most_s"),
    [
        (Unavailable("overloaded"), 0.4, 1.1),
        (RateLimited("rate_limited", retry_after_s=30), 29, 31),
        (AccessDenied("key_revoked"), OPERATOR_PAUSE_S - 1, OPERATOR_PAUSE_S * 1.1 + 1),
    ],
)
async def test_faults_of_the_provider_and_the_operator_spend_no_attempt(
    desk: Desk,
    ledger: Ledger,
    inspector: LedgerInspector,
    error: ProviderError,
    least_s: float,
    most_s: float,
) -> None:
    desk.model.fails(error)
    job_id = await submit_job(ledger)

    await desk.respond(job_id)

    status = await ledger.queries.status(job_id)
    assert (status.state, status.attempts, status.code) == (JobState.QUEUED, 0, error.code)
    assert least_s <= inspector.waits_s(job_id) <= most_s


async def test_an_answer_cut_short_is_asked_for_again_and_then_given_up(
    desk: Desk, ledger: Ledger, inspector: LedgerInspector
) -> None:
    job_id = await submit_job(ledger)
    for attempt in (1, 2):
        desk.model.fails(BadAnswer("cut_short"), "half an ans")
        await desk.respond(job_id)
        status = await ledger.queries.status(job_id)
        assert (status.state, status.attempts) == (JobState.QUEUED, attempt)
        inspector.make_due(job_id)
    desk.model.fails(BadAnswer("cut_short"), "half an ans")

    await desk.respond(job_id)

    status = await ledger.queries.status(job_id)
    assert (status.state, status.code) == (JobState.FAILED, "cut_short")
    kinds = [event.type for event in await ledger.queries.events(job_id, None)]
    assert kinds.count("restart") == 2
    assert kinds[-1] == "failed"
    assert "final" not in kinds


async def test_an_answer_cut_short_once_is_made_good(
    desk: Desk, ledger: Ledger, inspector: LedgerInspector
) -> None:
    desk.model.fails(BadAnswer("cut_short"), "half an ans")
    desk.model.answers("A whole answer.")
    job_id = await submit_job(ledger)

    await desk.respond(job_id)
    inspector.make_due(job_id)
    await desk.respond(job_id)

    reply = await reply_of(ledger, job_id)
    assert (reply.text, reply.attempts) == ("A whole answer.", 2)


async def test_a_rejected_request_fails_at_once(desk: Desk, ledger: Ledger) -> None:
    desk.model.fails(Rejected("too_large"))
    job_id = await submit_job(ledger)

    await desk.respond(job_id)

    status = await ledger.queries.status(job_id)
    assert (status.state, status.code, status.turn) == (
        JobState.FAILED,
        "too_large",
        TurnState.NONE,
    )


async def test_a_hundred_overloads_fail_nothing(
    desk: Desk, ledger: Ledger, inspector: LedgerInspector, settings: Settings
) -> None:
    job_id = await submit_job(ledger)
    for _ in range(100):
        desk.model.fails(Unavailable("overloaded"))
        await desk.respond(job_id)
        inspector.make_due(job_id)
        inspector.end_pause(gate_of(settings.model))

    await desk.respond(job_id)

    assert (await reply_of(ledger, job_id)).attempts == 1


# -- gates and the models that stand in


async def test_a_shut_gate_asks_nobody_and_spends_nothing(
    desk: Desk, ledger: Ledger, inspector: LedgerInspector, memories: FakeMemories
) -> None:
    desk.model.fails(RateLimited("rate_limited", retry_after_s=30))
    await desk.respond(await submit_job(ledger))
    memories.calls.clear()
    job_id = await submit_job(ledger)

    await desk.respond(job_id)

    assert len(desk.model.prompts) == 1
    assert memories.calls == []
    status = await ledger.queries.status(job_id)
    assert (status.state, status.attempts, status.code) == (JobState.QUEUED, 0, "rate_limited")
    assert 29 < inspector.waits_s(job_id) < 32


@pytest.fixture
def relay(settings: Settings, ledger: Ledger, memories: FakeMemories) -> Desk:
    """Give a desk with two models that stand in."""
    models = {"model": "first", "fallback_models": ("second", "third")}
    return Desk(settings.model_copy(update=models), ledger, memories)


def asked(desk: Desk) -> list[str]:
    return [told.model for told in desk.model.prompts]


@pytest.mark.parametrize(
    "error", [Unavailable("overloaded"), RateLimited("rate_limited"), AccessDenied("key_refused")]
)
async def test_the_next_model_answers_within_the_same_attempt(
    relay: Desk, ledger: Ledger, error: ProviderError
) -> None:
    for _ in range(2):
        relay.model.fails(error)
    job_id = await submit_job(ledger)

    await relay.respond(job_id)

    assert asked(relay) == ["first", "second", "third"]
    reply = await reply_of(ledger, job_id)
    assert (reply.model, reply.attempts) == ("third", 1)


@pytest.mark.finding(2)
async def test_without_the_model_of_the_settings_others_answer_or_the_job_waits(
    relay: Desk, ledger: Ledger, inspector: LedgerInspector, caplog: pytest.LogCaptureFixture
) -> None:
    relay.model.fails(NoSuchModel("model_not_found"))
    for _ in range(2):
        assert (await replied(relay, ledger)).model == "second"
    assert asked(relay) == ["first", "second", "second"], "it is not asked for each job"
    (shut,) = [line for line in caplog.records if line.levelno == logging.ERROR]
    assert shut.getMessage() == (
        "gate claude/first is shut: model_not_found (operator) "
        "AFTERWORD_MODEL or AFTERWORD_FALLBACK_MODELS"
    )

    for _ in range(2):
        relay.model.fails(NoSuchModel("model_not_found"))
    job_id = await submit_job(ledger)
    await relay.respond(job_id)
    await waits_for_a_model(ledger, job_id)


async def waits_for_a_model(ledger: Ledger, job_id: str) -> None:
    status = await ledger.queries.status(job_id)
    assert (status.state, status.attempts, status.code) == (JobState.QUEUED, 0, "model_not_found")


@pytest.mark.finding(2)
@pytest.mark.parametrize("named", [None, "claude-sonnet-5-5"])
async def test_without_its_only_model_the_job_waits_also_if_it_names_it(
    desk: Desk, ledger: Ledger, settings: Settings, named: str | None
) -> None:
    """Else a job that names it, sent as the canary, would open the gate for all the others."""
    assert settings.model == "claude-sonnet-5-5"
    desk.model.fails(NoSuchModel("model_not_found"))
    job_id = await submit_job(ledger, model=named)

    await desk.respond(job_id)

    await waits_for_a_model(ledger, job_id)
    (gate,) = await ledger.gates.not_open()
    assert (gate.name, gate.state) == (gate_of(settings.model), GateState.SHUT)


async def test_a_model_that_only_the_job_names_fails_the_job(
    relay: Desk, ledger: Ledger, inspector: LedgerInspector
) -> None:
    relay.model.fails(NoSuchModel("model_not_found"))
    job_id = await submit_job(ledger, model="misspelt")

    await relay.respond(job_id)

    status = await ledger.queries.status(job_id)
    assert (status.state, status.code) == (JobState.FAILED, "not_found")
    assert (await replied(relay, ledger, model="misspelt")).model == "misspelt", "its gate is open"


async def replied(desk: Desk, ledger: Ledger, model: str | None = None) -> Reply:
    job_id = await submit_job(ledger, model=model)
    await desk.respond(job_id)
    return await reply_of(ledger, job_id)


async def test_a_model_behind_a_shut_gate_is_passed_over(relay: Desk, ledger: Ledger) -> None:
    relay.model.fails(RateLimited("rate_limited", retry_after_s=30))
    for _ in range(3):
        await relay.respond(await submit_job(ledger))

    assert asked(relay) == ["first", "second", "second", "second"]


async def test_with_all_gates_shut_the_soonest_counts(
    relay: Desk, ledger: Ledger, inspector: LedgerInspector
) -> None:
    for pause_s in (40, 20, 30):
        relay.model.fails(RateLimited("rate_limited", retry_after_s=pause_s))
    for _ in range(2):
        job_id = await submit_job(ledger)
        await relay.respond(job_id)
        assert 19 < inspector.waits_s(job_id) < 23

    assert asked(relay) == ["first", "second", "third"]


async def test_with_a_gate_still_open_the_usual_pause_counts(
    relay: Desk, ledger: Ledger, inspector: LedgerInspector
) -> None:
    relay.model.fails(Unavailable("overloaded"))
    for pause_s in (20, 30):
        relay.model.fails(RateLimited("rate_limited", retry_after_s=pause_s))
    job_id = await submit_job(ledger)

    await relay.respond(job_id)

    assert inspector.waits_s(job_id) <= 1.0
    assert (await ledger.queries.status(job_id)).attempts == 0


async def test_no_fallback_model_is_asked_once_text_was_streamed(
    relay: Desk, ledger: Ledger
) -> None:
    relay.model.fails(Unavailable("cut"), "half an ans")
    job_id = await submit_job(ledger)

    await relay.respond(job_id)

    assert asked(relay) == ["first"]
    assert (await ledger.queries.status(job_id)).state is JobState.QUEUED


@pytest.mark.parametrize("error", [Rejected("too_large"), BadAnswer("truncated")])
async def test_no_fallback_model_is_asked_for_a_fault_of_the_request(
    relay: Desk, ledger: Ledger, error: ProviderError
) -> None:
    relay.model.fails(error)

    await relay.respond(await submit_job(ledger))

    assert asked(relay) == ["first"]


async def test_a_job_that_names_its_model_wants_no_other(
    relay: Desk, ledger: Ledger, inspector: LedgerInspector
) -> None:
    relay.model.fails(RateLimited("rate_limited", retry_after_s=30))
    job_id = await submit_job(ledger, model="mine")

    await relay.respond(job_id)

    assert asked(relay) == ["mine"]
    assert inspector.waits_s(job_id) > 29


async def test_a_canary_opens_the_gate_with_its_first_text(
    desk: Desk, ledger: Ledger, inspector: LedgerInspector, settings: Settings
) -> None:
    desk.model.fails(RateLimited("rate_limited", retry_after_s=30))
    job_id = await submit_job(ledger)
    await desk.respond(job_id)
    inspector.end_pause(gate_of(settings.model))
    desk.model.answers("A first word", holds=True)
    work = asyncio.create_task(desk.respond(job_id))
    await until(lambda: desk.model.held, "the canary has said something")

    await desk.gates.flush()
    assert [gate.state for gate in await ledger.gates.not_open()] == [GateState.OPENING]
    desk.model.release()
    await work


async def test_a_canary_that_is_stopped_makes_way(
    desk: Desk, ledger: Ledger, inspector: LedgerInspector, settings: Settings
) -> None:
    desk.model.fails(RateLimited("rate_limited", retry_after_s=30))
    job_id = await submit_job(ledger)
    await desk.respond(job_id)
    inspector.end_pause(gate_of(settings.model))
    desk.model.answers(holds=True)
    work = asyncio.create_task(desk.respond(job_id))
    await until(lambda: desk.model.held, "the canary is asked")
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    await desk.gates.flush()

    await desk.respond(job_id)

    assert (await reply_of(ledger, job_id)).attempts == 1


class Spent(FakeModel):
    """A model whose answers use the budget up."""

    async def stream_answer(
        self, prompt: Prompt, on_usage: OnUsage | None = None, on_quota: OnQuota | None = None
    ) -> AsyncGenerator[str | Answer, None]:
        async for piece in super().stream_answer(prompt, on_usage, on_quota):
            yield replace(piece, pause_s=20.0) if isinstance(piece, Answer) else piece


async def test_an_answer_that_uses_the_budget_up_is_the_last_for_a_while(
    desk: Desk, ledger: Ledger, inspector: LedgerInspector
) -> None:
    desk.responder._model_caller._model = desk.model = Spent()
    first, second = await submit_job(ledger), await submit_job(ledger)
    await desk.respond(first)
    await desk.gates.flush()
    await desk.respond(second)

    assert (await reply_of(ledger, first)).attempts == 1
    assert len(desk.model.prompts) == 1
    assert 19 < inspector.waits_s(second) < 22


async def test_replies_go_on_while_the_gates_cannot_be_asked(
    desk: Desk, ledger: Ledger, monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> None:
    async def broken(*_: object, **__: object) -> GateDecision:
        raise LedgerUnavailable("away")

    monkeypatch.setattr(ledger.gates, "request", broken)
    monkeypatch.setattr(ledger.gates, "report_outcome", broken)
    for name in (RECALL_GATE, gate_of(settings.model)):
        desk.gates.receive(f"shut {name}")
    job_id = await submit_job(ledger)

    await desk.respond(job_id)

    assert (await reply_of(ledger, job_id)).memory == "fresh"


# -- answers that are none


async def test_a_refusal_is_a_reply_but_nothing_to_remember(
    desk: Desk, ledger: Ledger, inspector: LedgerInspector
) -> None:
    desk.model.answers("I can't help with that.", stop_reason="refusal")
    job_id = await submit_job(ledger)

    await desk.respond(job_id)

    assert (await reply_of(ledger, job_id)).stop_reason == "refusal"
    status = await ledger.queries.status(job_id)
    assert (status.turn, status.turn_code) == (TurnState.SKIPPED, "refusal")
    assert inspector.lane(lane_of()) == []


@pytest.mark.finding(3)
async def test_a_conversation_goes_on_without_what_was_refused(desk: Desk, ledger: Ledger) -> None:
    details = StopDetails(category="bio", explanation="It could do harm.")
    await submit_and_answer(ledger, "Tell me a joke.", conversation_id="c")
    desk.model.answers("First, take", stop_reason="refusal", stop_details=details)
    refused = await submit_job(ledger, "How do I ...", conversation_id="c")
    await desk.respond(refused)

    await desk.respond(await submit_job(ledger, "Another joke.", conversation_id="c"))

    reply = await reply_of(ledger, refused)
    assert (reply.text, reply.stop_details) == ("First, take", details)
    said = [message.text for message in desk.model.prompts[-1].messages]
    assert said[:-1] == ["Tell me a joke.", "hi there"]
    assert "How do I" not in said[-1]


class Broken(FakeModel):
    """A model with a bug, whose message holds what nobody may read."""

    def stream_answer(
        self, prompt: Prompt, on_usage: OnUsage | None = None, on_quota: OnQuota | None = None
    ) -> AsyncGenerator[str | Answer, None]:
        del on_usage, on_quota
        raise RuntimeError(f"cannot work with {prompt.messages[-1].text}")


async def test_a_bug_is_an_internal_error_without_content(
    desk: Desk, ledger: Ledger, inspector: LedgerInspector, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    desk.responder._model_caller._model = Broken()
    job_id = await submit_job(ledger, SECRET)
    for _ in range(3):
        await desk.respond(job_id)
        inspector.make_due(job_id)

    status = await ledger.queries.status(job_id)
    assert (status.state, status.code) == (JobState.FAILED, "internal_error")
    assert "RuntimeError" in caplog.text
    assert SECRET not in caplog.text


async def test_a_bug_is_reported_with_its_place_and_job_and_is_the_operators_fault(
    desk: Desk, ledger: Ledger, inspector: LedgerInspector
) -> None:
    desk.responder._model_caller._model = Broken()
    job_id = await submit_job(ledger)
    with observed(InternalError, JobRetried, JobGivenUp) as seen:
        for _ in range(3):
            await desk.respond(job_id)
            inspector.make_due(job_id)

    assert seen.names() == ["InternalError", "JobRetried"] * 2 + ["InternalError", "JobGivenUp"]
    assert all(
        bug.error == "RuntimeError"
        and bug.place.startswith("afterword/workers/replies/model_call.py:")
        for bug in seen.of(InternalError)
    )
    assert [one.fault for one in seen.of(JobRetried)] == [Fault.OPERATOR] * 2
    assert [one.fault for one in seen.of(JobGivenUp)] == [Fault.OPERATOR]
    assert [(one.job_id, one.attempt) for one in seen.contexts(InternalError)] == [
        (job_id, attempt) for attempt in (1, 2, 3)
    ]
    assert (await ledger.dead_letters.get(job_id)).fault == Fault.OPERATOR


async def test_a_job_is_told_of_from_its_claim_to_its_reply(desk: Desk, ledger: Ledger) -> None:
    job_id = await submit_job(ledger)
    with observed() as seen:
        await desk.respond(job_id)

    assert seen.names() == [
        "JobClaimed",
        "RecallFinished",
        "ModelCalled",
        "ModelAnswered",
        "ReplyPublished",
    ]
    assert {(one.job_id, one.lane, one.attempt) for _, one in seen.all} == {
        (job_id, lane_tag(lane_of()), 1)
    }


async def test_a_body_that_cannot_be_read_fails_and_stops_nobody(
    desk: Desk, ledger: Ledger, inspector: LedgerInspector
) -> None:
    job_id = await submit_job(ledger)
    inspector.redis.hset(inspector.keys.job(job_id), "body", '{"user_id": "ann"}')

    await desk.respond(job_id)

    status = await ledger.queries.status(job_id)
    assert (status.state, status.code) == (JobState.FAILED, "undecodable")


@pytest.mark.parametrize(
    "arrange",
    [
        lambda desk: desk.model.answers(f"reply {SECRET}"),
        lambda desk: desk.model.fails(Unavailable("down"), SECRET),
        lambda desk: desk.model.fails(Rejected("too_large"), SECRET),
        lambda desk: desk.model.fails(BadAnswer("cut_short"), SECRET),
    ],
)
async def test_nothing_that_was_said_is_logged(
    desk: Desk,
    ledger: Ledger,
    caplog: pytest.LogCaptureFixture,
    arrange: Callable[[Desk], None],
) -> None:
    caplog.set_level(logging.DEBUG)
    arrange(desk)

    await desk.respond(await submit_job(ledger, f"message {SECRET}", metadata={"k": SECRET}))

    assert SECRET not in caplog.text


# -- stopped on the way


async def test_a_stop_gives_the_job_back_uncounted(
    desk: Desk, ledger: Ledger, inspector: LedgerInspector
) -> None:
    desk.model.answers("never said", holds=True)
    job_id = await submit_job(ledger)
    inspector.drop_hints()
    work = asyncio.create_task(desk.respond(job_id))
    await until(lambda: desk.model.held, "the model is asked")

    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work

    status = await ledger.queries.status(job_id)
    assert (status.state, status.attempts) == (JobState.QUEUED, 0)
    assert inspector.hinted("replies.3") == [job_id]
    assert desk.model.open_calls == 0
    assert len(desk.leases) == 0


async def test_a_lost_lease_stops_the_model_call_at_once(
    desk: Desk, ledger: Ledger, inspector: LedgerInspector
) -> None:
    desk.model.answers("never said", holds=True)
    job_id = await submit_job(ledger)
    work = asyncio.create_task(desk.respond(job_id))
    await until(lambda: desk.model.held, "the model is asked")
    inspector.make_due(job_id)
    newer = await claim_job(ledger, job_id)

    await desk.leases.renew_all()
    await work

    assert desk.model.open_calls == 0
    assert inspector.job(job_id)["fence"] == newer.fence
    status = await ledger.queries.status(job_id)
    assert (status.state, status.attempts) == (JobState.RUNNING, 2)


async def test_a_lease_that_could_not_be_renewed_is_left_to_the_sweep(
    desk: Desk, ledger: Ledger, inspector: LedgerInspector
) -> None:
    """Giving it back would ask a ledger that does not answer, and may rob who is newer."""
    desk.model.answers("never said", holds=True)
    job_id = await submit_job(ledger)
    work = asyncio.create_task(desk.respond(job_id))
    await until(lambda: desk.model.held, "the model is asked")
    before = inspector.job(job_id)

    desk.leases.lose(job_id)
    await work

    counted = {"counted": before["fence"], f"counted:{before['fence']}": "1"}
    assert inspector.job(job_id) == before | counted


async def test_a_cancelled_job_is_not_given_back(
    desk: Desk, ledger: Ledger, inspector: LedgerInspector
) -> None:
    desk.model.answers("never said", holds=True)
    job_id = await submit_job(ledger)
    inspector.drop_hints()
    work = asyncio.create_task(desk.respond(job_id))
    await until(lambda: desk.model.held, "the model is asked")
    async with ledger.listen_to_fences(desk.leases.lose):
        await ledger.jobs.cancel(job_id)
        await work

    assert desk.model.open_calls == 0
    assert (await ledger.queries.status(job_id)).state is JobState.CANCELLED
    assert inspector.hinted("replies.3") == []


async def test_a_worker_that_was_overtaken_publishes_nothing(
    desk: Desk, ledger: Ledger, inspector: LedgerInspector
) -> None:
    desk.model.answers("late", holds=True)
    job_id = await submit_job(ledger)
    work = asyncio.create_task(desk.respond(job_id))
    await until(lambda: desk.model.held, "the model is asked")
    inspector.make_due(job_id)
    await claim_job(ledger, job_id)

    desk.model.release()
    await work

    kinds = [row["type"] for row in inspector.events(job_id)]
    assert "final" not in kinds
    assert (await ledger.queries.status(job_id)).state is JobState.RUNNING


@pytest.mark.parametrize("pieces", [("It is ", "20 °C."), ()])
async def test_the_stream_says_what_the_model_was_given(
    desk: Desk, ledger: Ledger, memories: FakeMemories, pieces: tuple[str, ...]
) -> None:
    await memories.add(ANN, Turn("t1", "I prefer <Celsius>.", "Noted.", AT))
    desk.model.answers(*pieces)
    job_id = await submit_job(ledger, "How warm is it? Celsius?")

    await desk.respond(job_id)

    started, recalled, *_ = await ledger.queries.events(job_id, None)
    reply = await reply_of(ledger, job_id)
    assert (started.type, recalled.type) == ("started", "recalled")
    assert (recalled.memory, recalled.memories) == (reply.memory, reply.memories)
    (memory,) = reply.memories
    assert f"- {memory.text} <" in desk.told


async def test_a_second_attempt_says_what_it_recalled(
    desk: Desk, ledger: Ledger, inspector: LedgerInspector, memories: FakeMemories
) -> None:
    desk.model.fails(BadAnswer("cut"), "half")
    job_id = await submit_job(ledger, "Which birds?")
    await desk.respond(job_id)
    await memories.add(ANN, Turn("t1", "I keep two birds.", "Noted.", AT))
    inspector.make_due(job_id)

    await desk.respond(job_id)

    events = await ledger.queries.events(job_id, None)
    seen = {event.attempt: event.memories for event in events if event.type == "recalled"}
    assert [memory.text for memory in seen[2] or ()] == ["I keep two birds."]
    assert not seen.get(1)


@pytest.mark.parametrize(
    ("memory", "message", "code"),
    [
        ("embedded", "How warm is it?", "question_only"),
        ("hosted", "How warm is it?", "question_only"),
        ("selfhosted", "How warm is it?", "question_only"),
        ("hosted", "Is it warm? I prefer Celsius.", None),
        ("embedded", "Ok, thanks!", "pleasantry"),
        ("hosted", "Ok, thanks!", "pleasantry"),
        ("embedded", "Write a haiku about winter.", "request_only"),
        ("hosted", "Write a haiku about winter.", "request_only"),
        ("hosted", "Write a haiku for Lena.", None),
        ("embedded", "I prefer Celsius.", None),
        ("off", "I prefer Celsius.", "memory_off"),
    ],
)
async def test_a_reply_says_whether_its_turn_is_remembered(
    ledger: Ledger, settings: Settings, memory: str, message: str, code: str | None
) -> None:
    desk = Desk(settings.model_copy(update={"memory": memory}), ledger, None)
    job_id = await submit_job(ledger, message)

    await desk.respond(job_id)

    reply, status = await reply_of(ledger, job_id), await ledger.queries.status(job_id)
    assert reply.not_remembered == status.turn_code == code
    assert status.turn is (TurnState.SKIPPED if code else TurnState.PENDING)


async def test_where_the_producer_has_memory_off_no_turn_is_said_to_be_queued(
    desk: Desk, settings: Settings, ledger: Ledger
) -> None:
    async with Ledger(settings.model_copy(update={"memory": "off"}), patience_s=5.0) as producing:
        job_id = await submit_job(producing, "I prefer Celsius.")

    await desk.respond(job_id)

    assert (await reply_of(ledger, job_id)).not_remembered == "memory_off"
    assert (await ledger.queries.status(job_id)).turn is TurnState.NONE


@pytest.mark.parametrize(
    ("message", "code"),
    [("Ok, thanks!", "pleasantry"), ("Write a haiku about winter.", "request_only")],
)
@pytest.mark.parametrize(("skips", "turn"), [(True, TurnState.SKIPPED), (False, TurnState.PENDING)])
async def test_what_says_nothing_is_answered_and_not_remembered_unless_told_to(
    ledger: Ledger, settings: Settings, skips: bool, turn: TurnState, message: str, code: str
) -> None:
    desk = Desk(settings.model_copy(update={"skip_pleasantries": skips}), ledger, None)
    job_id = await submit_job(ledger, message)

    await desk.respond(job_id)

    status = await ledger.queries.status(job_id)
    assert (status.state, status.turn) == (JobState.SUCCEEDED, turn)
    assert status.turn_code == (code if skips else None)
