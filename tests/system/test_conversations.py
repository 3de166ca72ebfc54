"""Conversations with real workers: in order, each message with those before it in its prompt."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from afterword.producer import ConversationBusy, InvalidRequest, Job, JobFailed, Producer, Usage
from afterword.workers.replies.prompt import STOPPED
from tests.kit.claude_api.scripted_answers import ClaudeAnswer
from tests.kit.claude_api.wire_format import told
from tests.kit.waiting import wait_until
from tests.kit.workers.fleet import CANARY, Fleet

pytestmark = [pytest.mark.system, pytest.mark.redis, pytest.mark.slow]

PATIENCE_S = 30.0
SAID = [f"{word} {CANARY}" for word in ("one", "two", "three")]
REPLIES = [f"{word} {CANARY} answered" for word in ("first", "second", "third")]


@pytest.fixture(scope="module")
def crew() -> Iterator[Fleet]:
    with Fleet(AFTERWORD_MEMORY="off") as fleet:
        fleet.start("responses", "responses")
        yield fleet


@pytest.fixture
def fleet(crew: Fleet) -> Iterator[Fleet]:
    """Give the fleet with nothing left over from other tests."""
    crew.claude.forget()
    yield crew
    crew.claude.release()


@pytest.fixture
def producer(fleet: Fleet) -> Iterator[Producer]:
    with Producer(fleet.settings) as producer:
        yield producer


def at_once(producer: Producer, talk: str) -> list[Job]:
    """Submit all three messages before any of them has a reply."""
    asked = [{"user_id": "ann", "message": text, "conversation_id": talk} for text in SAID]
    return [job for job in producer.submit_many(asked) if isinstance(job, Job)]


def held(fleet: Fleet, count: int = 1) -> None:
    wait_until(lambda: fleet.claude.held() == count, "an answer is held", PATIENCE_S)


def check_order(fleet: Fleet, jobs: list[Job], asked: list[int]) -> None:
    """Check the replies, and for each request to the model that its prompt holds all before."""
    assert [job.wait(PATIENCE_S).text for job in jobs] == REPLIES
    prompts = [told(one["body"]) for one in fleet.claude.requests()]
    assert len(prompts) == len(asked)
    for prompt, number in zip(prompts, asked, strict=True):
        turns = [text for pair in zip(SAID, REPLIES, strict=True) for text in pair]
        said = [text for part in prompt for text in turns if text in part]
        assert said == turns[: 2 * number + 1]


def test_three_messages_sent_at_once_are_answered_one_by_one(
    fleet: Fleet, producer: Producer
) -> None:
    fleet.claude.will_answer(*[ClaudeAnswer(text=text, hold=True) for text in REPLIES])
    jobs = at_once(producer, "order")
    for _ in jobs:
        held(fleet)
        assert fleet.claude.in_flight() == 1
        fleet.claude.release(1)
    check_order(fleet, jobs, asked=[0, 1, 2])


def test_a_worker_killed_in_between_changes_no_order(fleet: Fleet, producer: Producer) -> None:
    fleet.claude.will_answer(
        ClaudeAnswer(text=REPLIES[0]),
        ClaudeAnswer(text=REPLIES[1], hold=True),
        ClaudeAnswer(text=REPLIES[1]),
        ClaudeAnswer(text=REPLIES[2]),
    )
    jobs = at_once(producer, "killed")
    held(fleet)
    for worker in [one for one in fleet.workers if one.runs]:
        worker.kill()
    fleet.start("responses", "responses")
    check_order(fleet, jobs, asked=[0, 1, 1, 2])


def test_a_message_is_refused_while_another_has_no_reply(fleet: Fleet, producer: Producer) -> None:
    fleet.claude.will_answer(ClaudeAnswer(text=REPLIES[0], hold=True))
    first = producer.submit(user_id="ann", message=SAID[0], conversation_id="reject")
    held(fleet)
    with pytest.raises(ConversationBusy):
        producer.submit(
            user_id="ann", message=SAID[1], conversation_id="reject", when_busy="reject"
        )
    with pytest.raises(InvalidRequest, match="when_busy"):
        producer.submit(user_id="ann", message=SAID[1], when_busy="reject")
    busy = ("--conversation", "reject", "--when-busy", "reject")
    shown = fleet.afterword("submit", "hello", "--user", "ann", *busy, code=1).stderr
    assert shown == "afterword: conversation_id: an earlier message has no reply yet\n"
    fleet.claude.release()
    first.wait(PATIENCE_S)
    producer.submit(
        user_id="ann", message=SAID[1], conversation_id="reject", when_busy="reject"
    ).wait(PATIENCE_S)


def test_an_interruption_cuts_the_call_and_is_answered(fleet: Fleet, producer: Producer) -> None:
    before = fleet.claude.abandoned()
    fleet.claude.will_answer(
        ClaudeAnswer(text=REPLIES[0], hold=True), ClaudeAnswer(text=REPLIES[1])
    )
    first = producer.submit(user_id="ann", message=SAID[0], conversation_id="interrupt")
    held(fleet)
    new = producer.submit(
        user_id="ann", message=SAID[1], conversation_id="interrupt", when_busy="interrupt"
    )
    assert new.wait(PATIENCE_S).text == REPLIES[1]
    wait_until(lambda: fleet.claude.abandoned() == before + 1, "the call is cut", PATIENCE_S)
    with pytest.raises(JobFailed, match="cancelled: interrupted"):
        first.wait()
    assert first.cancel(), "it is cancelled already"
    *_, stopped, asked = told(fleet.claude.requests()[-1]["body"])
    assert stopped.startswith(SAID[0])
    assert stopped.endswith(STOPPED)
    assert SAID[1] in asked


def test_a_burst_is_one_message_to_the_model(fleet: Fleet, producer: Producer) -> None:
    before = fleet.claude.abandoned()
    fleet.claude.will_answer(
        ClaudeAnswer(text=REPLIES[0], hold=True), ClaudeAnswer(text=REPLIES[1])
    )
    first = producer.submit(
        user_id="ann", message=SAID[0], conversation_id="burst", when_busy="merge"
    )
    held(fleet)

    second = producer.submit(
        user_id="ann", message=SAID[1], conversation_id="burst", when_busy="merge"
    )

    assert second.id == first.id
    assert first.wait(PATIENCE_S).text == REPLIES[1]
    assert told(fleet.claude.requests()[-1]["body"])[-1] == f"{SAID[0]}\n{SAID[1]}"
    wait_until(lambda: fleet.claude.abandoned() == before + 1, "the call is cut", PATIENCE_S)


def test_the_cost_of_replies_is_summed_and_shown(fleet: Fleet, producer: Producer) -> None:
    jobs = [producer.submit(user_id="bob", tenant="paying", message=text) for text in SAID]
    spent = [job.wait(PATIENCE_S).usage for job in jobs]
    found = producer.usage(tenant="paying", user_id="bob")
    assert found.replies == 3
    assert found.usage == Usage(
        **{name: sum(getattr(one, name) for one in spent) for name, _ in spent[0]}
    )
    assert producer.usage(tenant="paying").usage == found.usage
    shown = fleet.afterword("usage", "--tenant", "paying", "--user", "bob", "--json").stdout
    assert type(found).model_validate_json(shown) == found
    assert f"{found.usage.input}" in fleet.afterword("usage", "--tenant", "paying").stdout


@pytest.mark.parametrize("seconds", ["nan", "inf", "-1"])
def test_a_wait_is_a_finite_time(fleet: Fleet, seconds: str) -> None:
    refused = fleet.afterword("submit", "hello", "--user", "ann", f"--wait={seconds}", code=2)
    assert "--wait" in refused.stderr
