"""Every way in which a call to Claude can fail, and the error it becomes: one row each."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from afterword.shared.errors import (
    AccessDenied,
    BadAnswer,
    Fault,
    NoSuchModel,
    ProviderError,
    RateLimited,
    Rejected,
    Unavailable,
)
from afterword.workers.adapters.claude.client import Claude
from afterword.workers.ports import Answer, ChatMessage, Prompt
from tests.kit.claude_api.failure_cases import (
    FAILURES,
    GOOD,
    SECRET,
    SHORT_S,
    FailureCase,
    GoodAnswer,
)
from tests.kit.claude_api.scripted_answers import ClaudeAnswer, ServerFault
from tests.kit.claude_api.server import ClaudeStandIn
from tests.kit.secrecy import assert_quotes_nothing
from tests.kit.still_clock import begin_time_with

pytestmark = pytest.mark.serial  # limits of a fifth of a second, and a thousand connections

KEY = "sk-canary-key"
LONG_S = 20.0

PROMPT = Prompt(
    system=(f"system {SECRET}",),
    messages=(ChatMessage("user", f"message {SECRET}"),),
    model="claude-sonnet-5-5",
    max_tokens=100,
    user_tag="tag",
)

BLAMES: dict[type[ProviderError], Fault] = {
    Unavailable: Fault.PROVIDER,
    RateLimited: Fault.PROVIDER,
    AccessDenied: Fault.OPERATOR,
    NoSuchModel: Fault.OPERATOR,
    Rejected: Fault.REQUEST,
    BadAnswer: Fault.REQUEST,
}


@pytest.fixture
async def claude() -> AsyncIterator[ClaudeStandIn]:
    async with ClaudeStandIn() as claude:
        yield claude


def model_at(url: str, **limits: float) -> Claude:
    patient: dict[str, Any] = {"total_s": LONG_S, "first_event_s": LONG_S, "idle_s": LONG_S}
    return Claude(api_key=KEY, base_url=url, connections=2, **patient | limits)


async def failure_of(model: Claude, prompt: Prompt = PROMPT) -> ProviderError:
    items: list[str | Answer] = []
    with pytest.raises(ProviderError) as caught:
        await collect(model.stream_answer(prompt), items)
    assert not any(isinstance(item, Answer) for item in items), "a failed call has no answer"
    await model.aclose()
    return caught.value


async def collect(answering: AsyncIterator[str | Answer], items: list[str | Answer]) -> None:
    async for item in answering:
        items.append(item)  # noqa: PERF401 what came before an error counts


@pytest.mark.parametrize("row", FAILURES, ids=lambda row: row.name)
async def test_failure(
    claude: ClaudeStandIn, row: FailureCase, monkeypatch: pytest.MonkeyPatch
) -> None:
    claude.will_answer(row.play)
    begin_time_with(lambda: claude.requests, monkeypatch)
    error = await failure_of(model_at(claude.url, **row.limits))
    assert (type(error), error.code, error.retry_after_s) == (
        row.error,
        row.code,
        row.retry_after_s,
    )
    assert error.fault is BLAMES[row.error]
    assert len(claude.requests) == 1, "nothing is tried twice"
    assert_quotes_nothing(error, SECRET, KEY)


@pytest.mark.parametrize("good", GOOD, ids=lambda good: good.name)
async def test_an_answer_despite_an_oddity(claude: ClaudeStandIn, good: GoodAnswer) -> None:
    claude.will_answer(good.play)
    model = model_at(claude.url)
    items: list[str | Answer] = []
    await collect(model.stream_answer(PROMPT), items)
    await model.aclose()
    *pieces, answer = items
    assert isinstance(answer, Answer)
    assert "".join(str(piece) for piece in pieces) == answer.text
    assert (answer.text, answer.stop_reason) == (good.text, good.stop_reason)


def test_names_tell_rows_apart() -> None:
    names = [row.name for row in FAILURES]
    assert [name for name in names if names.count(name) > 1] == []


async def test_a_prompt_that_is_not_unicode_is_rejected(claude: ClaudeStandIn) -> None:
    prompt = Prompt((), (ChatMessage("user", f"{SECRET} \ud800"),), "claude-sonnet-5-5", 100, "tag")
    error = await failure_of(model_at(claude.url), prompt)
    assert (type(error), error.code) == (Rejected, "not_unicode")
    assert_quotes_nothing(error, SECRET, KEY)


@pytest.mark.parametrize(
    "fault",
    [
        None,
        ServerFault.ERROR_EVENT,
        ServerFault.TRUNCATE,
        ServerFault.CUT,
        ServerFault.STALL,
        ServerFault.BAD_JSON,
        ServerFault.HTML,
    ],
)
async def test_an_error_keeps_the_providers_request_id(
    claude: ClaudeStandIn, fault: ServerFault | None
) -> None:
    claude.will_answer(ClaudeAnswer(status=200 if fault else 529, fault=fault))
    error = await failure_of(model_at(claude.url, idle_s=SHORT_S))
    assert error.request_id == "req_standin_1"
