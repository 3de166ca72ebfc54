"""The producer for code without an event loop: the same surface, waiting where it must."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import AsyncGenerator, Generator, Iterable, Mapping
from typing import Any

from afterword.producer.client.async_client import AsyncJob, AsyncProducer
from afterword.producer.portal import Portal
from afterword.shared.closing import Closeable
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
from afterword.shared.errors import AfterwordError
from afterword.shared.names import check_job_id
from afterword.shared.settings import Settings


class Producer(Closeable):
    """Submits jobs and follows them from plain code; safe to share between threads.

    All threads of a process share three Redis connections and one background thread. A producer
    made before a fork works in the child too: it begins anew there.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        """Take the settings; without any, read the environment."""
        self._settings = settings or settings_in_use()
        self._lock = threading.Lock()
        self._opened: tuple[Portal, AsyncProducer] | None = None

    def submit(  # noqa: PLR0913 the fields of a request, all by name
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
    ) -> Job:
        """Accept one message to be answered; see `AsyncProducer.submit`."""
        return self._submit(
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

    def submit_many(
        self, requests: Iterable[Mapping[str, Any] | ChatRequest]
    ) -> list[Job | AfterwordError]:
        """Submit many requests, a result for each; see `AsyncProducer.submit_many`."""
        portal, producer = self._open()
        results = portal.call(producer.submit_many(requests))
        return [Job(self, one.id) if isinstance(one, AsyncJob) else one for one in results]

    def usage(self, *, tenant: str = "default", user_id: str | None = None) -> UsageSum:
        """Return what replies have cost so far; see `AsyncProducer.usage`."""
        portal, producer = self._open()
        return portal.call(producer.usage(tenant=tenant, user_id=user_id))

    def job(self, job_id: str) -> Job:
        """Return a handle on a job that was submitted before, by any process."""
        return Job(self, check_job_id(job_id))

    def close(self) -> None:
        """Close the connections and end the background thread; jobs go on."""
        with self._lock:
            opened, self._opened = self._opened, None
        if opened is not None and opened[0].pid == os.getpid():
            portal, producer = opened
            portal.call(producer.aclose())
            portal.close()

    def _submit(self, fields: Mapping[str, Any]) -> Job:
        """Submit from this thread, without a change of thread, if that works at once."""
        portal, producer = self._open()
        asked, began = producer._asked(fields), time.monotonic()  # noqa: SLF001 one of two faces
        job_id = producer._accept_directly(*asked)  # noqa: SLF001
        if job_id is None:
            waited_s = time.monotonic() - began
            job_id = portal.call(producer._accept_one(*asked, waited_s=waited_s)).id  # noqa: SLF001
        return Job(self, job_id)

    def _open(self) -> tuple[Portal, AsyncProducer]:
        """Return this process's own loop and producer: neither survives a fork."""
        # Without the lock, which a fork would copy as it is while another thread holds it.
        if (opened := self._opened) is not None and opened[0].pid == os.getpid():
            return opened
        with self._lock:
            if self._opened is None or self._opened[0].pid != os.getpid():
                portal = Portal()
                self._opened = portal, portal.make(lambda: AsyncProducer(self._settings))
            return self._opened

    def _job(self, job_id: str) -> tuple[Portal, AsyncJob]:
        portal, producer = self._open()
        return portal, producer.job(job_id)


class Job:
    """A handle on one job; `id` is all that another process needs to make one."""

    def __init__(self, producer: Producer, job_id: str) -> None:
        """Take the producer that reaches the job."""
        self._producer = producer
        self.id = job_id

    def __repr__(self) -> str:
        """Show the id."""
        return f"{type(self).__name__}({self.id!r})"

    def wait(self, timeout: float = 60.0) -> Reply:
        """Return the reply as soon as it is there; see `AsyncJob.wait`."""
        portal, job = self._producer._job(self.id)  # noqa: SLF001 the handle is part of it
        return portal.call(job.wait(timeout))

    def stream(self, after: str | None = None) -> Generator[Event, None, None]:
        """Give the events of the reply as they come; see `AsyncJob.stream`."""
        portal, job = self._producer._job(self.id)  # noqa: SLF001 the handle is part of it
        events = job.stream(after)
        try:
            while True:
                event = portal.call(_next(events))
                if event is None:
                    return
                yield event
        finally:
            if not portal.closed:  # else it has ended with the producer
                portal.call(events.aclose())

    def status(self) -> JobStatus:
        """Return where the job and its turn are; raise `JobNotFound` or `NewerRecord`."""
        portal, job = self._producer._job(self.id)  # noqa: SLF001 the handle is part of it
        return portal.call(job.status())

    def cancel(self) -> bool:
        """Cancel the job; return whether it is cancelled; raise `JobNotFound` or `NewerRecord`."""
        portal, job = self._producer._job(self.id)  # noqa: SLF001 the handle is part of it
        return portal.call(job.cancel())


async def _next(events: AsyncGenerator[Event, None]) -> Event | None:
    """Return the next event, None at the end."""
    return await anext(events, None)
