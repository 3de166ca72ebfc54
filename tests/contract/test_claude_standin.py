"""The Claude stand-in is faithful enough: the real SDK reads it, and it can take the load."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import anthropic
import httpx2
import pytest

from tests.kit.claude_api.process import ClaudeProcess
from tests.kit.claude_api.scripted_answers import ClaudeAnswer, ServerFault
from tests.kit.claude_api.server import ClaudeStandIn
from tests.kit.waiting import until, wait_until

pytestmark = pytest.mark.serial  # limits of a fifth of a second, and a thousand connections

ASKED: dict[str, Any] = {
    "model": "claude-sonnet-5-5",
    "max_tokens": 100,
    "messages": [{"role": "user", "content": "How warm?"}],
}


def sdk(url: str, connections: int = 10) -> anthropic.AsyncAnthropic:
    limits = httpx2.Limits(max_connections=connections)
    http = anthropic.DefaultAioHttpClient(limits=limits)
    # A thousand connections at once may take longer than the SDK's five seconds for one.
    return anthropic.AsyncAnthropic(
        api_key="k", base_url=url, max_retries=0, http_client=http, timeout=120.0
    )


@pytest.fixture
async def claude() -> AsyncIterator[ClaudeStandIn]:
    async with ClaudeStandIn() as claude:
        yield claude


@pytest.fixture
async def client(claude: ClaudeStandIn) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with sdk(claude.url) as client:
        yield client


async def test_the_sdk_reads_a_whole_message(client: anthropic.AsyncAnthropic) -> None:
    message = await client.messages.create(**ASKED, system="The user prefers Celsius.")
    assert isinstance(message, anthropic.types.Message)
    assert message.stop_reason == "end_turn"
    (block,) = message.content
    assert block.type == "text"
    assert "How warm?" in block.text
    assert "°C" in block.text


async def test_the_sdk_reads_the_same_message_as_a_stream(
    claude: ClaudeStandIn, client: anthropic.AsyncAnthropic
) -> None:
    claude.will_answer(
        ClaudeAnswer(thinking="hm", text="Warm enough."),
        ClaudeAnswer(thinking="hm", text="Warm enough."),
    )
    async with client.messages.stream(**ASKED) as stream:
        streamed = await stream.get_final_message()
    whole = await client.messages.create(**ASKED)
    assert [block.type for block in streamed.content] == ["thinking", "text"]
    assert [block.type for block in whole.content] == ["thinking", "text"]
    assert (streamed.stop_reason, streamed.usage) == (whole.stop_reason, whole.usage)


async def test_the_sdk_counts_tokens(client: anthropic.AsyncAnthropic) -> None:
    counted = await client.messages.count_tokens(model="m", messages=ASKED["messages"])
    assert counted.input_tokens > 0


@pytest.mark.parametrize(
    "extra",
    [
        {"messages": []},
        {"messages": [{"role": "assistant", "content": "Hi"}]},
        {"messages": [{"role": "user", "content": " "}]},
        {"extra_body": {"temperature": 0.5}},
    ],
    ids=["no message", "assistant first", "blank text", "temperature"],
)
async def test_it_refuses_what_the_api_refuses(
    client: anthropic.AsyncAnthropic, extra: dict[str, Any]
) -> None:
    with pytest.raises(anthropic.BadRequestError) as caught:
        await client.messages.create(**ASKED | extra)
    assert caught.value.type == "invalid_request_error"
    assert caught.value.request_id


async def test_an_unknown_path_is_not_found(claude: ClaudeStandIn) -> None:
    async with sdk(f"{claude.url}/elsewhere") as client:
        with pytest.raises(anthropic.NotFoundError):
            await client.messages.create(**ASKED)


async def test_a_play_waits_for_the_request_it_is_meant_for(
    claude: ClaudeStandIn, client: anthropic.AsyncAnthropic
) -> None:
    claude.will_answer(
        ClaudeAnswer(status=500, match="poison", times=None), ClaudeAnswer(text="once")
    )
    poison = ASKED | {"messages": [{"role": "user", "content": "poison"}]}
    said = [(await client.messages.create(**ASKED)).content[0].text for _ in range(2)]
    assert said[0] == "once"
    assert "How warm?" in said[1]
    for _ in range(2):
        with pytest.raises(anthropic.InternalServerError):
            await client.messages.create(**poison)


async def test_it_holds_a_thousand_connections(claude: ClaudeStandIn) -> None:
    many = 1000
    claude.will_answer(ClaudeAnswer(hold=True, times=None))
    async with sdk(claude.url, connections=many) as client:
        calls = [asyncio.create_task(client.messages.create(**ASKED)) for _ in range(many)]
        await until(lambda: claude.held == many, "a thousand calls are under way", timeout=30)
        claude.release()
        assert len(await asyncio.gather(*calls)) == many


async def test_it_can_be_steered_from_another_process() -> None:
    with ClaudeProcess() as claude:
        claude.will_answer(
            ClaudeAnswer(hold=True, text="first"),
            ClaudeAnswer(status=529),
            ClaudeAnswer(fault=ServerFault.CUT),
        )
        async with sdk(claude.url) as client:
            call = asyncio.create_task(client.messages.create(**ASKED))
            await asyncio.to_thread(wait_until, lambda: claude.held() == 1, "the call is held")
            assert claude.in_flight() == 1
            await asyncio.to_thread(claude.release)
            (block,) = (await call).content
            assert block.type == "text"
            assert block.text == "first"
            with pytest.raises(anthropic.OverloadedError):
                await client.messages.create(**ASKED)
        requests = claude.requests()
        assert [request["path"] for request in requests] == ["/v1/messages"] * 2
        assert requests[0]["body"]["messages"] == ASKED["messages"]
        claude.forget()
        assert claude.requests() == []
