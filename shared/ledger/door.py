"""One connection to Redis that many coroutines share."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import Any, TypeAlias

from redis import exceptions

from shared.errors import AfterwordError, LedgerUnavailable, Misconfigured, QueueFull
from shared.ledger.line import Answered, Command
from shared.ledger.script import Call, Script, script
from shared.ledger.wire import Wire

#: Commands sent in one go at most: bounds how long one answer waits for the others.
BATCH = 256

_FIRST_PAUSE_S = 0.02
_LONGEST_PAUSE_S = 1.0

#: A connection silent for this long is given up, however patient its callers are.
_SOCKET_S = 3.0

#: Batches under way at once, if there is that much to send: one is packed or unpacked here while
#: Redis works on the other.
_BATCHES = 2

#: A command, and who waits for the reply to it.
Asked: TypeAlias = tuple[Command, asyncio.Future[Any]]


class Door:
    """Sends what many coroutines ask of one Redis as few pipelines over one connection.

    While one batch is under way the next one gathers, so that a thousand coroutines cost a
    thousand commands but only a few round trips, and never a second connection. Bound to the
    event loop that first uses it.
    """

    def __init__(self, url: str, *, patience_s: float) -> None:
        """Take a redis-py address; `patience_s` bounds how long one call waits in all."""
        self._patience_s = patience_s
        self._wire = Wire(url, timeout_s=min(patience_s, _SOCKET_S))
        self._waiting: deque[Asked] = deque()
        self._under_way: list[list[Asked]] = []
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
        step, calls = script(name), [(root, arguments)]
        (answer,) = await self._patiently(lambda: self._evaluate(step, calls))
        return list(answer)

    async def run_all(self, name: str, calls: Iterable[Call]) -> list[Any]:
        """Run one script once for each (root, arguments); return an answer or an error for each.

        The same as many runs at once, for less: many may be one command, and only what was not
        confirmed costs a run of its own. The first argument is the same for all of one root, and
        all have as many.
        """
        step, asked, answers = script(name), list[Call](), dict[int, Any]()
        remaining = iter(calls)
        async with asyncio.TaskGroup() as tasks:
            while part := list(islice(remaining, BATCH)):
                for together in _together(part, len(asked), step.most):
                    tasks.create_task(self._take_together(step, together, answers))
                asked += part
                await asyncio.sleep(0)  # let them begin
                await asyncio.sleep(0)  # and Redis too
        return [
            await self._once_more(name, call, answers[number]) for number, call in enumerate(asked)
        ]

    async def _take_together(
        self, step: Script, calls: Mapping[int, Call], answers: dict[int, Any]
    ) -> None:
        """Take a step for each call with one command; an error of it is the answer to all."""
        told: list[Any]
        try:
            told = await self._evaluate(step, list(calls.values()))
        except (AfterwordError, exceptions.RedisError) as error:
            told = [error] * len(calls)
        answers |= zip(calls, told, strict=True)

    async def _once_more(self, name: str, call: Call, answer: Any) -> Any:
        if not isinstance(answer, Exception):
            return answer
        root, arguments = call
        try:
            return await self.run(name, root, *arguments)
        except (AfterwordError, exceptions.RedisError) as error:
            return error

    async def aclose(self) -> None:
        """Close the connection; what waits or is under way is cancelled."""
        for batch in (self._waiting, *self._under_way):
            _cancel(batch)
        await self._wire.aclose()

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

    async def _evaluate(self, step: Script, calls: Sequence[Call]) -> list[Any]:
        try:
            reply = await self._post(("EVALSHA", step.sha, *step.arguments(calls)))
        except exceptions.NoScriptError:
            reply = await self._post(("EVAL", step.text, *step.arguments(calls)))
        return step.answers(reply)

    def _post(self, command: Command) -> asyncio.Future[Any]:
        """Put a command among those that wait; see to it that they are sent."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        self._waiting.append((command, future))
        if not self._called:
            self._called = True
            loop.call_soon(self._flush)  # and not at once: others ask in this turn of the loop too
        return future

    def _flush(self) -> None:
        """Send what waits, as far as it may be under way."""
        self._called = False
        while self._waiting and len(self._under_way) < _BATCHES:
            count = min(BATCH, len(self._waiting))
            batch = [self._waiting.popleft() for _ in range(count)]
            batch = [asked for asked in batch if not asked[1].done()]
            if batch:
                self._under_way.append(batch)
                self._exchange([command for command, _ in batch], partial(self._answered, batch))

    def _answered(self, batch: list[Asked], replies: Sequence[Any]) -> None:
        self._under_way.remove(batch)
        for (_, future), reply in zip(batch, replies, strict=True):
            _resolve(future, reply)
        self._flush()

    def _exchange(self, commands: Sequence[Command], answered: Answered) -> None:
        """Send commands in one go."""
        self._wire.exchange(commands, answered)


def _together(part: Sequence[Call], before: int, most: int) -> Iterator[dict[int, Call]]:
    """Divide calls into those that may be one command; number them on from those before."""
    of_root = defaultdict[str, list[int]](list)
    for number, (root, _) in enumerate(part):
        of_root[root].append(number)
    for numbers in of_root.values():
        for start in range(0, len(numbers), most):
            yield {before + number: part[number] for number in numbers[start : start + most]}


async def _until_it_works(attempt: Callable[[], Awaitable[Any]], wrong: list[str]) -> Any:
    pause_s = _FIRST_PAUSE_S
    while True:
        try:
            return await attempt()
        except LedgerUnavailable as error:
            wrong.append(str(error))
        await asyncio.sleep(pause_s * random.uniform(0.5, 1))  # noqa: S311 no secret
        pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)


def _cancel(calls: Iterable[Asked]) -> None:
    for _, future in calls:
        future.cancel()


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
