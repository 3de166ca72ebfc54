"""The main job: what a user said is known at the next question, and to nobody else."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from afterword.producer import Producer, Reply, TurnState
from tests.kit.claude_api.wire_format import told
from tests.kit.waiting import wait_until
from tests.kit.workers.fleet import CANARY, Fleet

pytestmark = [pytest.mark.system, pytest.mark.redis, pytest.mark.slow]

SECRET = f"{CANARY}-of-ann"
SAID = f"I prefer all temperatures in Celsius, says {SECRET}."
QUESTION = "What is a comfortable room temperature?"


@dataclass(frozen=True)
class Story:
    """What the replies were, before everything was restarted and after, and what was asked."""

    first: Reply
    again: Reply
    stranger: Reply
    namesake: Reply
    asked: tuple[tuple[str, ...], ...]
    tags: tuple[str, ...]

    def prompt(self, reply: Reply) -> tuple[str, ...]:
        """Return what the model was told for a reply: one request came for each, in order."""
        replies = (self.first, self.stranger, self.namesake, self.again)
        return self.asked[replies.index(reply)]


@pytest.fixture(scope="module")
def story() -> Iterator[Story]:
    with Fleet() as fleet:
        fleet.start("responses", "memories")
        with Producer(fleet.settings) as producer:
            job = producer.submit(user_id="ann", message=SAID, system=f"Mind the {CANARY}.")
            first = job.wait()
            wait_until(lambda: job.status().turn is TurnState.STORED, "the turn is stored", 20)
        fleet.stop()
        fleet.valkey.restart()
        fleet.start("responses", "memories")
        with Producer(fleet.settings) as producer:
            stranger = producer.submit(user_id="bob", message=QUESTION).wait()
            namesake = producer.submit(user_id="ann", message=QUESTION, tenant="other").wait()
            again = producer.submit(user_id="ann", message=QUESTION).wait()
        requests = fleet.claude.requests()
        asked = tuple(told(one["body"]) for one in requests)
        tags = tuple(one["body"]["metadata"]["user_id"] for one in requests)
        fleet.stop()
        yield Story(first, again, stranger, namesake, asked, tags)


def _block(prompt: tuple[str, ...]) -> str | None:
    found = re.search(r"<memories>\n(.*)\n</memories>", prompt[-1], re.DOTALL)
    return found[1] if found else None


def test_the_first_reply_comes_without_memories(story: Story) -> None:
    assert (story.first.memory, story.first.memories) == ("fresh", ())
    assert _block(story.prompt(story.first)) is None
    assert SAID in story.prompt(story.first)[-1]


def test_after_a_restart_of_everything_the_memory_is_in_the_block_of_the_prompt(
    story: Story,
) -> None:
    block = _block(story.prompt(story.again))
    assert block is not None
    assert SAID in block
    assert QUESTION in story.prompt(story.again)[-1].partition("</memories>")[2]
    assert "21 °C" in story.again.text


def test_the_reply_lists_the_memory_and_says_how_it_was(story: Story) -> None:
    assert story.again.memory == "fresh"
    [memory] = story.again.memories
    assert memory.text == SAID
    assert memory.created_at is not None
    assert 0 < (memory.score or 0) <= 1


def test_only_the_last_message_of_a_prompt_tells_of_memories(story: Story) -> None:
    assert not [text for text in story.prompt(story.again)[:-1] if SECRET in text]


@pytest.mark.parametrize("who", ["stranger", "namesake"])
def test_another_user_does_not_get_the_memory(story: Story, who: str) -> None:
    reply: Reply = getattr(story, who)
    assert (reply.memory, reply.memories) == ("fresh", ())
    assert not [text for text in story.prompt(reply) if SECRET in text]
    assert "70 °F" in reply.text


def test_a_reply_says_what_it_cost_and_where_the_time_went(story: Story) -> None:
    for reply in (story.first, story.again):
        assert reply.usage.input > 0
        assert reply.usage.output > 0
        assert reply.attempts == 1
        times = reply.timings_ms
        assert times.total == times.queued + times.recall + times.model


def test_the_provider_knows_users_by_tags_that_mean_nothing(story: Story) -> None:
    first, stranger, namesake, again = story.tags
    assert first == again
    assert len({first, stranger, namesake}) == 3
    assert not [tag for tag in story.tags if "ann" in tag or "bob" in tag]
