"""Claude behind the model port: Anthropic's SDK, one streamed call an answer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Sequence
from contextlib import aclosing, suppress
from typing import TypeVar

import anthropic
import httpx2
from anthropic.types import (
    CacheControlEphemeralParam,
    Message,
    MessageParam,
    RawMessageStreamEvent,
    TextBlockParam,
)
from anthropic.types.message_create_params import MessageCreateParamsStreaming

from afterword.shared.errors import BadAnswer, ProviderError, Rejected, Unavailable
from afterword.workers.adapters.claude.effort import Effort, Setting, effort_for
from afterword.workers.adapters.claude.errors import refusal
from afterword.workers.adapters.claude.events import Event, EventLines, Transcript
from afterword.workers.ports import Answer, Checked, Prompt, Say

T = TypeVar("T")
Stream = anthropic.AsyncStream[RawMessageStreamEvent]

#: Lasts five minutes, anew with every use.
_CACHED: CacheControlEphemeralParam = {"type": "ephemeral"}

CONNECT_S = 5.0
KEEPALIVE_S = 60.0

#: How long a finished answer may take to end its HTTP body, for its connection to be used again.
FAREWELL_S = 0.25


class Claude:
    """Asks Claude over Anthropic's Messages API.

    Time limits are in seconds: for one answer in all, for its first event, and for the silence
    between two events; pings are silence, except while the model may think. Nothing is tried
    twice. `connections` is how many answers can be under way at once. `effort` is how hard the
    model thinks, see `afterword.workers.adapters.claude.effort`. Belongs to the event loop that
    asks first.
    """

    def __init__(  # noqa: PLR0913 each is a setting of its own
        self,
        *,
        api_key: str,
        base_url: str,
        connections: int,
        total_s: float,
        first_event_s: float,
        idle_s: float,
        effort: Setting = "none",
    ) -> None:
        self._api_key = api_key
        self._base_url = base_url
        self._connections = connections
        self._limits = (total_s, first_event_s, idle_s)
        self._effort = effort
        self._client: anthropic.AsyncAnthropic | None = None

    async def ask(self, prompt: Prompt) -> AsyncGenerator[str | Answer, None]:
        """Stream one answer, see `afterword.workers.ports.Model`."""
        patience = _Patience(*self._limits)
        async with (
            await patience.wait_for(self._open(prompt)) as stream,
            aclosing(_events(stream.response, patience)) as events,
        ):
            transcript = Transcript(prompt.model, stream.response.headers)
            async for event in events:
                if text := transcript.take(event):
                    yield text
                patience.bears_pings = transcript.may_think
            yield transcript.answer()

    async def check(self, model: str) -> Checked:
        """Count the tokens of a word, which costs nothing, see `afterword.workers.ports.Model`."""
        patience = _Patience(*self._limits)
        await patience.wait_for(self._count(model))
        return Checked(f"{self._base_url} answers for {model}", await self._end_of_life(model))

    async def aclose(self) -> None:
        """Close the connections."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    async def _open(self, prompt: Prompt) -> Stream:
        client = self._connected()
        # As `messages.create`, which goes through the body once more for what this has none of.
        return await client.post(
            "/v1/messages",
            body=_body(prompt, effort_for(self._effort, prompt.model)),
            cast_to=Message,
            stream=True,
            stream_cls=Stream,
        )

    async def _count(self, model: str) -> None:
        client = self._connected()
        await client.messages.count_tokens(
            model=model, messages=[{"role": "user", "content": "hello"}]
        )

    async def _end_of_life(self, model: str) -> str:
        """Return what there is to say against using a model any longer, mostly nothing."""
        client = self._connected()
        try:
            known = await _Patience(*self._limits).wait_for(client.models.retrieve(model))
        except ProviderError:
            return ""  # it answers, and need not be listed: servers of other makes list nothing
        if getattr(known, "lifecycle", "active") not in ("deprecated", "retired"):
            return ""
        ends = known.retires_at
        return f"{model} is {known.lifecycle}" + (f", it ends on {ends:%Y-%m-%d}" if ends else "")

    def _connected(self) -> anthropic.AsyncAnthropic:
        self._client = self._client or self._connect()
        return self._client

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


def _body(prompt: Prompt, effort: Effort | None) -> MessageCreateParamsStreaming:
    body = MessageCreateParamsStreaming(
        model=prompt.model,
        max_tokens=prompt.max_tokens,
        messages=_messages(prompt.messages),
        metadata={"user_id": prompt.user_tag},
        stream=True,
    )
    if prompt.system:
        body["system"] = _system(prompt.system)
    if effort:
        body["output_config"] = {"effort": effort}
    return body


def _system(texts: Sequence[str]) -> list[TextBlockParam]:
    """Return the system prompt, with the end of it marked as the end of what can be cached."""
    blocks: list[TextBlockParam] = [{"type": "text", "text": text} for text in texts]
    blocks[-1]["cache_control"] = _CACHED
    return blocks


def _messages(says: Sequence[Say]) -> list[MessageParam]:
    """Return the messages; the end of the history is marked as the end of what can be cached.

    Never the last message: the memories in it are others in the next request, where it is told
    without them, so what was cached with it would never be read.
    """
    end_of_history = len(says) - 2
    return [_message(say, marked=at == end_of_history) for at, say in enumerate(says)]


def _message(say: Say, *, marked: bool) -> MessageParam:
    content: list[TextBlockParam] | str = say.text
    if marked:
        content = [{"type": "text", "text": say.text, "cache_control": _CACHED}]
    if say.role == "user":
        return {"role": "user", "content": content}
    return {"role": "assistant", "content": content}


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
            elif patience.bears_pings:
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
        self.bears_pings = False
        self.request_id: str | None = None

    def renew(self) -> None:
        """Begin to wait for the next event."""
        self._next = self._now() + self._idle_s
        self._silence = "stalled"

    async def wait_for(self, step: Awaitable[T]) -> T:
        """Wait for one step of the call; raise a `ProviderError` if it fails or takes too long.

        The SDK's errors hold the prompt and the key: ours is raised outside of their handler,
        so that no chain of causes leads back to them.
        """
        error: ProviderError
        try:
            async with asyncio.timeout_at(min(self._end, self._next)):
                return await step
        except TimeoutError:
            error = self._too_long()
        except Exception as theirs:  # noqa: BLE001 the SDK lets through what its parts raise
            error = _ours(theirs, self.request_id)
        raise error

    def _too_long(self) -> ProviderError:
        """Return whose fault it is: theirs to be silent, this one's to go on for too long.

        A prompt that takes longer than it may will mostly take as long again: its attempts count.
        """
        if self._now() >= self._end and self._silence == "stalled":
            return BadAnswer("too_slow", request_id=self.request_id)
        return Unavailable(self._silence, request_id=self.request_id)


def _ours(error: Exception, request_id: str | None) -> ProviderError:
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
