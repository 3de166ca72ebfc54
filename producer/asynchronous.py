"""The producer for code that runs on an event loop."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping, Sequence
from contextlib import aclosing
from types import TracebackType
from typing import Any, Self

from shared.contracts import (
    ChatRequest,
    Event,
    JobStatus,
    Priority,
    Reply,
    UsageSum,
    WhenBusy,
)
from shared.discovery import settings_in_use
from shared.errors import AfterwordError, JobFailed, LedgerUnavailable, NoReplyInTime
from shared.ledger.ledger import Ledger
from shared.ledger.records import Submitted
from shared.lifecycle import JobState
from shared.names import check_job_id
from shared.settings import Settings

#: A waiter that has heard nothing for this long looks for itself: a wake-up is only a hint.
LOOK_AGAIN_S = 10.0

#: Jobs of one `submit_many` that are on their way at once.
GROUP = 1000


class AsyncProducer:
    """Submits jobs and follows them, over two Redis connections however many jobs there are.

    Bound to the event loop that first uses it. Use it as an async context manager, or call
    `aclose`. The first call checks that the Redis is fit to be trusted and raises
    `Misconfigured` or `LedgerUnavailable` if it is not.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        """Take the settings; without any, read the environment."""
        self._settings = settings or settings_in_use()
        self._ledger = Ledger(self._settings, patience_s=self._settings.submit_timeout_s)
        self._checked: asyncio.Task[dict[str, str]] | None = None

    async def submit(  # noqa: PLR0913 the fields of a request, all by name
        self,
        *,
        user_id: str,
        message: str,
        conversation_id: str | None = None,
        when_busy: WhenBusy = "enqueue",
        idempotency_key: str | None = None,
        tenant: str = "default",
        system: str | None = None,
        model: str | None = None,
        max_tokens: int | None = None,
        metadata: Mapping[str, Any] | None = None,
        priority: Priority = "normal",
        expires_in: float | None = None,
    ) -> AsyncJob:
        """Accept one message to be answered, and return its job at once.

        The same `idempotency_key` with the same request gives the same job, so that sending
        again is always safe; `expires_in` is in seconds. Messages of one conversation are
        answered in the order of their submission, each with those before it in its prompt;
        while an earlier one has no reply, `when_busy` lets this one wait (`enqueue`), refuses it
        (`reject`), or cancels the earlier ones (`interrupt`). Raises `InvalidRequest` naming the
        field, or a `NotAccepted`: then nothing was promised.
        """
        return await self._submit(
            {
                "user_id": user_id,
                "message": message,
                "conversation_id": conversation_id,
                "when_busy": when_busy,
                "idempotency_key": idempotency_key,
                "tenant": tenant,
                "system": system,
                "model": model,
                "max_tokens": max_tokens,
                "metadata": dict(metadata) if isinstance(metadata, Mapping) else metadata,
                "priority": priority,
                "expires_in": expires_in,
            }
        )

    async def submit_many(
        self, requests: Iterable[Mapping[str, Any] | ChatRequest]
    ) -> list[AsyncJob | AfterwordError]:
        """Submit many requests, given as the arguments of `submit`; return a result for each.

        A request that is not accepted gives its error in its place and stops no other. Those of
        one conversation are accepted in the order given.
        """
        asked = list(requests)
        results: list[AsyncJob | AfterwordError] = []
        for start in range(0, len(asked), GROUP):
            group = asked[start : start + GROUP]
            results.extend(await self._submit_group(group))
        return results

    async def usage(self, *, tenant: str = "default", user_id: str | None = None) -> UsageSum:
        """Return what the replies of a tenant, or of one of its users, have cost so far.

        A tenant's sum goes on for ever, a user's until 90 days after their last reply.
        """
        await self._check()
        return await self._ledger.reading.usage(tenant, user_id)

    def job(self, job_id: str) -> AsyncJob:
        """Return a handle on a job that was submitted before, by any process."""
        return AsyncJob(self._ledger, check_job_id(job_id))

    async def aclose(self) -> None:
        """Close the connections; jobs go on."""
        if self._checked is not None:
            self._checked.cancel()
        await self._ledger.aclose()

    async def __aenter__(self) -> Self:
        """Return the producer."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the connections."""
        await self.aclose()

    async def _submit_group(
        self, group: list[Mapping[str, Any] | ChatRequest]
    ) -> list[AsyncJob | AfterwordError]:
        """Submit all at once, but one after the other what must keep its order."""
        asked: dict[int, ChatRequest] = {}
        results: dict[int, AsyncJob | AfterwordError] = {}
        for number, values in enumerate(group):
            try:
                asked[number] = self._parsed(values)
            except AfterwordError as error:
                results[number] = error
        for wave in _waves(asked):
            results |= zip(wave, await self._accept_or_errors(list(wave.values())), strict=True)
        return [results[number] for number in range(len(group))]

    async def _accept_or_errors(
        self, requests: Sequence[ChatRequest]
    ) -> Sequence[AsyncJob | AfterwordError]:
        try:
            return await self._accept(requests)
        except AfterwordError as error:
            return [error] * len(requests)

    def _parsed(self, values: Mapping[str, Any] | ChatRequest) -> ChatRequest:
        fields = values.model_dump() if isinstance(values, ChatRequest) else values
        return ChatRequest.parse(
            fields,
            max_bytes=self._settings.max_message_bytes,
            max_tokens=self._settings.max_message_tokens,
        )

    async def _submit(self, values: Mapping[str, Any] | ChatRequest) -> AsyncJob:
        (job,) = await self._accept([self._parsed(values)])
        if isinstance(job, AfterwordError):
            raise job
        return job

    async def _accept(self, requests: Sequence[ChatRequest]) -> list[AsyncJob | AfterwordError]:
        """Have the ledger accept requests; raise if it does not say in time whether it has."""
        jobs = self._ledger.jobs
        try:
            async with asyncio.timeout(self._settings.submit_timeout_s):
                await self._check()
                told = await jobs.submit_all((jobs.new_id(one), one) for one in requests)
        except TimeoutError:
            limit_s = self._settings.submit_timeout_s
            reason = (
                f"AFTERWORD_REDIS_URL: Redis did not confirm within {limit_s:g} s; it may have "
                "accepted all the same: send it again with the same idempotency key, for without "
                "one it may become a second job"
            )
            raise LedgerUnavailable(reason) from None
        return [
            AsyncJob(self._ledger, one.job_id) if isinstance(one, Submitted) else one
            for one in told
        ]

    async def _check(self) -> None:
        """Check the Redis once; a check that failed is made again by the next call."""
        if self._checked is None or (self._checked.done() and self._checked.exception()):
            self._checked = asyncio.create_task(self._ledger.check())
        if not self._checked.done():
            await asyncio.shield(self._checked)
        self._checked.result()


class AsyncJob:
    """A handle on one job; `id` is all that another process needs to make one."""

    def __init__(self, ledger: Ledger, job_id: str) -> None:
        """Take the ledger that holds the job."""
        self._ledger = ledger
        self.id = job_id

    def __repr__(self) -> str:
        """Show the id."""
        return f"{type(self).__name__}({self.id!r})"

    async def wait(self, timeout: float = 60.0) -> Reply:
        """Return the reply as soon as it is there.

        `timeout` is in seconds. Raises `NoReplyInTime` (the job goes on), `JobFailed` (it
        ended without a reply, `code` says why), `JobNotFound` or `NewerRecord` (only a newer
        version can read it).
        """
        try:
            async with asyncio.timeout(timeout):
                return await self._ended()
        except TimeoutError:
            raise NoReplyInTime(self.id, timeout) from None

    async def stream(self, after: str | None = None) -> AsyncGenerator[Event, None]:
        """Give the events of the reply as they come, from the beginning or after an event id.

        Ends after `final` or `failed`. After a `restart` the deltas before it are void. When
        the stream's retention is over, only the last event is given. Raises `JobNotFound` or
        `NewerRecord`.
        """
        async with aclosing(self._changes()) as changes:
            async for event in self._events_over(changes, after):
                yield event

    async def _events_over(
        self, changes: AsyncIterator[None], after: str | None
    ) -> AsyncIterator[Event]:
        async for _ in changes:
            status = await self.status()
            async for event in self._events(status, after):
                after = event.id
                yield event
                if event.type in ("final", "failed"):
                    return
            if status.state.terminal:
                return

    async def status(self) -> JobStatus:
        """Return where the job and its turn are; raise `JobNotFound` or `NewerRecord`."""
        return await self._ledger.reading.status(self.id)

    async def cancel(self) -> bool:
        """Cancel the job; return whether it is cancelled, now or before.

        Raises `JobNotFound`, or `NewerRecord`: then only a newer version may cancel it.
        """
        word = await self._ledger.jobs.cancel(self.id)
        if word == "gone":
            await self.status()
        return word == "cancelled"

    async def _ended(self) -> Reply:
        async with aclosing(self._changes()) as changes:
            async for _ in changes:
                status, reply = await self._ledger.reading.outcome(self.id)
                if reply is not None:
                    return reply
                if status.state.terminal:
                    raise JobFailed(self.id, status.state, status.code or status.state)
        raise AssertionError("changes go on until their reader stops")

    async def _changes(self) -> AsyncGenerator[None, None]:
        """Give a sign now and whenever something happened to the job, for ever."""
        woken = asyncio.Event()
        async with self._ledger.hearing_job(self.id, lambda _: woken.set()):
            while True:
                woken.clear()
                yield
                await _any_sign(woken)

    async def _events(self, status: JobStatus, after: str | None) -> AsyncIterator[Event]:
        """Give what is there after an event id; of a stream no longer kept, only the end."""
        if status.state.terminal and not await self._ledger.reading.keeps_stream(self.id):
            yield await self._end(status, after)
            return
        while events := await self._ledger.reading.events(self.id, after):
            for event in events:
                after = event.id
                yield event

    async def _end(self, status: JobStatus, after: str | None) -> Event:
        return Event(
            id=after or "0-0",
            type="final" if status.state is JobState.SUCCEEDED else "failed",
            attempt=status.attempts,
            reply=await self._ledger.reading.reply(self.id),
            code=status.code,
            state=status.state,
        )


def _waves(asked: Mapping[int, ChatRequest]) -> list[dict[int, ChatRequest]]:
    """Divide requests into those that may be on their way together: one of each conversation."""
    waves: list[dict[int, ChatRequest]] = []
    sent: Counter[tuple[str, ...]] = Counter()
    for number, request in asked.items():
        wave = 0
        if request.conversation_id is not None:
            line = (request.tenant, request.user_id, request.conversation_id)
            wave, sent[line] = sent[line], sent[line] + 1
        if wave == len(waves):
            waves.append({})
        waves[wave][number] = request
    return waves


async def _any_sign(woken: asyncio.Event) -> None:
    try:
        async with asyncio.timeout(LOOK_AGAIN_S):
            await woken.wait()
    except TimeoutError:
        return
