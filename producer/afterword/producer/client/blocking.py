"""A job service for callers without an event loop: every call waits for its result."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Generator, Iterable
from datetime import datetime
from typing import Any

from afterword.producer.client.job_service import JobService, RequestFields, collect
from afterword.producer.client.memory_calls import MemoryCall, Owner
from afterword.producer.portal import Portal, Runner
from afterword.shared.contracts import Event, JobStatus, Reply
from afterword.shared.errors import AfterwordError
from afterword.shared.transport.blocking import Unconfirmed
from afterword.shared.usage_contracts import UsageSum


class BlockingJobService:
    """Runs a job service and waits for its results; may be shared by threads.

    The service and its runner are made by the first call, once in each process: neither survives a
    fork.
    """

    def __init__(
        self,
        make_service: Callable[[], JobService],
        make_runner: Callable[[], Runner] = Portal,
    ) -> None:
        self._make_service = make_service
        self._make_runner = make_runner
        self._lock = threading.Lock()
        self._opened: tuple[Runner, JobService] | None = None

    def ping(self) -> None:
        """Raise whatever would keep a submit from being accepted; return if nothing would."""
        runner, service = self._open()
        runner.call(service.ping())

    def submit(self, fields: RequestFields) -> str:
        """Submit from the calling thread if that works at once, else on the runner."""
        runner, service = self._open()
        submission, began, unsure = service.prepare(fields), time.monotonic(), False
        try:
            job_id = service.submit_blocking(submission)
        except Unconfirmed:
            job_id, unsure = None, True
        if job_id is None:
            waited_s = time.monotonic() - began
            job_id = runner.call(service.submit(submission, waited_s=waited_s, unsure=unsure))
        return job_id

    def submit_many(self, requests: Iterable[RequestFields]) -> list[str | AfterwordError]:
        """Submit many requests; return a job id or an error for each."""
        items = collect(requests)  # not on the loop: an iterable may block, or submit itself
        runner, service = self._open()
        return runner.call(service.submit_many(items))

    def wait(self, job_id: str, timeout: float) -> Reply:
        """Return the reply of a job as soon as it exists."""
        runner, service = self._open()
        return runner.call(service.wait(job_id, timeout))

    def stream(self, job_id: str, after: str | None) -> Generator[Event, None, None]:
        """Yield the events of a job that follow an event id, until the last one."""
        runner, service = self._open()
        yield from runner.iterate(service.stream(job_id, after))

    def status(self, job_id: str) -> JobStatus:
        """Return the state of a job and of its turn."""
        runner, service = self._open()
        return runner.call(service.status(job_id))

    def cancel(self, job_id: str) -> bool:
        """Cancel a job; return whether it is cancelled."""
        runner, service = self._open()
        return runner.call(service.cancel(job_id))

    def ask_about_memories(self, call: MemoryCall) -> Any:
        """Return what a memory worker answers to a call."""
        runner, service = self._open()
        return runner.call(service.ask_about_memories(call))

    def records_of(self, owner: Owner) -> Generator[tuple[str, Any], None, None]:
        """Yield what is kept of a user beside memories."""
        runner, service = self._open()
        yield from runner.iterate(service.records_of(owner))

    def now(self) -> datetime:
        """Return the time by the clock of the service."""
        return self._open()[1].now()

    def check_memory_text(self, field: str, text: str, tenant: str | None = None) -> None:
        """Raise `InvalidRequest` for a text that no message could have."""
        self._open()[1].check_memory_text(field, text, tenant)

    def usage(self, tenant: str, user_id: str | None) -> UsageSum:
        """Return the tokens that the jobs of a tenant or a user have used."""
        runner, service = self._open()
        return runner.call(service.usage(tenant, user_id))

    def close(self) -> None:
        """Close the service and its runner; a copy that a fork has made is only dropped."""
        with self._lock:
            opened, self._opened = self._opened, None
        if opened is not None and opened[0].pid == os.getpid():
            runner, service = opened
            runner.call(service.aclose())
            runner.close()

    def _open(self) -> tuple[Runner, JobService]:
        """Return this process's own runner and service."""
        # Without the lock, which a fork would copy as it is while another thread holds it.
        if (opened := self._opened) is not None and opened[0].pid == os.getpid():
            return opened
        with self._lock:
            if self._opened is None or self._opened[0].pid != os.getpid():
                runner = self._make_runner()
                self._opened = runner, runner.make(self._make_service)
            return self._opened
