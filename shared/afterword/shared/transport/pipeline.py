"""One connection to Redis that many coroutines share."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from typing import Any, TypeAlias

from redis import exceptions

from afterword.shared.errors import AfterwordError, LedgerUnavailable
from afterword.shared.servers import Address
from afterword.shared.time_limit import TimeLimit
from afterword.shared.transport.causes import spoken, translated
from afterword.shared.transport.connection import Command, OnReplies, Reconnector, SlotClosed
from afterword.shared.transport.importing import FOLLOWED, ImportingNodes
from afterword.shared.transport.scripts import MAX_BATCH, ScriptCall, command_of

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


@dataclass(slots=True)
class Tries:
    """What became of the attempts at one request, and whether another is going on."""

    errors: list[Exception]
    going_on: bool = False

    @property
    def may_be_done(self) -> bool:
        """True if an attempt failed after its request was sent, and nobody knows what it did."""
        return any(getattr(error, "may_be_accepted", True) for error in self.errors)


class Pipeline:
    """Sends the commands of many coroutines in few round trips over one connection.

    While two batches are in flight, commands gather for the next. Bound to the event loop that
    first uses it.
    """

    def __init__(self, url: str, *, patience_s: float) -> None:
        self._url = url
        self._patience_s = patience_s
        timeout_s = min(patience_s, _SOCKET_S)
        self._reconnector = Reconnector(url, timeout_s=timeout_s)
        self._importing = ImportingNodes(url, timeout_s=timeout_s)
        self._waiting: deque[Request] = deque()
        self._in_flight: list[list[list[Request]]] = []
        self._flush_scheduled = False
        self._trouble: tuple[float, LedgerUnavailable | None] = (0.0, None)
        self._doubted_at = 0.0
        self._connections = 0

    @property
    def connection(self) -> int:
        """Return the number of the connection, which grows with each new one."""
        return self._connections

    async def send_command(self, *command: str | float) -> Any:
        """Send one command and return its reply; retry until there is one.

        A command that writes may run twice. Raises `LedgerUnavailable` after `patience_s`.
        """
        return await self._reply_to(command)

    async def run_script(self, call: ScriptCall) -> list[Any]:
        """Run one script and return its reply; retry until there is one.

        Scripts are idempotent for the same caller, so a retry after a lost reply is safe. Raises
        `LedgerUnavailable` after `patience_s`, and `QueueFull` at once if Redis is out of memory.
        """
        reply: list[Any] = await self._reply_to(call)
        return reply

    async def run_scripts(self, calls: Iterable[ScriptCall]) -> list[Any]:
        """Run many scripts and return a reply or an error for each, in order.

        Calls with the same `batch_key` share commands; what gets no reply is retried by itself,
        until `patience_s` after the last was sent.
        """
        posted, futures = list[ScriptCall](), list[asyncio.Future[Any]]()
        remaining = iter(calls)
        try:
            while part := list(islice(remaining, BATCH)):
                posted += part
                futures += [self._post(call) for call in part]
                await asyncio.sleep(0)  # Redis can begin
        except asyncio.CancelledError:
            for future in futures:  # nobody will ever read what becomes of them
                future.cancel()
            raise
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
            # At once: others wait behind it, because they are retried in their order.
            return await self._retry(call, deadline, error, at_once=True)
        except (AfterwordError, exceptions.RedisError) as repeated:
            return repeated

    async def aclose(self) -> None:
        """Close the connection; commands that wait or are in flight are cancelled."""
        in_flight = (requests for batch in self._in_flight for requests in batch)
        for _, future in chain(self._waiting, *in_flight):
            future.cancel()
        await self._importing.aclose()
        await self._reconnector.aclose()

    def _deadline(self) -> float:
        return asyncio.get_running_loop().time() + self._patience_s

    async def _reply_to(self, request: Command | ScriptCall) -> Any:
        deadline = self._deadline()
        try:
            with TimeLimit(deadline):
                return await self._post(request)
        except TimeoutError:
            raise self._given_up(Tries([], going_on=True)) from None
        except LedgerUnavailable as error:
            failed = error
        return await self._retry(request, deadline, failed)

    async def _retry(
        self,
        request: Command | ScriptCall,
        deadline: float,
        failed: Exception,
        *,
        at_once: bool = False,
    ) -> Any:
        """Retry until it works or the deadline has passed; the error then names the last cause.

        `failed` is how the first attempt ended, `at_once` whether the second one does not pause.
        """
        tries = Tries([])
        self._note(tries, failed)
        try:
            with TimeLimit(deadline):
                return await self._retry_unavailable(request, tries, at_once=at_once)
        except TimeoutError:
            raise self._given_up(tries) from None

    async def _retry_unavailable(
        self, request: Command | ScriptCall, tries: Tries, *, at_once: bool
    ) -> Any:
        pause_s = 0.0 if at_once else _FIRST_PAUSE_S
        while True:
            await asyncio.sleep(pause_s * random.uniform(0.5, 1))  # noqa: S311 no secret
            pause_s = min(pause_s * 2, _LONGEST_PAUSE_S) or _FIRST_PAUSE_S
            tries.going_on = True
            try:
                return await self._post(request)
            except LedgerUnavailable as error:
                self._note(tries, error)
            tries.going_on = False

    def _given_up(self, tries: Tries) -> LedgerUnavailable:
        """Return the error of a request that nobody waits for any more.

        It may have been done if any attempt ended, or the last one was going on, with the request
        sent and no answer.
        """
        sent = tries.may_be_done or (tries.going_on and self._reconnector.connected)
        last = tries.errors[-1] if tries.errors else translated(TimeoutError())
        cause = getattr(last, "cause", "")
        reason = f"{last} (tried for {self._patience_s:.2g} s)"
        told = spoken(reason, self._url, cause)
        return LedgerUnavailable(told, cause=cause, may_be_accepted=sent)

    def _note(self, tries: Tries, error: Exception) -> None:
        tries.errors.append(error)
        if not isinstance(error, LedgerUnavailable):
            return
        now = asyncio.get_running_loop().time()
        self._trouble = now, error
        if error.may_be_accepted:
            self._doubted_at = now

    def trouble_since(self, moment: float) -> LedgerUnavailable | None:
        """Return the last error of any request, for one that began at a moment and was given up.

        It may be accepted if any request since may be, or waits for its answer.
        """
        at, error = self._trouble
        if error is None or at < moment:
            return None
        doubted = self._doubted_at >= moment or bool(self._in_flight)
        return LedgerUnavailable(str(error), cause=error.cause, may_be_accepted=doubted)

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
        """Send what waits, unless enough is in flight; without a connection, open one first.

        Until then requests wait here, where those that nobody waits for any more are dropped: what
        was given up is not sent later.
        """
        self._flush_scheduled = False
        if not self._reconnector.connected:
            if self._waiting:
                self._reconnector.connect(self._on_connected)
            return
        while self._waiting and len(self._in_flight) < _MAX_IN_FLIGHT:
            count = min(BATCH, len(self._waiting))
            batch = _as_commands(self._waiting.popleft() for _ in range(count))
            if batch:
                self._in_flight.append(batch)
                self._send([_command_of(one) for one in batch], partial(self._on_replies, batch))

    def _on_connected(self, error: Exception | None) -> None:
        if error is None:
            self._connections += 1
            self._flush()
            return
        waiting, self._waiting = self._waiting, deque()
        for _, future in waiting:
            _resolve(future, error)

    def _on_replies(self, batch: list[list[Request]], replies: Sequence[Any]) -> None:
        self._in_flight.remove(batch)
        for requests, reply in zip(batch, replies, strict=True):
            self._resolve_requests(requests, reply)
        self._flush()

    def _resolve_requests(self, requests: list[Request], reply: Any) -> None:
        """Resolve all requests of one command."""
        if isinstance(reply, Exception):
            self._fail_requests(requests, reply)
        elif len(requests) == 1:
            _resolve(requests[0][1], reply)
        else:
            for (_, future), each in zip(requests, reply, strict=True):
                _resolve(future, each)

    def _fail_requests(self, requests: list[Request], error: Exception) -> None:
        """Fail requests; or queue them again with the script's text, or ask where it says."""
        for request, future in requests:
            if isinstance(error, exceptions.NoScriptError):
                assert isinstance(request, ScriptCall), "a plain command has no script"
                self._waiting.append((request._replace(with_text=True), future))
            elif (node := _to_ask(request, error)) and not isinstance(request, ScriptCall):
                asked = self._importing.ask(node, request)
                asked.add_done_callback(partial(_pass_on, future))
            else:
                _resolve(future, error)

    def _send(self, commands: Sequence[Command], on_replies: OnReplies) -> None:
        """Send commands at once; `on_replies` gets their replies."""
        self._reconnector.send(commands, on_replies)


def _as_commands(requests: Iterable[Request]) -> list[list[Request]]:
    """Group requests that can share a command; drop those that nobody waits for any more."""
    commands: list[list[Request]] = []
    open_batches: dict[object, tuple[list[Request], int]] = {}
    for request, future in requests:
        if future.done():
            continue
        key = request.batch_key if isinstance(request, ScriptCall) else None
        if key is None or not isinstance(request, ScriptCall):
            commands.append([(request, future)])
            continue
        batch, taken = open_batches.get(key) or ([], 0)
        weight = request.weight
        if not batch or taken + weight > MAX_BATCH:
            batch, taken = [], 0
            commands.append(batch)
        batch.append((request, future))
        open_batches[key] = batch, taken + weight
    return commands


def _command_of(requests: list[Request]) -> Command:
    first, _ = requests[0]
    if not isinstance(first, ScriptCall):
        return first
    return command_of([call for call, _ in requests if isinstance(call, ScriptCall)])


def _to_ask(request: Command | ScriptCall, error: Exception) -> Address | None:
    """Return the node that has what a read asked for, if this one gave it away."""
    return error.importing if isinstance(error, SlotClosed) and request[0] in FOLLOWED else None


def _pass_on(future: asyncio.Future[Any], asked: asyncio.Future[Any]) -> None:
    if asked.cancelled():
        future.cancel()
    else:
        _resolve(future, asked.result())


def _resolve(future: asyncio.Future[Any], reply: Any) -> None:
    if future.done():
        return
    if isinstance(reply, Exception):
        future.set_exception(translated(reply))
    else:
        future.set_result(reply)
