"""The producer for code that runs on an event loop."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import aclosing
from typing import Any, TypeAlias

from afterword.producer.client.follow import Follower
from afterword.shared.closing import AsyncCloseable
from afterword.shared.contracts import (
    ChatRequest,
    Event,
    JobStatus,
    Priority,
    Reply,
    UsageSum,
    WhenBusy,
)
from afterword.shared.discovery import settings_in_use
from afterword.shared.errors import AfterwordError, LedgerUnavailable, NoReplyInTime
from afterword.shared.ledger.ledger import Ledger
from afterword.shared.ledger.records import Submitted
from afterword.shared.names import check_job_id
from afterword.shared.settings import Settings

#: Jobs of one `submit_many` that are on their way at once.
GROUP = 1000

#: Requests that are read before others have their turn on the event loop.
_AT_A_STRETCH = 32

#: The id that a job is to have, and what is asked of it.
Asked: TypeAlias = tuple[str, ChatRequest]


class AsyncProducer(AsyncCloseable):
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
        asked = self._asked(
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
        return await self._accept_one(*asked)

    async def submit_many(
        self, requests: Iterable[Mapping[str, Any] | ChatRequest]
    ) -> list[AsyncJob | AfterwordError]:
        """Submit many requests, given as the arguments of `submit`; return a result for each.

        A request that is not accepted gives its error in its place and stops no other. Those of
        one conversation are accepted in the order given.
        """
        asked = list(requests)
        groups = [asked[start : start + GROUP] for start in range(0, len(asked), GROUP)]
        results: list[AsyncJob | AfterwordError] = []
        read: list[Asked | AfterwordError] = []
        for group in [*groups, []]:  # one is read while Redis works on the one before
            accepted, read = await asyncio.gather(self._accept_group(read), self._read(group))
            results += accepted
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

    async def _read(
        self, group: Sequence[Mapping[str, Any] | ChatRequest]
    ) -> list[Asked | AfterwordError]:
        read: list[Asked | AfterwordError] = []
        for values in group:
            try:
                read.append(self._asked(values))
            except AfterwordError as error:
                read.append(error)
            if len(read) % _AT_A_STRETCH == 0:
                await asyncio.sleep(0)
        return read

    async def _accept_group(
        self, read: Sequence[Asked | AfterwordError]
    ) -> list[AsyncJob | AfterwordError]:
        """Have all accepted at once, but one after the other what must keep its order."""
        asked: dict[int, Asked] = {}
        accepted: dict[int, AsyncJob | AfterwordError] = {}
        for at, one in enumerate(read):
            if isinstance(one, AfterwordError):
                accepted[at] = one
            else:
                asked[at] = one
        for wave in _waves(asked):
            told = await self._accept_or_errors(list(wave.values()))
            accepted |= zip(wave, told, strict=True)
        return [accepted[at] for at in range(len(read))]

    async def _accept_or_errors(
        self, asked: Sequence[Asked]
    ) -> Sequence[AsyncJob | AfterwordError]:
        try:
            return await self._accept(asked)
        except AfterwordError as error:
            return [error] * len(asked)

    def _asked(self, values: Mapping[str, Any] | ChatRequest) -> Asked:
        """Return what is asked, once it is found to be a request, and the id of its job."""
        fields = values.model_dump() if isinstance(values, ChatRequest) else values
        request = ChatRequest.parse(
            fields,
            max_bytes=self._settings.max_message_bytes,
            max_tokens=self._settings.max_message_tokens,
        )
        return self._ledger.jobs.new_id(request), request

    def _accept_directly(self, job_id: str, request: ChatRequest) -> str | None:
        """Have the ledger accept a request, from another thread than the loop's.

        Returns the id of its job, or None if `_accept_one` must have the last word on it.
        """
        if not self._is_checked():
            return None
        told = self._ledger.jobs.submit_directly(job_id, request)
        return None if told is None else told.job_id

    async def _accept_one(
        self, job_id: str, request: ChatRequest, *, waited_s: float = 0.0
    ) -> AsyncJob:
        (job,) = await self._accept([(job_id, request)], waited_s=waited_s)
        if isinstance(job, AfterwordError):
            raise job
        return job

    async def _accept(
        self, asked: Sequence[Asked], *, waited_s: float = 0.0
    ) -> list[AsyncJob | AfterwordError]:
        """Have the ledger accept requests; raise if it does not say in time whether it has."""
        try:
            async with asyncio.timeout(self._settings.submit_timeout_s - waited_s):
                await self._check()
                told = await self._ledger.jobs.submit_all(asked)
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

    def _is_checked(self) -> bool:
        checked = self._checked
        return checked is not None and checked.done() and not checked.exception()

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
                return await Follower(self._ledger, self.id).reply()
        except TimeoutError:
            raise NoReplyInTime(self.id, timeout) from None

    async def stream(self, after: str | None = None) -> AsyncGenerator[Event, None]:
        """Give the events of the reply as they come, from the beginning or after an event id.

        Ends after `final` or `failed`. After a `restart` the deltas before it are void. When
        the stream's retention is over, only the last event is given. Raises `JobNotFound` or
        `NewerRecord`.
        """
        async with aclosing(Follower(self._ledger, self.id).events(after)) as events:
            async for event in events:
                yield event

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


def _waves(asked: Mapping[int, Asked]) -> list[dict[int, Asked]]:
    """Divide requests into those that may be on their way together: one of each conversation."""
    waves: list[dict[int, Asked]] = []
    sent: Counter[tuple[str, ...]] = Counter()
    for number, (job_id, request) in asked.items():
        wave = 0
        if request.conversation_id is not None:
            line = (request.tenant, request.user_id, request.conversation_id)
            wave, sent[line] = sent[line], sent[line] + 1
        if wave == len(waves):
            waves.append({})
        waves[wave][number] = job_id, request
    return waves
