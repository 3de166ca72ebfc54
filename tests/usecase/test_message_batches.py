"""Extraction in message batches: one call for many turns, paid for once, and no turn is lost."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from pydantic import SecretStr

from afterword.shared.contracts import Usage
from afterword.shared.errors import (
    AccessDenied,
    Misconfigured,
    NoSuchModel,
    ProviderError,
    RateLimited,
    Rejected,
    Unavailable,
)
from afterword.shared.events import (
    ExtractionPaid,
    MessageBatchEnded,
    MessageBatchFailed,
    MessageBatchSent,
    TurnPostponed,
)
from afterword.shared.ledger.ledger import Ledger
from afterword.shared.ledger.message_batches import OpenMessageBatch
from afterword.shared.lifecycle import TurnState
from afterword.shared.names import REMEMBER_GATE
from afterword.shared.settings import Settings
from afterword.workers import wiring
from afterword.workers.adapters.claude.client import Claude
from afterword.workers.adapters.mem0.extraction import parse_facts
from afterword.workers.memories import message_batches
from afterword.workers.memories.message_batches import (
    BatchedModel,
    Batching,
    Follower,
    check_extraction,
)
from afterword.workers.ports import AddResult, Answer, ChatMessage, Prompt, Turn
from afterword.workers.quotas import MESSAGE_BATCH
from afterword.workers.rules.retry_policy import LONGEST_SNOOZE_S
from tests.kit.fakes.message_batches import FakeBatchApi
from tests.kit.fakes.model import FakeModel
from tests.kit.ledger.builder import LedgerInspector, lane_of, submit_and_answer
from tests.kit.ledger.lane_writer import FailingMemories, LaneWriter
from tests.kit.workers.observed import observed

pytestmark = pytest.mark.redis

PRICES = {"m": (1000.0, 2000.0)}
CLASSES = {"default": "free"}


class ExtractingMemories(FailingMemories):
    """Asks a model for the facts of a turn, unless they are noted, as the self-hosted one does."""

    def __init__(self, model: BatchedModel) -> None:
        super().__init__(takes_batches=True)
        self._model = model
        self.given: list[str] = []

    async def add(self, owner: str, turn: Turn) -> AddResult:
        if not turn.facts:
            turn_id = "" if turn.alone else turn.id
            said = (ChatMessage("user", turn.user_text),)
            async for _ in self._model.stream_answer(Prompt((), said, "m", 100, "tag", turn_id)):
                pass
        self.given.append(turn.facts)
        return await super().add(owner, turn)


class Fleet:
    """One memory worker after the other, before one provider."""

    def __init__(self, settings: Settings, ledger: Ledger, inspector: LedgerInspector) -> None:
        self.settings = settings
        self.ledger = ledger
        self.inspector = inspector
        self.api = FakeBatchApi()
        self.model = FakeModel()
        self.restart()

    def restart(self) -> None:
        """Lose all that a worker holds in its memory."""
        batches = self.ledger.message_batches
        self.batching = Batching(batches, self.api, parse_facts, 0.0, PRICES, CLASSES)
        model = BatchedModel(self.model, self.batching.gatherer)
        self.memories = ExtractingMemories(model)
        self.writer = LaneWriter(self.settings, self.ledger, self.memories)

    async def say(self, *users: str) -> list[str]:
        """Let each user say something; return their turns."""
        return [await submit_and_answer(self.ledger, "I like tea.", user_id=one) for one in users]

    async def write(self, *users: str) -> None:
        """Store what these users said, as far as it can be stored."""
        for user in users:
            if self.inspector.places(lane_of(user)):
                self.inspector.make_due(lane_of(user))
            await self.writer.write(lane_of(user))

    async def look(self) -> None:
        """Send what was gathered, and look at every batch."""
        await self.batching.gatherer.send_due()
        self.make_due()
        await self.batching.run()

    def make_due(self) -> None:
        """Let every batch be looked at by whoever looks next."""
        key = self.inspector.keys.message_batches
        if names := self.inspector.redis.zrange(key, 0, -1):
            self.inspector.redis.zadd(key, dict.fromkeys(names, 0))

    async def waiting(self, *users: str) -> list[str]:
        """Have turns of these users wait for a batch that was sent."""
        turns = await self.say(*users)
        await self.write(*users)
        await self.look()
        return turns

    async def states(self, turns: list[str]) -> set[TurnState]:
        return {(await self.ledger.queries.status(turn)).turn for turn in turns}

    def age(self, seconds: float) -> None:
        """Make every batch older."""
        for name in self.inspector.redis.zrange(self.inspector.keys.message_batches, 0, -1):
            key = self.inspector.keys.message_batch(name)
            self.inspector.redis.hincrby(key, "opened", -int(seconds * 1000))


@pytest.fixture
def fleet(settings: Settings, ledger: Ledger, inspector: LedgerInspector) -> Fleet:
    return Fleet(settings, ledger, inspector)


async def test_turns_of_several_users_are_extracted_by_one_batch_and_stored(fleet: Fleet) -> None:
    users = ("ann", "bob", "cid")
    with observed(TurnPostponed, MessageBatchSent, MessageBatchEnded) as seen:
        turns = await fleet.waiting(*users)
        await fleet.write(*users)
        assert await fleet.states(turns) == {TurnState.PENDING}
        assert [event.code for event in seen.of(TurnPostponed)] == [MESSAGE_BATCH] * 3
        fleet.api.end()
        await fleet.look()
        await fleet.write(*users)

    assert await fleet.states(turns) == {TurnState.STORED}
    assert (len(fleet.api.created), sorted(fleet.api.sent)) == (1, sorted(turns))
    assert ['"text": "x"' in given for given in fleet.memories.given] == [True] * 3
    assert fleet.model.prompts == []
    assert [event.turns for event in seen.of(MessageBatchSent)] == [3]
    (ended,) = seen.of(MessageBatchEnded)
    assert (ended.turns, ended.answered) == (3, 3)
    assert fleet.api.gone == set(fleet.api.created), "what was said is deleted at the provider"
    attempts = {fleet.inspector.job(turn)["turn_attempts"] for turn in turns}
    assert attempts == {"1"}, "waiting spends none"


async def test_what_is_said_meanwhile_waits_its_turn(fleet: Fleet) -> None:
    (first,) = await fleet.waiting("ann")
    (second,) = await fleet.say("ann")
    await fleet.write("ann")
    await fleet.look()
    assert fleet.api.sent == [first]

    fleet.api.end()
    await fleet.look()
    await fleet.write("ann")
    assert await fleet.states([first]) == {TurnState.STORED}
    assert await fleet.states([second]) == {TurnState.PENDING}
    await fleet.look()
    assert fleet.api.sent == [first, second]


@pytest.mark.parametrize(
    "result",
    ["failed", "prose", "cut"],
)
async def test_a_turn_without_a_usable_answer_gets_a_call_of_its_own(
    fleet: Fleet, result: str
) -> None:
    bad, good = await fleet.waiting("ann", "bob")
    unusable: dict[str, Answer | None] = {
        "failed": None,
        "prose": fleet.api.answer("I found nothing."),
        "cut": fleet.api.answer(stop_reason="max_tokens"),
    }
    fleet.api.end({bad: unusable[result]})
    with observed(MessageBatchEnded) as seen:
        await fleet.look()
    await fleet.write("ann", "bob")

    assert [(one.turns, one.answered) for one in seen.of(MessageBatchEnded)] == [(2, 1)]
    assert await fleet.states([bad, good]) == {TurnState.STORED}
    assert len(fleet.model.prompts) == 1
    assert fleet.api.sent.count(bad) == 1


async def test_a_turn_that_the_results_leave_out_gets_a_call_of_its_own(fleet: Fleet) -> None:
    left_out, other = await fleet.waiting("ann", "bob")
    fleet.api.end()
    for results in fleet.api.ended.values():
        (gone,) = [name for name in results if name.startswith(left_out)]
        del results[gone]
    await fleet.look()
    await fleet.write("ann", "bob")

    assert await fleet.states([left_out, other]) == {TurnState.STORED}
    assert len(fleet.model.prompts) == 1


# -- sending


@pytest.mark.parametrize("error", [RateLimited("rate_limited"), AccessDenied("key_refused")])
async def test_what_the_provider_does_not_take_now_is_gathered_anew(
    fleet: Fleet, error: ProviderError
) -> None:
    fleet.api.fail("create", error)
    with observed(MessageBatchFailed) as seen:
        (turn,) = await fleet.waiting("ann")
    assert [one.code for one in seen.of(MessageBatchFailed)] == [error.code]
    assert fleet.inspector.waits_s(lane_of("ann")) > 1

    await fleet.write("ann")
    await fleet.look()
    assert fleet.api.sent == [turn]


@pytest.mark.parametrize(
    "error", [Rejected("too_large"), NoSuchModel("model_not_found"), AccessDenied("wrong_address")]
)
async def test_a_provider_that_takes_no_such_batch_is_called_for_each_turn(
    fleet: Fleet, error: ProviderError
) -> None:
    fleet.api.fail("create", error)
    (turn,) = await fleet.waiting("ann")
    await fleet.write("ann")

    assert await fleet.states([turn]) == {TurnState.STORED}
    assert (fleet.api.created, len(fleet.model.prompts)) == ({}, 1)


async def test_however_long_a_provider_asks_to_wait_for_its_batches_it_is_asked_again_soon(
    fleet: Fleet,
) -> None:
    endless = RateLimited("rate_limited", retry_after_s=1e300)
    fleet.api.fail("create", endless)
    await fleet.waiting("ann")
    assert fleet.inspector.waits_s(lane_of("ann")) <= LONGEST_SNOOZE_S

    await fleet.write("ann")
    await fleet.batching.gatherer.send_due()
    fleet.api.fail("has_ended", endless)
    await fleet.look()
    (name,) = await fleet.ledger.message_batches.all()
    redis, key = fleet.inspector.redis, fleet.inspector.keys.message_batches
    assert redis.zscore(key, name.name) / 1000 <= redis.time()[0] + LONGEST_SNOOZE_S + 1


async def test_a_batch_whose_sender_heard_no_answer_is_found_and_not_sent_again(
    fleet: Fleet,
) -> None:
    other = fleet.api.foreign(requests=1)
    fleet.api.fail("create", Unavailable("no_first_event"), after=True)
    (turn,) = await fleet.waiting("ann")
    fleet.api.foreign(requests=2)
    fleet.restart()
    await fleet.look()
    await fleet.look()
    fleet.api.end()
    await fleet.look()
    await fleet.write("ann")

    assert await fleet.states([turn]) == {TurnState.STORED}
    assert fleet.api.sent == [turn]
    assert other not in fleet.api.gone


async def test_a_batch_is_not_looked_for_while_it_may_still_be_created(
    settings: Settings, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    longest_s: list[float] = []
    real = wiring._claude

    def claude(given: Settings, total_s: float) -> Claude:
        longest_s.append(total_s)
        return real(given, total_s)

    monkeypatch.setattr(wiring, "_claude", claude)
    patient = {
        "memory": "selfhosted",
        "write_timeout_s": 3600.0,
        "anthropic_api_key": SecretStr("k"),
    }
    async with wiring._batching(settings.model_copy(update=patient), ledger):
        assert [one < message_batches.UNSENT_S for one in longest_s] == [True]


async def test_a_batch_that_was_taken_for_ours_and_is_not_is_left_alone(fleet: Fleet) -> None:
    fleet.api.fail("create", Unavailable("unreachable"))
    (turn,) = await fleet.say("ann")
    await fleet.write("ann")
    other = fleet.api.foreign(requests=1)
    for _ in range(2):
        await fleet.look()
    fleet.api.end()
    for _ in range(3):
        await fleet.look()
    await fleet.write("ann")
    await fleet.look()

    assert fleet.api.sent == [turn]
    assert other not in fleet.api.gone


async def test_a_batch_that_was_never_sent_is_gathered_anew(fleet: Fleet) -> None:
    (turn,) = await fleet.say("ann")
    await fleet.write("ann")
    name = fleet.ledger.message_batches.new_name(0)
    await fleet.ledger.message_batches.open(name, [turn], 60)  # and the worker was killed
    fleet.restart()
    await fleet.write("ann")
    await fleet.look()
    assert fleet.api.sent == []

    await fleet.write("ann")
    await fleet.look()
    assert fleet.api.sent == [turn]


async def test_what_a_lost_worker_had_gathered_is_gathered_by_another(fleet: Fleet) -> None:
    (turn,) = await fleet.say("ann")
    await fleet.write("ann")
    fleet.restart()
    await fleet.look()
    assert fleet.api.sent == []

    await fleet.write("ann")
    await fleet.look()
    assert fleet.api.sent == [turn]


async def test_another_worker_goes_on_where_one_was_killed(fleet: Fleet) -> None:
    (turn,) = await fleet.waiting("ann")
    fleet.restart()
    await fleet.write("ann")
    fleet.api.end()
    await fleet.look()
    await fleet.write("ann")

    assert await fleet.states([turn]) == {TurnState.STORED}
    assert fleet.api.sent == [turn]


async def test_facts_that_were_answered_are_not_paid_for_again_when_memory_fails(
    fleet: Fleet,
) -> None:
    (turn,) = await fleet.waiting("ann")
    fleet.api.end()
    await fleet.look()
    fleet.memories.fail("add", Unavailable("store_unavailable"))
    await fleet.write("ann")
    assert await fleet.states([turn]) == {TurnState.PENDING}
    fleet.inspector.end_pause(REMEMBER_GATE)
    await fleet.write("ann")

    assert await fleet.states([turn]) == {TurnState.STORED}
    assert (fleet.api.sent, fleet.model.prompts) == ([turn], [])


async def test_facts_with_a_secret_are_extracted_by_a_call_and_by_no_further_batch(
    fleet: Fleet,
) -> None:
    (turn,) = await fleet.waiting("ann")
    secret = '{"memory": [{"text": "The card is 4111 1111 1111 1111"}]}'
    fleet.api.end({turn: fleet.api.answer(secret)})
    await fleet.look()
    await fleet.write("ann")

    assert await fleet.states([turn]) == {TurnState.STORED}
    assert (fleet.api.sent, len(fleet.model.prompts)) == ([turn], 1)


# -- looking


async def test_two_workers_do_not_look_at_the_same_batch(fleet: Fleet) -> None:
    await fleet.waiting("ann")
    fleet.api.looked.clear()
    fleet.make_due()
    for _ in range(2):
        await Follower(fleet.ledger.message_batches, fleet.api, parse_facts, {}, {}).look()
    assert len(fleet.api.looked) == 1


@pytest.mark.parametrize("call", ["has_ended", "results", "discard"])
async def test_a_look_that_fails_is_made_again(fleet: Fleet, call: str) -> None:
    (turn,) = await fleet.waiting("ann")
    fleet.api.end()
    fleet.api.fail(call, Unavailable("overloaded"))
    with observed(MessageBatchFailed) as seen:
        await fleet.look()
    assert [one.code for one in seen.of(MessageBatchFailed)] == ["overloaded"]
    await fleet.look()
    await fleet.write("ann")

    assert await fleet.states([turn]) == {TurnState.STORED}
    assert (fleet.api.sent, fleet.model.prompts) == ([turn], [])


@pytest.mark.parametrize("how", ["gone", "never_ends", "never_answers"])
async def test_a_batch_that_comes_to_no_end_holds_nobody_up(fleet: Fleet, how: str) -> None:
    (turn,) = await fleet.waiting("ann")
    if how == "gone":
        fleet.api.gone |= fleet.api.created.keys()
    else:
        fleet.age(message_batches.LONGEST_S)
    if how == "never_answers":
        fleet.api.fail("has_ended", Unavailable("overloaded"))
    await fleet.look()
    await fleet.write("ann")

    assert await fleet.states([turn]) == {TurnState.STORED}
    assert len(fleet.model.prompts) == 1


async def test_a_batch_that_was_not_deleted_is_deleted_later(fleet: Fleet) -> None:
    (turn,) = await fleet.waiting("ann")
    fleet.api.end()
    for _ in range(2):
        fleet.api.fail("discard", Unavailable("overloaded"))
        with observed(MessageBatchFailed) as seen:
            await fleet.look()
        assert [one.turns for one in seen.of(MessageBatchFailed)] == [0]
        (batch,) = await fleet.ledger.message_batches.all()
        assert (batch.turns, fleet.api.gone) == (0, set())
    await fleet.write("ann")
    assert await fleet.states([turn]) == {TurnState.STORED}

    with observed(MessageBatchEnded) as ended:
        await fleet.look()
    assert ended.of(MessageBatchEnded) == []
    assert fleet.api.gone == set(fleet.api.created)
    assert await fleet.ledger.message_batches.all() == []


@pytest.mark.parametrize("answers", [True, False])
async def test_a_batch_that_was_given_up_is_deleted_once_it_ends(
    fleet: Fleet, *, answers: bool
) -> None:
    await fleet.waiting("ann")
    fleet.age(message_batches.LONGEST_S)
    if not answers:
        fleet.api.fail("has_ended", Unavailable("overloaded"))
    for _ in range(2):
        await fleet.look()
        (batch,) = await fleet.ledger.message_batches.all()
        assert (batch.turns, fleet.api.gone) == (0, set())
    fleet.api.end()
    await fleet.look()
    assert fleet.api.gone == set(fleet.api.created)
    assert await fleet.ledger.message_batches.all() == []


def test_the_older_a_batch_is_the_less_often_it_is_looked_at() -> None:
    ages = (0.0, 3_600.0, 30_000.0)
    batches = [OpenMessageBatch("b00_1", "msgbatch_1", (), age_s, 1) for age_s in ages]
    assert [message_batches._look_again_s(one) for one in batches] == [20, 360, 600]
    assert message_batches._look_again_s(replace(batches[2], turns=0)) == 3000


async def test_a_user_who_is_erased_meanwhile_stays_erased(fleet: Fleet) -> None:
    (turn,) = await fleet.waiting("ann")
    await fleet.ledger.erasures.begin(lane_of("ann"), "op")
    await fleet.writer.write(lane_of("ann"))
    fleet.api.end()
    await fleet.look()
    await fleet.write("ann")

    assert await fleet.states([turn]) == {TurnState.ERASED}
    assert fleet.memories.rows == []
    assert "facts" not in fleet.inspector.job(turn)
    assert fleet.api.gone == set(fleet.api.created)


async def test_a_canary_whose_turn_goes_into_a_batch_opens_the_gate(fleet: Fleet) -> None:
    await fleet.waiting("ann")
    fleet.api.end()
    await fleet.look()
    await fleet.say("bob")
    fleet.memories.fail("add", AccessDenied("key_refused"))
    await fleet.write("ann")
    assert [gate.state for gate in await fleet.ledger.gates.not_open()] == ["shut"]
    fleet.inspector.end_pause(REMEMBER_GATE)
    await fleet.write("bob")
    await fleet.writer.gates.flush()

    assert "shut" not in [gate.state for gate in await fleet.ledger.gates.not_open()]


async def test_an_answer_of_a_batch_costs_half_and_is_counted_once(fleet: Fleet) -> None:
    good, bad = await fleet.waiting("ann", "bob")
    used = Usage(input=100, output=20)
    fleet.api.end(
        {
            good: replace(fleet.api.answer(), usage=used),
            bad: replace(fleet.api.answer("prose"), usage=used),
        }
    )
    fleet.api.fail("discard", Unavailable("overloaded"))
    with observed(ExtractionPaid) as seen:
        await fleet.look()
        await fleet.look()
    await fleet.write("ann", "bob")

    assert [(one.input_tokens, one.in_batch) for one in seen.of(ExtractionPaid)] == [
        (100, True)
    ] * 2
    assert [one.tenant_class for one in seen.contexts(ExtractionPaid)] == ["free"] * 2
    usage = await fleet.ledger.queries.usage("default", None)
    assert usage.extraction is not None
    assert usage.extraction.cost_usd == pytest.approx(2 * (0.1 + 0.04) / 2)
    assert (usage.extraction.usage.input, usage.extraction.facts) == (200, 2)


# -- settings


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"memory": "embedded"}, "AFTERWORD_EXTRACTION"),
        ({"memory": "selfhosted", "pin_extraction": False}, "AFTERWORD_PIN_EXTRACTION"),
    ],
)
def test_a_worker_that_could_make_no_batches_does_not_start(
    settings: Settings, changed: dict[str, Any], named: str
) -> None:
    with pytest.raises(Misconfigured, match=named):
        check_extraction(settings.model_copy(update={"extraction": "batch"} | changed))
    check_extraction(settings.model_copy(update=changed))
