"""One connection to Redis that many coroutines share."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from itertools import chain, islice
from typing import Any, TypeAlias

from redis import exceptions

from afterword.shared.errors import AfterwordError, LedgerUnavailable
from afterword.shared.transport.causes import translated
from afterword.shared.transport.connection import Command, OnReplies, Reconnector
from afterword.shared.transport.scripts import (
    MAX_BATCH,
    MAX_BATCH_CHARACTERS,
    ScriptCall,
    command_of,
)

#: Most commands sent at once: bounds how long one reply waits for the others.
BATCH = 256

_FIRST_PAUSE_S = 0.02
_LONGEST_PAUSE_S = 1.0

#: A connection that is silent for this long is closed, however patient its callers are.
_SOCKET_S = 3.0

#: Batches in flight at once: one is packed or unpacked here while Redis works on the other.
_MAX_IN_FLIGHT = 2

#: A command or a script call, and the future that waits for its reply.
Request: TypeAlias = tuple[Command | ScriptCall, asyncio.Future[Any]]


class Pipeline:
    """Sends the commands of many coroutines in few round trips over one connection.

    While two batches are in flight, commands gather for the next. Bound to the event loop that
    first uses it.
    """

    def __init__(self, url: str, *, patience_s: float) -> None:
        self._patience_s = patience_s
        self._reconnector = Reconnector(url, timeout_s=min(patience_s, _SOCKET_S))
        self._waiting: deque[Request] = deque()
        self._in_flight: list[list[list[Request]]] = []
        self._flush_scheduled = False

    async def send_command(self, *command: str | float) -> Any:
        """Send one command and return its reply; retry until there is one.

        A command that writes may run twice. Raises `LedgerUnavailable` after `patience_s`.
        """
        return await self._retry(lambda: self._post(command), self._deadline())

    async def run_script(self, call: ScriptCall) -> list[Any]:
        """Run one script and return its reply; retry until there is one.

        Scripts are idempotent for the same caller, so a retry after a lost reply is safe. Raises
        `LedgerUnavailable` after `patience_s`, and `QueueFull` at once if Redis is out of memory.
        """
        reply: list[Any] = await self._retry(lambda: self._post(call), self._deadline())
        return reply

    async def run_scripts(self, calls: Iterable[ScriptCall]) -> list[Any]:
        """Run many scripts and return a reply or an error for each, in order.

        Calls with the same `batch_key` share commands; what gets no reply is retried by itself,
        until `patience_s` after the last was sent.
        """
        posted, futures = list[ScriptCall](), list[asyncio.Future[Any]]()
        remaining = iter(calls)
        while part := list(islice(remaining, BATCH)):
            posted += part
            futures += [self._post(call) for call in part]
            await asyncio.sleep(0)  # Redis can begin
        deadline = self._deadline()
        replies = await asyncio.gather(*futures, return_exceptions=True)
        return [
            await self._retry_failed(call, reply, deadline)
            if isinstance(reply, BaseException)
            else reply
            for call, reply in zip(posted, replies, strict=True)
        ]

    async def _retry_failed(self, call: ScriptCall, error: BaseException, deadline: float) -> Any:
        if isinstance(error, asyncio.CancelledError):
            raise error  # the pipeline was closed
        if not isinstance(error, (LedgerUnavailable, exceptions.RedisError)):
            return error  # a retry would repeat it
        try:
            return await self._retry(lambda: self._post(call), deadline)
        except (AfterwordError, exceptions.RedisError) as repeated:
            return repeated

    async def aclose(self) -> None:
        """Close the connection; commands that wait or are in flight are cancelled."""
        in_flight = (requests for batch in self._in_flight for requests in batch)
        for _, future in chain(self._waiting, *in_flight):
            future.cancel()
        await self._reconnector.aclose()

    def _deadline(self) -> float:
        return asyncio.get_running_loop().time() + self._patience_s

    async def _retry(self, attempt: Callable[[], Awaitable[Any]], deadline: float) -> Any:
        """Retry until it works or the deadline has passed; the error then names the last cause."""
        errors: list[Exception] = []
        try:
            async with asyncio.timeout_at(deadline):
                return await _retry_unavailable(attempt, errors)
        except TimeoutError:
            last = errors[-1] if errors else translated(TimeoutError())
            reason = f"{last} (tried for {self._patience_s:.2g} s)"
            raise LedgerUnavailable(reason, cause=getattr(last, "cause", "")) from None

    def _post(self, request: Command | ScriptCall) -> asyncio.Future[Any]:
        """Queue a command, schedule a flush, and return the future of its reply."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        self._waiting.append((request, future))
        if not self._flush_scheduled:
            self._flush_scheduled = True
            loop.call_soon(self._flush)  # not at once: others queue in this turn of the loop, too
        return future

    def _flush(self) -> None:
        """Send what waits, unless enough is in flight."""
        self._flush_scheduled = False
        while self._waiting and len(self._in_flight) < _MAX_IN_FLIGHT:
            count = min(BATCH, len(self._waiting))
            batch = _as_commands(self._waiting.popleft() for _ in range(count))
            if batch:
                self._in_flight.append(batch)
                self._send([_command_of(one) for one in batch], partial(self._on_replies, batch))

    def _on_replies(self, batch: list[list[Request]], replies: Sequence[Any]) -> None:
        self._in_flight.remove(batch)
        for requests, reply in zip(batch, replies, strict=True):
            self._resolve_requests(requests, reply)
        self._flush()

    def _resolve_requests(self, requests: list[Request], reply: Any) -> None:
        """Resolve all requests of one command, or queue them again with the script's text."""
        if isinstance(reply, exceptions.NoScriptError):
            for call, future in requests:
                assert isinstance(call, ScriptCall), "a plain command has no script"
                self._waiting.append((call._replace(with_text=True), future))
        elif isinstance(reply, Exception) or len(requests) == 1:
            for _, future in requests:
                _resolve(future, reply)
        else:
            for (_, future), each in zip(requests, reply, strict=True):
                _resolve(future, each)

    def _send(self, commands: Sequence[Command], on_replies: OnReplies) -> None:
        """Send commands at once; `on_replies` gets their replies."""
        self._reconnector.send(commands, on_replies)


def _as_commands(requests: Iterable[Request]) -> list[list[Request]]:
    """Group requests that can share a command; drop those that nobody waits for any more."""
    commands: list[list[Request]] = []
    open_batches: dict[object, list[Request]] = {}
    room: dict[object, int] = {}
    for request, future in requests:
        if future.done():
            continue
        key = request.batch_key if isinstance(request, ScriptCall) else None
        if not isinstance(request, ScriptCall) or key is None:
            commands.append([(request, future)])
            continue
        size = request.characters
        if size > room.get(key, 0) or len(open_batches[key]) == MAX_BATCH:
            open_batches[key], room[key] = [], MAX_BATCH_CHARACTERS
            commands.append(open_batches[key])
        open_batches[key].append((request, future))
        room[key] -= size
    return commands


def _command_of(requests: list[Request]) -> Command:
    first, _ = requests[0]
    if not isinstance(first, ScriptCall):
        return first
    return command_of([call for call, _ in requests if isinstance(call, ScriptCall)])


async def _retry_unavailable(attempt: Callable[[], Awaitable[Any]], errors: list[Exception]) -> Any:
    pause_s = _FIRST_PAUSE_S
    while True:
        try:
            return await attempt()
        except LedgerUnavailable as error:
            errors.append(error)
        await asyncio.sleep(pause_s * random.uniform(0.5, 1))  # noqa: S311 no secret
        pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)


def _resolve(future: asyncio.Future[Any], reply: Any) -> None:
    if future.done():
        return
    if isinstance(reply, Exception):
        future.set_exception(translated(reply))
    else:
        future.set_result(reply)
