"""What the prompt cache saves: conversations through the real prompt and the real adapter."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from afterword.shared.contracts import ChatRequest, Usage
from afterword.shared.ledger.records import PastTurn
from afterword.workers.adapters.claude.client import Claude
from afterword.workers.ports import Answer, Recall, RecalledMemory
from afterword.workers.replies import prompt
from tests.kit.claude_api.prompt_cache import MOST_MARKERS, markers
from tests.kit.claude_api.scripted_answers import ClaudeAnswer
from tests.kit.claude_api.server import ClaudeStandIn

START = datetime(2026, 5, 8, tzinfo=UTC)
SYSTEM = "You answer for a shop that sells heating, in its tone, by its rules. " * 80
REPLY = "A comfortable living room has about 21 degrees in winter, and a bedroom fewer. " * 5
HISTORY_TURNS = 20
LATE = 3


class Conversation:
    """One user's conversation, with other memories at every turn."""

    def __init__(self, claude: ClaudeStandIn, model: Claude, prompt_tokens: int) -> None:
        self._claude = claude
        self._model = model
        self._limits = prompt.Limits(prompt_tokens, 100, "claude-sonnet-5-5", SYSTEM, HISTORY_TURNS)
        self._turns: list[PastTurn] = []
        self.usages: list[Usage] = []

    async def go_on(self) -> None:
        number = len(self._turns)
        at = START + timedelta(minutes=number)
        said = f"And what of room number {number}, how warm should I keep that one in winter?"
        memories = [
            RecalledMemory(
                f"m{n}", "o", f"Turn {number} recalls fact {n} of this user.", 0.5, at, f"t{n}"
            )
            for n in range(5)
        ]
        built = prompt.build(
            ChatRequest(user_id="ann", message=said),
            Recall(tuple(memories)),
            overlay=(),
            history=self._turns[-HISTORY_TURNS:],
            limits=self._limits,
            user_tag="tag",
        )
        self._claude.will_answer(ClaudeAnswer(text=REPLY))
        answer = [item async for item in self._model.stream_answer(built.prompt)][-1]
        assert isinstance(answer, Answer)
        self.usages.append(answer.usage)
        self._turns.append(PastTurn(f"j0_{number:032x}", at, said, REPLY))


def total(usage: Usage) -> int:
    return usage.input + usage.cache_read + usage.cache_write


def share(usages: list[Usage]) -> float:
    """Return the share of the input that was read from the cache."""
    return sum(usage.cache_read for usage in usages) / sum(map(total, usages))


def show(usages: list[Usage]) -> None:
    print("\nturn  input  write   read  share")
    for turn, usage in enumerate(usages, 1):
        read = usage.cache_read
        print(
            f"{turn:4} {usage.input:6} {usage.cache_write:6} {read:6}  {read / total(usage):5.0%}"
        )
    print(f"from turn {LATE} on: {share(usages[LATE - 1 :]):.1%}")


@pytest.fixture
async def claude() -> AsyncIterator[ClaudeStandIn]:
    async with ClaudeStandIn() as claude:
        yield claude


async def talk(claude: ClaudeStandIn, turns: int, prompt_tokens: int) -> list[Usage]:
    model = Claude(
        api_key="k", base_url=claude.url, connections=1, total_s=20, first_event_s=20, idle_s=20
    )
    conversation = Conversation(claude, model, prompt_tokens)
    for _ in range(turns):
        await conversation.go_on()
    await model.aclose()
    show(conversation.usages)
    return conversation.usages


async def test_ten_turns_are_mostly_read_from_the_cache(claude: ClaudeStandIn) -> None:
    usages = await talk(claude, 10, 32_000)

    assert share(usages[LATE - 1 :]) >= 0.8
    assert all(markers(request.body) <= MOST_MARKERS for request in claude.requests)
    assert all(isinstance(one.body["messages"][-1]["content"], str) for one in claude.requests)


@pytest.mark.parametrize("prompt_tokens", [32_000, 6_000], ids=["by count", "by tokens"])
async def test_forty_turns_keep_the_cache_while_old_ones_go(
    claude: ClaudeStandIn, prompt_tokens: int
) -> None:
    usages = await talk(claude, 40, prompt_tokens)

    system = usages[0].cache_write
    lost = [usage for usage in usages[LATE - 1 :] if usage.cache_read <= system]
    assert len(lost) <= 10, "the beginning of the history moves seldom"
    assert share(usages[LATE - 1 :]) >= 0.7
