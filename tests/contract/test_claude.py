"""The Claude adapter over HTTP: requests, text, time limits and connections."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, suppress
from typing import Any

import pytest

from afterword.shared.errors import AccessDenied, BadAnswer, NoSuchModel, ProviderError
from afterword.workers.adapters.claude import client
from afterword.workers.adapters.claude.client import Claude
from afterword.workers.ports import Answer, ChatMessage, Prompt
from tests.kit.claude_api.scripted_answers import ClaudeAnswer, ServerFault
from tests.kit.claude_api.server import ClaudeStandIn
from tests.kit.servers.scripted_http_server import whole as whole_answer
from tests.kit.waiting import until

pytestmark = pytest.mark.serial  # limits of a second, and hundreds of connections

KEY = "sk-canary-key"
CONNECTIONS = 5
MANY_S = 60.0

MakeModel = Callable[..., Claude]


@pytest.fixture
async def claude() -> AsyncIterator[ClaudeStandIn]:
    async with ClaudeStandIn() as claude:
        yield claude


@pytest.fixture
async def make(claude: ClaudeStandIn) -> AsyncIterator[MakeModel]:
    models: list[Claude] = []

    def make_model(**limits: Any) -> Claude:
        patient = {"total_s": MANY_S, "first_event_s": MANY_S, "idle_s": MANY_S} | limits
        models.append(Claude(api_key=KEY, base_url=claude.url, connections=CONNECTIONS, **patient))
        return models[-1]

    yield make_model
    for model in models:
        await model.aclose()


@pytest.fixture
def model(make: MakeModel) -> Claude:
    return make()


def prompt(text: str = "What is warm?", system: tuple[str, ...] = ()) -> Prompt:
    return Prompt(system, (ChatMessage("user", text),), "claude-sonnet-5-5", 100, "tag")


async def whole(model: Claude, asked: Prompt | None = None) -> Answer:
    items = [item async for item in model.stream_answer(asked or prompt())]
    assert isinstance(items[-1], Answer)
    return items[-1]


# --- requests


async def test_the_request_holds_the_prompt_and_nothing_else(
    claude: ClaudeStandIn, model: Claude
) -> None:
    messages = (
        ChatMessage("user", "Hi"),
        ChatMessage("assistant", "Hello"),
        ChatMessage("user", "Warm?"),
    )
    await whole(model, Prompt(("Rules.", "Manners."), messages, "claude-haiku-5-5", 77, "tag-1"))
    (request,) = claude.requests
    assert request.path == "/v1/messages"
    assert request.body == {
        "model": "claude-haiku-5-5",
        "max_tokens": 77,
        "system": [
            {"type": "text", "text": "Rules."},
            {"type": "text", "text": "Manners.", "cache_control": {"type": "ephemeral"}},
        ],
        "messages": [
            {"role": "user", "content": "Hi"},
            {
                "role": "assistant",
                "content": [
                    {"type": "text", "text": "Hello", "cache_control": {"type": "ephemeral"}}
                ],
            },
            {"role": "user", "content": "Warm?"},
        ],
        "metadata": {"user_id": "tag-1"},
        "stream": True,
    }


async def test_without_a_system_prompt_none_is_sent(claude: ClaudeStandIn, model: Claude) -> None:
    await whole(model)
    assert "system" not in claude.requests[0].body


async def test_environment_variables_of_the_sdk_are_ignored(
    claude: ClaudeStandIn, model: Claude, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("API_KEY", "AUTH_TOKEN", "PROFILE", "BASE_URL"):
        monkeypatch.setenv(f"ANTHROPIC_{name}", "http://elsewhere.invalid")
    await whole(model)
    assert claude.requests[0].headers["authorization"] == f"Bearer {KEY}"


async def test_a_redirect_is_not_followed(claude: ClaudeStandIn, model: Claude) -> None:
    async with ClaudeStandIn() as elsewhere:
        location = {"location": f"{elsewhere.url}/v1/messages"}
        claude.will_answer(ClaudeAnswer(status=307, headers=location, raw_body="moved"))
        with pytest.raises(AccessDenied, match="wrong_address"):
            await whole(model)
        assert not elsewhere.requests, "the key and the prompt went elsewhere"


async def test_no_log_line_holds_the_prompt_or_the_key(
    claude: ClaudeStandIn, model: Claude, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    logging.getLogger("anthropic").setLevel(logging.DEBUG)
    claude.will_answer(ClaudeAnswer(), ClaudeAnswer(status=500))
    await whole(model, prompt("canary-secret"))
    with pytest.raises(ProviderError):
        await whole(model, prompt("canary-secret"))
    assert "canary-secret" not in caplog.text
    assert KEY not in caplog.text


def test_importing_the_client_opens_no_connection() -> None:
    """A client that is shared across a fork gives users each other's answers."""
    program = (
        "import gc, afterword.workers.adapters.claude.client, anthropic, aiohttp;"
        "kinds = (anthropic.AsyncAnthropic, aiohttp.ClientSession);"
        "adapter = afterword.workers.adapters.claude.client.Claude(api_key='k', base_url='http://127.0.0.1:1',"
        " connections=1, total_s=1, first_event_s=1, idle_s=1);"
        "assert not [o for o in gc.get_objects() if isinstance(o, kinds)]"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", program], check=True, env=os.environ)


def test_the_first_call_of_a_worker_imports_nothing() -> None:
    """The event loop would stand still meanwhile: searches of memory time out beside it."""
    program = """
import asyncio, sys
from afterword.shared.errors import Unavailable
from afterword.shared.settings import Settings
from afterword.workers.ports import ChatMessage, Prompt
from afterword.workers.wiring import open_model
settings = Settings(anthropic_api_key="k", anthropic_base_url="http://127.0.0.1:1")
async def ask():
    model = open_model(settings)
    before = set(sys.modules)
    try:
        await anext(model.stream_answer(Prompt((), (ChatMessage("user", "hi"),), "m", 9, "tag")))
    except Unavailable as error:
        print(error.code, sorted(set(sys.modules) - before))
    await model.aclose()
asyncio.run(ask())
"""
    command = [sys.executable, "-W", "ignore", "-c", program]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "connection_refused []"


# --- text and usage


async def test_thinking_is_not_text(claude: ClaudeStandIn, model: Claude) -> None:
    claude.will_answer(ClaudeAnswer(thinking="let me see", text="Warm."))
    assert (await whole(model)).text == "Warm."


async def test_pings_count_while_the_model_may_be_thinking(
    claude: ClaudeStandIn, make: MakeModel
) -> None:
    """If its thinking is not shown, a working model sends only pings."""
    claude.will_answer(
        ClaudeAnswer(thinking="hm", text="Warm.", fault=ServerFault.PINGS_A_WHILE, at=3, gap_s=0.15)
    )
    assert (await whole(make(idle_s=1.5))).text == "Warm."


# --- rate-limit headers


def budget(name: str, remaining: str, reset: str) -> dict[str, str]:
    """Return the headers of one budget; the server's clock is at 12:00:00."""
    return {
        f"anthropic-ratelimit-{name}-remaining": remaining,
        f"anthropic-ratelimit-{name}-reset": reset,
    }


@pytest.mark.parametrize(
    ("headers", "pause_s"),
    [
        ({}, 0.0),
        (budget("requests", "0", "2026-10-01T12:00:20Z"), 20.0),
        (budget("tokens", "0", "2026-10-01T12:00:20.5Z"), 20.5),
        (budget("input-tokens", "0", "2026-10-01T14:00:20+02:00"), 20.0),
        (budget("output-tokens", "0", "2026-10-01T11:59:00Z"), 0.0),
        (budget("requests", "1", "2026-10-01T12:00:20Z"), 0.0),
        (budget("requests", "0", "2026-10-02T12:00:00Z"), 900.0),
        (budget("requests", "0", "soon"), 0.0),
        (budget("requests", "0", "2026-10-01T12:00:20"), 0.0),
        (budget("requests", "0", "2026-10-01T12:00:20Z") | {"Date": "today"}, 0.0),
        (
            budget("requests", "0", "2026-10-01T12:00:20Z")
            | budget("output-tokens", "0", "2026-10-01T12:00:40Z"),
            40.0,
        ),
    ],
)  # fmt: skip
async def test_a_budget_that_is_used_up_asks_for_a_pause(
    claude: ClaudeStandIn, model: Claude, headers: dict[str, str], pause_s: float
) -> None:
    claude.will_answer(ClaudeAnswer(headers=headers))
    assert (await whole(model)).pause_s == pause_s


# --- effort and deprecation


async def test_effort_is_sent_only_if_it_is_set(claude: ClaudeStandIn, make: MakeModel) -> None:
    await whole(make())
    await whole(make(effort="low"))
    without, with_it = (request.body for request in claude.requests)
    assert "output_config" not in without
    assert with_it["output_config"] == {"effort": "low"}


@pytest.mark.parametrize(
    ("lifecycle", "warning"),
    [
        ("active", ""),
        ("deprecated", "claude-x is deprecated and ends on 2026-11-30"),
        ("retired", "claude-x is retired and ends on 2026-11-30"),
        ("brand_new", ""),
    ],
)
async def test_a_deprecated_model_gives_a_warning(
    claude: ClaudeStandIn, model: Claude, lifecycle: str, warning: str
) -> None:
    claude.lifecycles["claude-x"] = lifecycle
    assert (await model.check("claude-x")).warning == warning


@pytest.mark.finding(8)
@pytest.mark.parametrize(
    ("status", "body"),
    [(404, b'{"type":"error","error":{"type":"not_found_error"}}'), (404, b"<html>"), (405, b"no"),
     (501, b"no"), (200, b"<html>"), (200, b"{"), (200, b'{"input_tokens":"7"}'), (200, b"[]")],
)  # fmt: skip
async def test_a_server_that_counts_no_tokens_is_asked_for_one(
    claude: ClaudeStandIn, model: Claude, status: int, body: bytes
) -> None:
    claude.token_count = whole_answer(status, {"content-type": "application/json"}, body)
    assert (await model.check("claude-x")).found == f"{claude.url} answers for claude-x"
    claude.will_answer(ClaudeAnswer(thinking="hm", text="", stop_reason="max_tokens"))
    await model.check("claude-x")
    assert claude.requests[-1].body["max_tokens"] == 1

    claude.will_answer(ClaudeAnswer(status=404))
    with pytest.raises(NoSuchModel):
        await model.check("claude-y")


@pytest.mark.parametrize("fault", [ServerFault.UNKNOWN_EVENT, ServerFault.UNKNOWN_BLOCK])
async def test_unknown_events_are_ignored(
    claude: ClaudeStandIn, model: Claude, fault: ServerFault
) -> None:
    claude.will_answer(ClaudeAnswer(text="Warm.", fault=fault))
    assert (await whole(model)).text == "Warm."


async def test_totals_overwrite_and_are_not_added(claude: ClaudeStandIn, model: Claude) -> None:
    claude.will_answer(ClaudeAnswer(text="Warm.", usage={"output_tokens": 50, "input_tokens": 9}))
    usage = (await whole(model)).usage
    assert (usage.output, usage.input) == (50, 9)


async def test_an_answer_carries_the_providers_request_id(model: Claude) -> None:
    assert (await whole(model)).request_id == "req_standin_1"


# --- time limits


async def test_pieces_of_text_arrive_as_they_are_sent(claude: ClaudeStandIn, model: Claude) -> None:
    claude.will_answer(ClaudeAnswer(text="one two ", deltas=2, fault=ServerFault.PAUSE, at=4))
    answering = model.stream_answer(prompt())
    assert await anext(answering) == "one "
    assert claude.held == 1
    claude.release()
    rest = [item async for item in answering]
    assert rest[0] == "two "


async def test_a_slow_reader_is_not_a_silent_model(claude: ClaudeStandIn, make: MakeModel) -> None:
    claude.will_answer(ClaudeAnswer(text="one two ", deltas=2, fault=ServerFault.PAUSE, at=4))
    answering = make(idle_s=1.0).stream_answer(prompt())
    await anext(answering)
    now = asyncio.get_running_loop().time
    much_later = now() + 1.5
    await until(lambda: now() > much_later, "the reader was busy for longer than the limit")
    claude.release()
    assert await anext(answering) == "two "
    await answering.aclose()


async def test_events_keep_a_long_answer_alive(claude: ClaudeStandIn, make: MakeModel) -> None:
    claude.will_answer(ClaudeAnswer(text="word " * 20, deltas=20, gap_s=0.1))
    answer = await whole(make(idle_s=1.0))
    assert len(answer.text) == 100


async def test_a_body_that_does_not_end_delays_no_answer(
    claude: ClaudeStandIn, make: MakeModel
) -> None:
    claude.will_answer(ClaudeAnswer(text="one", deltas=1, fault=ServerFault.LINGER))
    assert (await whole(make(idle_s=5))).text == "one"
    await until(lambda: claude.in_flight == 0, "the call has ended")


# --- connections


async def test_a_connection_is_reused_for_the_next_answer(
    claude: ClaudeStandIn, model: Claude, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "BODY_END_S", MANY_S)
    claude.will_answer(ClaudeAnswer(deltas=1, fault=ServerFault.LINGER, gap_s=0.03, times=None))
    for _ in range(5):
        async with aclosing(model.stream_answer(prompt())) as answering:
            async for item in answering:
                if isinstance(item, Answer):
                    break  # the reader wants no more
    assert claude.accepted == 1


async def test_a_response_that_is_no_stream_returns_its_connection(
    claude: ClaudeStandIn, model: Claude
) -> None:
    claude.will_answer(
        ClaudeAnswer(headers={"content-type": "text/html"}, fault=ServerFault.LINGER, times=None)
    )
    with pytest.raises(BadAnswer, match="not_a_stream") as caught:
        await whole(model)
    await until(lambda: claude.in_flight == 0, "the call has ended")
    # The reference keeps the call alive, so garbage collection has freed nothing.
    assert caught.value.request_id


async def test_cancelled_and_closed_calls_return_their_connections(
    claude: ClaudeStandIn, model: Claude
) -> None:
    chance = random.Random(7)
    claude.will_answer(
        ClaudeAnswer(text="word " * 30, deltas=30, gap_s=0.001, delay_s=0.003, times=None)
    )

    async def ask_for_a_while() -> None:
        with suppress(TimeoutError):
            async with (
                asyncio.timeout(chance.uniform(0, 0.06)),
                aclosing(model.stream_answer(prompt())) as answering,
            ):
                async for _ in answering:
                    if chance.random() < 0.05:
                        return

    for _ in range(20):
        await asyncio.gather(*(ask_for_a_while() for _ in range(10)))
    await until(lambda: claude.in_flight == 0, "every call has ended")
    assert claude.abandoned > 20
    assert claude.connections <= CONNECTIONS

    claude.forget()
    claude.will_answer(ClaudeAnswer(hold=True, times=None))
    answers = [asyncio.create_task(whole(model)) for _ in range(CONNECTIONS)]
    await until(lambda: claude.held == CONNECTIONS, "every place of the pool is free")
    claude.release()
    await asyncio.gather(*answers)


async def test_hundreds_of_calls_run_at_once(
    claude: ClaudeStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = 300
    monkeypatch.setattr(client, "CONNECT_S", MANY_S)  # they connect at once
    model = Claude(
        api_key=KEY, base_url=claude.url, connections=many,
        total_s=MANY_S, first_event_s=MANY_S, idle_s=MANY_S,
    )  # fmt: skip
    claude.will_answer(ClaudeAnswer(hold=True, times=many))
    answers = [asyncio.create_task(whole(model, prompt(f"number {i}."))) for i in range(many)]
    await until(lambda: claude.held == many, "all are under way at once")
    claude.release()
    for i, answer in enumerate(await asyncio.gather(*answers)):
        assert f"number {i}." in answer.text
    await model.aclose()


async def test_a_closed_client_can_be_used_again(claude: ClaudeStandIn, model: Claude) -> None:
    await whole(model)
    await model.aclose()
    await until(lambda: claude.connections == 0, "its connections are closed")
    await whole(model)
