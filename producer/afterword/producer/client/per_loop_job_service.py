"""A job service that can be used from any event loop."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import Any

from afterword.producer.client.job_service import Item, JobService, Submission
from afterword.producer.client.memory_calls import MemoryCall, Owner
from afterword.producer.per_loop import PerLoop
from afterword.shared.contracts import Event, JobStatus, Reply
from afterword.shared.errors import AfterwordError
from afterword.shared.settings import Settings
from afterword.shared.usage_contracts import UsageSum


class PerLoopJobService(JobService):
    """Passes each call on to the job service of the running event loop, opened when first asked."""

    def __init__(self, settings: Settings, open_one: Callable[[], JobService]) -> None:
        super().__init__(settings)
        self._services = PerLoop(open_one)

    async def ping(self) -> None:
        """Raise whatever would keep a submit from being accepted; return if nothing would."""
        await self._services.here().ping()

    def submit_blocking(self, submission: Submission) -> str | None:
        """Return None: only a producer without an event loop submits from its own thread."""
        del submission
        return None

    async def submit(
        self, submission: Submission, *, waited_s: float = 0.0, unsure: bool = False
    ) -> str:
        """Submit a request and return the id of its job; raise `NotAccepted`."""
        service = self._services.here()
        return await service.submit(submission, waited_s=waited_s, unsure=unsure)

    async def submit_many(self, items: Sequence[Item]) -> list[str | AfterwordError]:
        """Submit many requests; return a job id or an error for each."""
        return await self._services.here().submit_many(items)

    async def wait(self, job_id: str, timeout: float) -> Reply:  # the caller's own limit
        """Return the reply of a job as soon as it exists."""
        return await self._services.here().wait(job_id, timeout)

    async def stream(self, job_id: str, after: str | None) -> AsyncGenerator[Event, None]:
        """Yield the events of a job that follow an event id, until the last one."""
        async with aclosing(self._services.here().stream(job_id, after)) as events:
            async for event in events:
                yield event

    async def status(self, job_id: str) -> JobStatus:
        """Return the state of a job and of its turn."""
        return await self._services.here().status(job_id)

    async def cancel(self, job_id: str) -> bool:
        """Cancel a job; return whether it is cancelled."""
        return await self._services.here().cancel(job_id)

    async def ask_about_memories(self, call: MemoryCall) -> Any:
        """Return what a memory worker answers to a call."""
        return await self._services.here().ask_about_memories(call)

    async def records_of(self, owner: Owner) -> AsyncGenerator[tuple[str, Any], None]:
        """Yield what is kept of a user beside memories."""
        async with aclosing(self._services.here().records_of(owner)) as records:
            async for record in records:
                yield record

    async def usage(self, tenant: str, user_id: str | None) -> UsageSum:
        """Return the tokens that the jobs of a tenant or a user have used."""
        return await self._services.here().usage(tenant, user_id)

    async def aclose(self) -> None:
        """Close the connections of all loops."""
        await self._services.aclose()
