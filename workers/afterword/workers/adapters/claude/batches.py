"""Implements the port of message batches on Anthropic's Message Batches API."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any, TypeVar

import httpx2

from afterword.shared.clock import utc_now
from afterword.shared.errors import BadAnswer, NoSuchModel, ProviderError
from afterword.workers.adapters.claude.client import Claude
from afterword.workers.adapters.claude.events import Transcript
from afterword.workers.ports import Answer, BatchGone, Prompt

T = TypeVar("T")

_PATH = "/v1/messages/batches"

#: Ids go into paths and into the ledger.
_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")

#: Most batches that are looked through to find one of unknown id: the newest are listed first.
_MOST_LISTED = 1000

_COUNTS = ("processing", "succeeded", "errored", "canceled", "expired")


class ClaudeBatches:
    """Sends and follows message batches with the client, the key and the limits of `claude`."""

    def __init__(self, claude: Claude) -> None:
        self._claude = claude

    async def create(self, requests: Sequence[tuple[str, Prompt]]) -> str:
        """Send a batch; see `afterword.workers.ports.MessageBatchApi`."""
        sent = [{"custom_id": name, "params": self._params(prompt)} for name, prompt in requests]
        found = await self._claude.call(
            lambda sdk: sdk.post(_PATH, body={"requests": sent}, cast_to=object)
        )
        return _id_in(found)

    async def has_ended(self, batch_id: str) -> bool:
        """Return whether all requests of a batch have a result."""
        found = await self._of_batch(lambda sdk: sdk.get(_path(batch_id), cast_to=object))
        match found:
            case {"processing_status": str(status)}:
                return status == "ended"
        raise BadAnswer("bad_batch")

    async def results(self, batch_id: str) -> Mapping[str, Answer | None]:
        """Return what each request of a batch that has ended was answered, None if it failed."""
        path = f"{_path(batch_id)}/results"
        found = await self._of_batch(lambda sdk: sdk.get(path, cast_to=httpx2.Response))
        return dict(_results(found.text))

    async def find(self, requests: int, within_s: float) -> Sequence[str]:
        """Return the batches of so many requests that were created within so many seconds."""
        found = await self._claude.call(
            lambda sdk: sdk.get(f"{_PATH}?limit={_MOST_LISTED}", cast_to=object)
        )
        rows = found.get("data") if isinstance(found, dict) else None
        if not isinstance(rows, list):
            raise BadAnswer("bad_batch")
        since = utc_now() - timedelta(seconds=within_s)
        return [_id_in(row) for row in rows if _is_like(row, requests, since)]

    async def discard(self, batch_id: str) -> None:
        """Delete a batch that has ended, with all that was said in it."""
        with suppress(BatchGone):
            await self._of_batch(lambda sdk: sdk.delete(_path(batch_id), cast_to=object))

    async def aclose(self) -> None:
        """Close the connections."""
        await self._claude.aclose()

    async def _of_batch(self, step: Callable[[Any], Awaitable[T]]) -> T:
        """Make a call about one batch; what is not found then is that batch, and no model."""
        try:
            return await self._claude.call(step)
        except NoSuchModel:
            raise BatchGone from None

    def _params(self, prompt: Prompt) -> Mapping[str, Any]:
        body = self._claude.body_of(prompt)
        return {name: value for name, value in body.items() if name != "stream"}


def _path(batch_id: str) -> str:
    return f"{_PATH}/{batch_id}"


def _id_in(found: object) -> str:
    match found:
        case {"id": str(batch_id)} if _ID.fullmatch(batch_id):
            return batch_id
    raise BadAnswer("bad_batch")


def _is_like(row: Any, requests: int, since: datetime) -> bool:
    """Return whether a listed batch has so many requests and is not older; else it is no matter."""
    try:
        total = sum(row["request_counts"].get(name, 0) for name in _COUNTS)
        return bool(total == requests and datetime.fromisoformat(row["created_at"]) >= since)
    except (AttributeError, KeyError, TypeError, ValueError):
        return False


def _results(lines: str) -> Iterator[tuple[str, Answer | None]]:
    """Yield what can be read of a file of results, a line of JSON each.

    A text in it may hold characters that Python takes for the end of a line, too.
    """
    for line in lines.split("\n"):
        try:
            found: Any = json.loads(line)
        except (ValueError, RecursionError):
            continue
        match found:
            case {"custom_id": str(name), "result": {"type": "succeeded", "message": {**message}}}:
                yield name, _answer(message)
            case {"custom_id": str(name), "result": {"type": str()}}:
                yield name, None


def _answer(message: Mapping[Any, Any]) -> Answer:
    """Return a message as the answer that its stream would have given.

    One that is no answer has neither text nor a reason to stop, but what it used is paid for.
    """
    transcript = Transcript(str(message.get("model", "")), {})
    try:
        for event in _events(message):
            transcript.add(event)
        return transcript.answer()
    except ProviderError:
        return Answer("", "", transcript.model, transcript.usage)


def _events(message: Mapping[Any, Any]) -> Iterator[dict[str, Any]]:
    content = message.get("content")
    yield {"type": "message_start", "message": message}
    for block in content if isinstance(content, list) else []:
        if isinstance(block, dict):
            yield {"type": "content_block_start", "content_block": block}
            yield {"type": "content_block_stop"}
    reasons = {name: message.get(name) for name in ("stop_reason", "stop_details")}
    yield {"type": "message_delta", "delta": reasons, "usage": message.get("usage")}
    yield {"type": "message_stop"}
