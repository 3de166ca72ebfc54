"""Claude behind the model port: Anthropic's SDK, one streamed call an answer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable
from contextlib import aclosing, suppress
from typing import TypeVar

import anthropic
import httpx2
from anthropic.types import MessageParam, RawMessageStreamEvent, TextBlockParam

from shared.errors import BadAnswer, Rejected, Unavailable, Upstream
from workers.adapters.claude_errors import refusal
from workers.adapters.claude_events import Event, EventLines, Transcript
from workers.ports import Answer, Prompt, Say

T = TypeVar("T")
Stream = anthropic.AsyncStream[RawMessageStreamEvent]

CONNECT_S = 5.0
KEEPALIVE_S = 60.0

#: How long a finished answer may take to end its HTTP body, for its connection to be used again.
FAREWELL_S = 0.25


class Claude:
    """Asks Claude over Anthropic's Messages API.

    Time limits are in seconds: for one answer in all, for its first event, and for the silence
    between two events; pings are silence. Nothing is tried twice. `connections` is how many
    answers can be under way at once. Belongs to the event loop that asks first.
    """

    def __init__(
        self,
        *,
        api_key: str,
        base_url: str,
        connections: int,
        total_s: float,
        first_event_s: float,
        idle_s: float,
    ) -> None:
        self._api_key = api_key
        self._base_url = base_url
        self._connections = connections
        self._limits = (total_s, first_event_s, idle_s)
        self._client: anthropic.AsyncAnthropic | None = None

    async def ask(self, prompt: Prompt) -> AsyncGenerator[str | Answer, None]:
        """Stream one answer, see `workers.ports.Model`."""
        patience = _Patience(*self._limits)
        async with (
            await patience.wait_for(self._open(prompt)) as stream,
            aclosing(_events(stream.response, patience)) as events,
        ):
            transcript = Transcript(prompt.model, stream.response.headers)
            async for event in events:
                if text := transcript.take(event):
                    yield text
            yield transcript.answer()

    async def check(self, model: str) -> str:
        """Count the tokens of a word, which costs nothing, see `workers.ports.Model`."""
        patience = _Patience(*self._limits)
        await patience.wait_for(self._count(model))
        return f"{self._base_url} answers for {model}"

    async def aclose(self) -> None:
        """Close the connections."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    async def _open(self, prompt: Prompt) -> Stream:
        if self._client is None:
            self._client = self._connect()
        return await self._client.messages.create(
            model=prompt.model,
            max_tokens=prompt.max_tokens,
            system=_system(prompt.system),
            messages=[_message(say) for say in prompt.messages],
            metadata={"user_id": prompt.user_tag},
            stream=True,
        )

    async def _count(self, model: str) -> None:
        client = self._client = self._client or self._connect()
        await client.messages.count_tokens(
            model=model, messages=[{"role": "user", "content": "hello"}]
        )

    def _connect(self) -> anthropic.AsyncAnthropic:
        """Build the client; inside the running loop, never before a fork."""
        for name in ("anthropic", "httpx2"):  # at debug level they log prompts
            logging.getLogger(name).setLevel(logging.WARNING)
        limits = httpx2.Limits(
            max_connections=self._connections,
            max_keepalive_connections=self._connections,
            keepalive_expiry=KEEPALIVE_S,
        )
        return anthropic.AsyncAnthropic(
            api_key=self._api_key,
            base_url=self._base_url,
            max_retries=0,
            timeout=httpx2.Timeout(None, connect=CONNECT_S),
            open_telemetry=False,
            http_client=anthropic.DefaultAioHttpClient(limits=limits, follow_redirects=False),
        )


def _system(texts: tuple[str, ...]) -> list[TextBlockParam] | anthropic.Omit:
    """Return the system prompt, with the end of it marked as the end of what can be cached."""
    if not texts:
        return anthropic.omit
    blocks: list[TextBlockParam] = [{"type": "text", "text": text} for text in texts]
    blocks[-1]["cache_control"] = {"type": "ephemeral"}
    return blocks


def _message(say: Say) -> MessageParam:
    if say.role == "user":
        return {"role": "user", "content": say.text}
    return {"role": "assistant", "content": say.text}


async def _events(response: httpx2.Response, patience: _Patience) -> AsyncGenerator[Event, None]:
    """Yield the events of a stream, except for pings, up to the end of the message."""
    patience.request_id = request_id = response.headers.get("request-id")
    if not response.headers.get("content-type", "").startswith("text/event-stream"):
        raise BadAnswer("not_a_stream", request_id=request_id)
    chunks = response.aiter_bytes()
    lines = EventLines(request_id)
    while chunk := await patience.wait_for(anext(chunks, b"")):
        for event in lines.cut(chunk):
            if event["type"] != "ping":
                yield event
                patience.renew()
            if event["type"] == "message_stop":
                await _farewell(chunks)
                return


async def _farewell(chunks: AsyncIterator[bytes]) -> None:
    """Read the end of the body; the answer is whole, so nothing can be wrong any more."""
    with suppress(TimeoutError, httpx2.HTTPError):
        async with asyncio.timeout(FAREWELL_S):
            async for _ in chunks:
                pass


class _Patience:
    """How long one call may still take; lets no error but ours come out of a wait."""

    def __init__(self, total_s: float, first_event_s: float, idle_s: float) -> None:
        self._now = asyncio.get_running_loop().time
        self._idle_s = idle_s
        self._end = self._now() + total_s
        self._next = self._now() + first_event_s
        self._silence = "no_first_event"
        self.request_id: str | None = None

    def renew(self) -> None:
        """Begin to wait for the next event."""
        self._next = self._now() + self._idle_s
        self._silence = "stalled"

    async def wait_for(self, step: Awaitable[T]) -> T:
        """Wait for one step of the call; raise one of `Upstream` if it fails or takes too long.

        The SDK's errors hold the prompt and the key: ours is raised outside of their handler,
        so that no chain of causes leads back to them.
        """
        try:
            async with asyncio.timeout_at(min(self._end, self._next)):
                return await step
        except TimeoutError:
            error: Upstream = Unavailable(self._too_long(), request_id=self.request_id)
        except Exception as theirs:  # noqa: BLE001 the SDK lets through what its parts raise
            error = _ours(theirs, self.request_id)
        raise error

    def _too_long(self) -> str:
        return "too_slow" if self._now() >= self._end else self._silence


def _ours(error: Exception, request_id: str | None) -> Upstream:
    """Return our error for one that came out of the SDK."""
    match error:
        case anthropic.APIStatusError():
            return refusal(error.status_code, error.response.headers, error.body)
        case anthropic.APIConnectionError():
            return Unavailable("unreachable")
        case httpx2.TransportError():
            return Unavailable("cut", request_id=request_id)
        case UnicodeEncodeError():
            return Rejected("not_unicode")
        case _:
            return BadAnswer(f"unexpected_{type(error).__name__}", request_id=request_id)
