"""Message batches over HTTP: what is sent, what is made of each result, and errors."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from afterword.shared.contracts import Usage
from afterword.shared.errors import (
    AccessDenied,
    BadAnswer,
    NoSuchModel,
    ProviderError,
    RateLimited,
    Rejected,
    Unavailable,
)
from afterword.workers.adapters.claude.batches import ClaudeBatches
from afterword.workers.adapters.claude.client import Claude
from afterword.workers.ports import Answer, BatchGone, ChatMessage, Prompt
from tests.kit.claude_api.scripted_answers import ClaudeAnswer
from tests.kit.claude_api.server import ClaudeStandIn

KEY = "sk-canary-key"
MANY_S = 60.0


@pytest.fixture
async def claude() -> AsyncIterator[ClaudeStandIn]:
    async with ClaudeStandIn() as claude:
        yield claude


@pytest.fixture
async def api(claude: ClaudeStandIn) -> AsyncIterator[ClaudeBatches]:
    client = Claude(
        api_key=KEY, base_url=claude.url, connections=2,
        total_s=MANY_S, first_event_s=MANY_S, idle_s=MANY_S,
    )  # fmt: skip
    api = ClaudeBatches(client)
    yield api
    await api.aclose()


def prompt(text: str) -> Prompt:
    return Prompt(("You extract.",), (ChatMessage("user", text),), "claude-haiku-5-5", 100, "tag")


async def create(api: ClaudeBatches, *texts: str) -> str:
    return await api.create([(text, prompt(f"about {text}")) for text in texts])


async def test_prompts_are_sent_as_calls_of_their_own_are_and_answered(
    api: ClaudeBatches, claude: ClaudeStandIn
) -> None:
    batch_id = await create(api, "a", "b")
    (sent,) = claude.requests
    assert [one["custom_id"] for one in sent.body["requests"]] == ["a", "b"]
    params = sent.body["requests"][0]["params"]
    assert "stream" not in params
    assert params["system"][-1]["cache_control"] == {"type": "ephemeral"}
    assert await api.has_ended(batch_id) is False

    claude.batches.end()
    assert await api.has_ended(batch_id) is True
    found = await api.results(batch_id)
    assert isinstance(found["a"], Answer)
    assert found["a"].text.startswith("You said: about a")
    assert (found["a"].stop_reason, found["a"].usage.output) == ("end_turn", 20)

    await api.discard(batch_id)
    assert claude.batches.deleted == [batch_id]
    with pytest.raises(BatchGone):
        await api.has_ended(batch_id)
    with pytest.raises(BatchGone):
        await api.results(batch_id)
    await api.discard(batch_id)


async def test_a_request_without_a_usable_answer_says_what_it_used(
    api: ClaudeBatches, claude: ClaudeStandIn
) -> None:
    asked = {"model": "m", "messages": [{"role": "user", "content": "x"}]}
    empty = claude.batches.message(asked, content=[])
    batch_id = await create(api, "fails", "late", "stopped", "empty", "odd")
    odd = {"type": "message", "content": [{"type": "text", "text": 7}], "stop_reason": "end_turn"}
    claude.batches.end(
        {"fails": "errored", "late": "expired", "stopped": "canceled", "empty": empty, "odd": odd}
    )

    assert await api.results(batch_id) == {
        **dict.fromkeys(("fails", "late", "stopped")),
        "empty": Answer("", "", "m", Usage(input=1, output=20)),
        "odd": Answer("", "", "", Usage()),
    }


async def test_a_result_that_cannot_be_read_is_left_out(
    api: ClaudeBatches, claude: ClaudeStandIn
) -> None:
    batch_id = await create(api, "a")
    claude.batches.end()
    results = claude.batches.batches[batch_id].results
    assert results is not None
    results += [{"custom_id": 7}, {"result": {"type": "succeeded"}}]

    assert list(await api.results(batch_id)) == ["a"]


@pytest.mark.parametrize("mark", ["\u2028", "\u2029", "\x85", "\x1c", "\x0b"])
async def test_an_answer_is_read_whole_whatever_characters_are_in_it(
    api: ClaudeBatches, claude: ClaudeStandIn, mark: str
) -> None:
    said = f"one{mark}two"
    asked = {"model": "m", "messages": [{"role": "user", "content": "x"}]}
    batch_id = await create(api, "a", "b")
    whole = claude.batches.message(asked, content=[{"type": "text", "text": said}])
    claude.batches.end({"a": whole})

    found = await api.results(batch_id)
    assert isinstance(found["a"], Answer)
    assert (found["a"].text, len(found)) == (said, 2)


async def test_a_batch_is_found_by_its_size_and_age(
    api: ClaudeBatches, claude: ClaudeStandIn
) -> None:
    first, _, third = await create(api, "a"), await create(api, "b", "c"), await create(api, "d")

    assert await api.find(1, 3600) == [third, first]
    claude.batches.end()
    assert await api.find(1, 3600) == [third, first]
    assert await api.find(3, 3600) == []
    assert await api.find(1, -3600) == []


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (ClaudeAnswer(status=401), AccessDenied),
        (ClaudeAnswer(status=429), RateLimited),
        (ClaudeAnswer(status=400), Rejected),
        (ClaudeAnswer(status=404), NoSuchModel),
        (ClaudeAnswer(status=500), Unavailable),
        (ClaudeAnswer(status=529), Unavailable),
    ],
)
async def test_what_the_provider_refuses_is_told_apart(
    api: ClaudeBatches, claude: ClaudeStandIn, answer: ClaudeAnswer, kind: type[ProviderError]
) -> None:
    claude.batch_answer = answer
    with pytest.raises(kind) as raised:
        await create(api, "marmalade")
    assert "marmalade" not in str(raised.value)
    assert "marmalade" not in repr(raised.value.__context__)


@pytest.mark.parametrize("found", [{}, [], {"id": "../../x"}, {"data": 7}, "nothing"])
async def test_an_answer_that_is_no_batch_is_an_error(
    api: ClaudeBatches, claude: ClaudeStandIn, found: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claude.batches, "respond", lambda *_: (200, found))
    with pytest.raises(BadAnswer):
        await create(api, "a")
    with pytest.raises(BadAnswer):
        await api.has_ended("x")
    with pytest.raises(BadAnswer):
        await api.find(1, 60)
