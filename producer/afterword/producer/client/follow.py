"""Following a job: its end, and its events as they are published."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing

from afterword.producer.client.cursor import is_beginning, not_of_this_job
from afterword.shared.contracts import Event, Reply
from afterword.shared.errors import JobFailed
from afterword.shared.ledger.ledger import Ledger
from afterword.shared.ledger.queries import PAGE, Progress
from afterword.shared.lifecycle import JobState

#: Seconds after which a follower that heard nothing reads the job anyway: notifications may be
#: lost. A lost connection is noticed sooner, and then every follower reads.
LOOK_AGAIN_S = 30.0

#: Events that end nothing: a caller that waits for the reply need not read the job for them.
_NOT_THE_END = frozenset({"started", "restart", "delta"})


class Follower:
    """Follows one job. It reads the job when the ledger notifies it, and polls rarely."""

    def __init__(self, ledger: Ledger, job_id: str) -> None:
        self._ledger = ledger
        self._reading = ledger.queries
        self._job_id = job_id

    async def reply(self) -> Reply:
        """Return the reply once it exists; raise `JobFailed` if the job ends without one."""
        async with aclosing(self._changes(_NOT_THE_END)) as changes:
            async for _ in changes:
                if (reply := await self.reply_now()) is not None:
                    return reply
        raise AssertionError("changes go on until their reader stops")

    async def reply_now(self) -> Reply | None:
        """Return the reply, None if the job goes on; raise `JobFailed` if it ended without one."""
        job, reply = await self._reading.progress_and_reply(self._job_id)
        if reply is None and job.state.terminal:
            raise JobFailed(self._job_id, job.state, job.code or job.state)
        return reply

    async def events(self, after: str | None) -> AsyncGenerator[Event, None]:
        """Yield the events that follow an event id, until the last one."""
        await self._check(after)
        async with aclosing(self._changes()) as changes:
            async for event in self._events_over(changes, after):
                yield event

    async def _check(self, after: str | None) -> None:
        """Refuse what is no event of the job: nothing could follow it, or too much.

        Once the stream has expired, nobody knows any more, and its end is given to everybody.
        """
        if after is None or is_beginning(after):
            return
        if await self._reading.has_event(self._job_id, after):
            return
        job = await self._reading.progress(self._job_id)
        if await self._reading.has_stream(self._job_id) or not job.state.terminal:
            raise not_of_this_job()

    async def _events_over(
        self, changes: AsyncIterator[None], after: str | None
    ) -> AsyncIterator[Event]:
        """Read the job at first, and later only when a notification brought no new event."""
        known = False
        async for _ in changes:
            events = await self._reading.events(self._job_id, after) if known else ()
            job, known = None if events else await self._reading.progress(self._job_id), True
            async for event in self._events(job, events, after):
                after = event.id
                yield event
                if event.type in ("final", "failed"):
                    return
            if job is not None and job.state.terminal:
                return

    async def _events(
        self, job: Progress | None, events: Sequence[Event], after: str | None
    ) -> AsyncIterator[Event]:
        """Yield events and all that follow them; if the stream has expired, only the end."""
        if job is not None:
            if job.state.terminal and not await self._reading.has_stream(self._job_id):
                yield await self._end(job, after)
                return
            events = await self._reading.events(self._job_id, after)
        while events:
            for event in events:
                yield event
            more = len(events) >= PAGE
            events = await self._reading.events(self._job_id, events[-1].id) if more else ()

    async def _end(self, job: Progress, after: str | None) -> Event:
        return Event(
            id=after or "0-0",
            type="final" if job.state is JobState.SUCCEEDED else "failed",
            attempt=job.attempts,
            reply=await self._reading.reply(self._job_id),
            code=job.code,
            state=job.state,
        )

    async def _changes(self, ignored: frozenset[str] = frozenset()) -> AsyncGenerator[None, None]:
        """Yield now, and whenever something happened to the job; never ends by itself."""
        woken = asyncio.Event()

        def hear(event: str) -> None:
            if event not in ignored:
                woken.set()

        async with self._ledger.listen_to_job(self._job_id, hear):
            while True:
                woken.clear()
                yield
                await _woken_or_time_to_look(woken)


def _look_again_after_s() -> float:
    """Return a random time, so that thousands who began together do not read together."""
    return random.uniform(LOOK_AGAIN_S / 2, LOOK_AGAIN_S)  # noqa: S311 no secret


async def _woken_or_time_to_look(woken: asyncio.Event) -> None:
    try:
        async with asyncio.timeout(_look_again_after_s()):
            await woken.wait()
    except TimeoutError:
        return
