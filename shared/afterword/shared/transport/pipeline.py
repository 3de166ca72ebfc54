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

from afterword.shared.errors import AfterwordError, LedgerUnavailable, Misconfigured, QueueFull
from afterword.shared.transport.connection import Answered, Command, Reconnector
from afterword.shared.transport.scripts import MOST, Step, command_of

#: Commands sent in one go at most: bounds how long one answer waits for the others.
BATCH = 256

_FIRST_PAUSE_S = 0.02
_LONGEST_PAUSE_S = 1.0

#: A connection silent for this long is given up, however patient its callers are.
_SOCKET_S = 3.0

#: Batches under way at once: one is packed or unpacked here while Redis works on the other.
_BATCHES = 2

#: The root of the shard where a script is to run, and its arguments.
Call: TypeAlias = tuple[str, Sequence[str | float]]

#: What is asked, and who waits for the answer; of those that are one command, a list.
Asked: TypeAlias = tuple[Command | Step, asyncio.Future[Any]]


class Pipeline:
    """Sends what many coroutines ask of one Redis as few pipelines over one connection.

    While two batches are under way the next one gathers, so that a thousand coroutines cost a
    thousand commands but only a few round trips, and never a second connection. Bound to the
    event loop that first uses it.
    """

    def __init__(self, url: str, *, patience_s: float) -> None:
        """Take a redis-py address; `patience_s` bounds how long one call waits in all."""
        self._patience_s = patience_s
        self._reconnector = Reconnector(url, timeout_s=min(patience_s, _SOCKET_S))
        self._waiting: deque[Asked] = deque()
        self._under_way: list[list[list[Asked]]] = []
        self._called = False

    async def call(self, *command: str | float) -> Any:
        """Send one command that only reads, again and again until it is answered.

        Raises `LedgerUnavailable` after the patience.
        """
        return await self._patiently(lambda: self._post(command))

    async def run(self, name: str, root: str, *arguments: str | float) -> list[Any]:
        """Run one script on the shard with that root, again and again until it is confirmed.

        Every script does nothing more when the same caller asks a second time, so that asking
        again after a lost answer is always safe. Raises `LedgerUnavailable` after the patience, and
        `QueueFull` at once if Redis has no memory left for it.
        """
        step = Step(name, root, arguments)
        answer: list[Any] = await self._patiently(lambda: self._post(step))
        return answer

    async def run_all(self, name: str, calls: Iterable[Call]) -> list[Any]:
        """Run one script once for each (root, arguments); return an answer or an error for each.

        The same as many runs at once, for less: many may be one command, and only what was not
        confirmed costs a run of its own. The first argument is the same for all of one root, and
        all have as many.
        """
        asked, futures = list[Call](), list[asyncio.Future[Any]]()
        remaining = iter(calls)
        while part := list(islice(remaining, BATCH)):
            asked += part
            futures += [self._post(Step(name, root, tuple(each))) for root, each in part]
            await asyncio.sleep(0)  # Redis can begin
        answers = await asyncio.gather(*futures, return_exceptions=True)
        return [
            await self._once_more(name, call, answer)
            for call, answer in zip(asked, answers, strict=True)
        ]

    async def _once_more(self, name: str, call: Call, answer: Any) -> Any:
        if isinstance(answer, asyncio.CancelledError):
            raise answer  # the door was closed
        if not isinstance(answer, Exception):
            return answer
        root, arguments = call
        try:
            return await self.run(name, root, *arguments)
        except (AfterwordError, exceptions.RedisError) as error:
            return error

    async def aclose(self) -> None:
        """Close the connection; what waits or is under way is cancelled."""
        under_way = (one for batch in self._under_way for one in batch)
        for _, future in chain(self._waiting, *under_way):
            future.cancel()
        await self._reconnector.aclose()

    async def _patiently(self, attempt: Callable[[], Awaitable[Any]]) -> Any:
        """Try until it works or the patience is over; say then what was wrong last."""
        wrong = ["it gave no answer"]
        try:
            async with asyncio.timeout(self._patience_s):
                return await _until_it_works(attempt, wrong)
        except TimeoutError:
            waited = f"{self._patience_s:g} s: {wrong[-1]}"
            reason = f"AFTERWORD_REDIS_URL: Redis did not confirm within {waited}"
            raise LedgerUnavailable(reason) from None

    def _post(self, ask: Command | Step) -> asyncio.Future[Any]:
        """Put it among what waits; see to it that it is sent."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        self._waiting.append((ask, future))
        if not self._called:
            self._called = True
            loop.call_soon(self._flush)  # and not at once: others ask in this turn of the loop too
        return future

    def _flush(self) -> None:
        """Send what waits, as far as it may be under way."""
        self._called = False
        while self._waiting and len(self._under_way) < _BATCHES:
            count = min(BATCH, len(self._waiting))
            batch = _as_commands(self._waiting.popleft() for _ in range(count))
            if batch:
                self._under_way.append(batch)
                self._exchange([_command_of(one) for one in batch], partial(self._heard, batch))

    def _heard(self, batch: list[list[Asked]], replies: Sequence[Any]) -> None:
        self._under_way.remove(batch)
        for asked, reply in zip(batch, replies, strict=True):
            self._tell(asked, reply)
        self._flush()

    def _tell(self, asked: list[Asked], reply: Any) -> None:
        """Tell all who wait for one command's reply, or ask anew with the text of the script."""
        if isinstance(reply, exceptions.NoScriptError):
            for step, future in asked:
                assert isinstance(step, Step), "a plain command has no script"
                self._waiting.append((step._replace(whole=True), future))
        elif isinstance(reply, Exception) or len(asked) == 1:
            for _, future in asked:
                _resolve(future, reply)
        else:
            for (_, future), answer in zip(asked, reply, strict=True):
                _resolve(future, answer)

    def _exchange(self, commands: Sequence[Command], answered: Answered) -> None:
        """Send commands in one go."""
        self._reconnector.exchange(commands, answered)


def _as_commands(asked: Iterable[Asked]) -> list[list[Asked]]:
    """Put together what can be one command; leave out what nobody waits for any more."""
    commands: list[list[Asked]] = []
    open_ones: dict[object, list[Asked]] = {}
    for ask, future in asked:
        if future.done():
            continue
        company = ask.company if isinstance(ask, Step) else None
        together = open_ones.get(company) if company else None
        if together is None or len(together) == MOST:
            together = []
            commands.append(together)
            if company:
                open_ones[company] = together
        together.append((ask, future))
    return commands


def _command_of(asked: list[Asked]) -> Command:
    first, _ = asked[0]
    if not isinstance(first, Step):
        return first
    return command_of([step for step, _ in asked if isinstance(step, Step)])


async def _until_it_works(attempt: Callable[[], Awaitable[Any]], wrong: list[str]) -> Any:
    pause_s = _FIRST_PAUSE_S
    while True:
        try:
            return await attempt()
        except LedgerUnavailable as error:
            wrong.append(str(error))
        await asyncio.sleep(pause_s * random.uniform(0.5, 1))  # noqa: S311 no secret
        pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)


def _resolve(future: asyncio.Future[Any], reply: Any) -> None:
    if future.done():
        return
    if isinstance(reply, Exception):
        future.set_exception(_translated(reply))
    else:
        future.set_result(reply)


#: Answers that mean "not now" and not "never".
_PASSING_ERRORS = (
    exceptions.ConnectionError,
    exceptions.TimeoutError,
    exceptions.ReadOnlyError,
    exceptions.MasterDownError,
    exceptions.ClusterDownError,
    exceptions.TryAgainError,
    OSError,
)
_PASSING_WORDS = ("BUSY", "MISCONF", "NOREPLICAS")


def _translated(error: Exception) -> Exception:
    """Turn an error of Redis into ours, but leave a missing script and a bug as they are."""
    if isinstance(error, (exceptions.AuthenticationError, exceptions.NoPermissionError)):
        return Misconfigured("AFTERWORD_REDIS_URL", f"Redis refuses us: {type(error).__name__}")
    if isinstance(error, exceptions.OutOfMemoryError) or str(error).startswith("OOM"):
        return QueueFull("Redis is at its maxmemory; try again later")
    if isinstance(error, _PASSING_ERRORS) or str(error).startswith(_PASSING_WORDS):
        return LedgerUnavailable(type(error).__name__)
    return error
