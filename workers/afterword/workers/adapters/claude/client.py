"""Implements the model port on Anthropic's SDK, with one streamed call per answer."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import suppress
from typing import Literal, TypeVar
from urllib.parse import quote

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
from afterword.shared.time_limit import TimeLimit
from afterword.workers.adapters.claude.errors import api_error
from afterword.workers.adapters.claude.events import Event, EventParser, Transcript
from afterword.workers.adapters.claude.rate_limits import quota_levels
from afterword.workers.adapters.claude.reported import deprecation, is_token_count
from afterword.workers.adapters.http import verdict_of_connection
from afterword.workers.ports import Answer, ChatMessage, ModelCheck, OnQuota, OnUsage, Prompt

T = TypeVar("T")
Stream = anthropic.AsyncStream[RawMessageStreamEvent]

#: How hard a model thinks before it replies, and the setting that chooses it.
Effort = Literal["low", "medium", "high", "xhigh", "max"]
EffortSetting = Literal["auto", "none", "low", "medium", "high", "xhigh", "max"]

#: A cache entry lasts five minutes from its last use.
_CACHED: CacheControlEphemeralParam = {"type": "ephemeral"}

CONNECT_S = 5.0
KEEPALIVE_S = 60.0

#: How long to wait for the end of the HTTP body after the answer, to reuse the connection.
BODY_END_S = 0.25

#: Events that tell how many tokens the call has used so far.
_TELLS_TOKENS = ("message_start", "message_delta")

#: How a server answers a call that it does not know. Anthropic's says 404 for a missing model too.
_UNKNOWN_CALL = (404, 405, 501)

#: What becomes of an answer that has no room for text: the model has answered all the same.
_ANSWERED_WITHOUT_TEXT = ("no_text", "no_room_for_text")

#: Model families that accept `effort` in all their versions; earlier ones refuse it.
_TAKES_EFFORT = re.compile(r"claude-[a-z]+-(?:[5-9]|\d{2,})(?:-|$)")


class Claude:
    """Calls Claude over Anthropic's Messages API.

    Time limits, in seconds: `total_s` for the whole answer, `first_event_s` until its first event,
    `idle_s` between two events. A ping counts as an event only while the model may be thinking.
    Nothing is retried. `connections` limits the answers in progress at once. `effort` is explained
    at `effort_for`. Use an instance on one event loop only.
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
        effort: EffortSetting = "none",
    ) -> None:
        self._api_key = api_key
        self._base_url = base_url
        self._connections = connections
        self._limits = (total_s, first_event_s, idle_s)
        self._effort = effort
        self._client: anthropic.AsyncAnthropic | None = None

    def open(self) -> None:
        """Build the SDK's client, without a request. Call it in the process that uses it.

        The first one imports and loads for up to half a second of CPU. If the first call had to
        build it, the event loop would stand still while other jobs wait for their memories.
        """
        self._get_client()

    async def stream_answer(
        self, prompt: Prompt, on_usage: OnUsage | None = None, on_quota: OnQuota | None = None
    ) -> AsyncGenerator[str | Answer, None]:
        """Stream one answer; see `afterword.workers.ports.Model`."""
        limits = _CallLimits(*self._limits)
        async with await limits.wait_for(self._open(prompt, on_quota)) as stream:
            headers = dict(stream.response.headers.items())  # each look-up in httpx2 reads all
            _tell_quota(on_quota, headers)
            transcript = Transcript(prompt.model, headers)
            limits.request_id = request_id = transcript.request_id
            if not headers.get("content-type", "").startswith("text/event-stream"):
                raise BadAnswer("not_a_stream", request_id=request_id)
            chunks, parser = stream.response.aiter_bytes(), EventParser(request_id)
            while not transcript.stopped and (chunk := await limits.wait_for(anext(chunks, b""))):
                for text in _texts(parser.feed(chunk), transcript, limits, on_usage):
                    yield text
            if transcript.stopped:
                await _read_to_end(chunks)
            yield transcript.answer()

    async def check(self, model: str) -> ModelCheck:
        """Check a model with a token count, which is free; see `afterword.workers.ports.Model`.

        Servers of other vendors may have no such call. They are asked for an answer of one token.
        """
        if not await _CallLimits(*self._limits).wait_for(self._counts_tokens(model)):
            await self._answer_briefly(model)
        return ModelCheck(f"{self._base_url} answers for {model}", await self._deprecation(model))

    async def call(self, step: Callable[[anthropic.AsyncAnthropic], Awaitable[T]]) -> T:
        """Make another call of the API with this client; its answer must be whole in `total_s`."""
        total_s = self._limits[0]
        limits = _CallLimits(total_s, total_s, total_s)
        return await limits.wait_for(step(self._get_client()))

    def body_of(self, prompt: Prompt) -> MessageCreateParamsStreaming:
        """Return what is sent for a prompt."""
        return _body(prompt, effort_for(self._effort, prompt.model))

    async def aclose(self) -> None:
        """Close the connections."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    async def _open(self, prompt: Prompt, on_quota: OnQuota | None) -> Stream:
        client = self._get_client()
        try:
            # Like `messages.create`, but without its pass over the body for features not used here.
            return await client.post(
                "/v1/messages",
                body=self.body_of(prompt),
                cast_to=Message,
                stream=True,
                stream_cls=Stream,
            )
        except anthropic.APIStatusError as error:
            _tell_quota(on_quota, error.response.headers)
            raise

    async def _counts_tokens(self, model: str) -> bool:
        """Return whether the server counts tokens for a model; if not, a reply may still come."""
        body = {"model": model, "messages": [{"role": "user", "content": "hello"}]}
        try:
            counted = await self._get_client().post(
                "/v1/messages/count_tokens", body=body, cast_to=object
            )
        except anthropic.APIStatusError as error:
            if error.status_code in _UNKNOWN_CALL:
                return False
            raise
        except ValueError:  # no JSON
            return False
        return is_token_count(counted)

    async def _answer_briefly(self, model: str) -> None:
        prompt = Prompt((), (ChatMessage("user", "hello"),), model, max_tokens=1, user_tag="check")
        try:
            async for _ in self.stream_answer(prompt):
                pass
        except ProviderError as error:
            if error.code not in _ANSWERED_WITHOUT_TEXT:
                raise

    async def _deprecation(self, model: str) -> str:
        """Return a warning if the model is deprecated or retired, else ""."""
        path = f"/v1/models/{quote(model, safe='')}"
        listed = self._get_client().get(path, cast_to=object)
        try:
            return deprecation(model, await _CallLimits(*self._limits).wait_for(listed))
        except ProviderError:
            return ""  # it answers; servers of other vendors do not list their models

    def _get_client(self) -> anthropic.AsyncAnthropic:
        self._client = self._client or self._build_client()
        return self._client

    def _build_client(self) -> anthropic.AsyncAnthropic:
        for name in ("anthropic", "httpx2"):  # at DEBUG they log prompts
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


def effort_for(setting: EffortSetting, model: str) -> Effort | None:
    """Return the effort to request from a model, None for the model's own default.

    `auto` requests low effort, which suits a chat, from the models known to accept it.
    """
    if setting == "auto":
        return "low" if _TAKES_EFFORT.match(model) else None
    return None if setting == "none" else setting


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
    """Return the system prompt with a cache breakpoint at its end."""
    blocks: list[TextBlockParam] = [{"type": "text", "text": text} for text in texts]
    blocks[-1]["cache_control"] = _CACHED
    return blocks


def _messages(messages: Sequence[ChatMessage]) -> list[MessageParam]:
    """Return the messages with a cache breakpoint at the end of the history.

    Never at the last message: the next request repeats it without the memories it holds now, so
    a cache entry that includes them would never be read.
    """
    end_of_history = len(messages) - 2
    return [_message(each, cached=at == end_of_history) for at, each in enumerate(messages)]


def _message(message: ChatMessage, *, cached: bool) -> MessageParam:
    content: list[TextBlockParam] | str = message.text
    if cached:
        content = [{"type": "text", "text": message.text, "cache_control": _CACHED}]
    if message.role == "user":
        return {"role": "user", "content": content}
    return {"role": "assistant", "content": content}


def _tell_quota(on_quota: OnQuota | None, headers: Mapping[str, str]) -> None:
    if on_quota is not None and (levels := quota_levels(headers)):
        on_quota(levels)


def _texts(
    events: Iterable[Event],
    transcript: Transcript,
    limits: _CallLimits,
    on_usage: OnUsage | None,
) -> Iterator[str]:
    """Yield the text of each event, up to `message_stop`; pings say nothing."""
    for event in events:
        if event["type"] == "ping":
            limits.heard = limits.heard or transcript.may_think
            continue
        limits.heard = True
        if text := transcript.add(event):
            yield text
        elif on_usage is not None and event["type"] in _TELLS_TOKENS:
            on_usage(transcript.usage)
        if transcript.stopped:
            return


async def _read_to_end(chunks: AsyncIterator[bytes]) -> None:
    """Read the end of the body. The answer is complete, so errors no longer matter."""
    end = asyncio.get_running_loop().time() + BODY_END_S
    with suppress(TimeoutError, httpx2.HTTPError), TimeLimit(end):
        async for _ in chunks:
            pass


class _CallLimits:
    """Enforces the time limits of one call and translates its errors."""

    def __init__(self, total_s: float, first_event_s: float, idle_s: float) -> None:
        self._now = now = asyncio.get_running_loop().time
        self._idle_s = idle_s
        self._end = now() + total_s
        self._next = now() + first_event_s
        self._timeout_code = "no_first_event"
        #: Whether something has come that restarts the idle limit.
        self.heard = False
        self.request_id: str | None = None

    async def wait_for(self, step: Awaitable[T]) -> T:
        """Await one step of the call; raise a `ProviderError` if it fails or exceeds a limit.

        The SDK's errors hold the prompt and the key. Ours is raised outside the `except` block,
        so that it does not carry them as its context.
        """
        if self.heard:
            self.heard = False
            self._next, self._timeout_code = self._now() + self._idle_s, "stalled"
        error: ProviderError
        try:
            with TimeLimit(min(self._end, self._next)):
                return await step
        except TimeoutError:
            error = self._timeout_error()
        except Exception as sdk_error:  # noqa: BLE001 its dependencies' errors come through too
            error = _translate(sdk_error, self.request_id)
        raise error

    def _timeout_error(self) -> ProviderError:
        """Blame the provider for silence, but the request for an answer that goes on too long.

        The same prompt would mostly take as long again, so its attempts must count.
        """
        if self._now() >= self._end and self._timeout_code == "stalled":
            return BadAnswer("too_slow", request_id=self.request_id)
        return Unavailable(self._timeout_code, request_id=self.request_id)


def _translate(sdk_error: Exception, request_id: str | None) -> ProviderError:
    """Return our error for one that the SDK raised."""
    match sdk_error:
        case anthropic.APIStatusError():
            return api_error(sdk_error.status_code, sdk_error.response.headers, sdk_error.body)
        case anthropic.APIConnectionError():
            kind, code = verdict_of_connection(sdk_error)
            return kind(code)
        case httpx2.TransportError():
            return Unavailable("cut", request_id=request_id)
        case UnicodeEncodeError():
            return Rejected("not_unicode")
        case _:
            return BadAnswer(f"unexpected_{type(sdk_error).__name__}", request_id=request_id)
