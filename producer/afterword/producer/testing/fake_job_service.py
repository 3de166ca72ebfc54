"""Jobs that are kept in memory and answered by a script, on a clock of the test's own."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import json
import math
import threading
from collections.abc import AsyncGenerator, Sequence
from datetime import datetime
from typing import Any

from afterword.producer.client.cursor import event_order, is_beginning, not_of_this_job
from afterword.producer.client.job_service import Item, JobService, Submission
from afterword.producer.client.memory_calls import MemoryCall, Owner
from afterword.producer.testing.clock import FakeClock
from afterword.producer.testing.fake_job import FakeJob
from afterword.producer.testing.fake_memories import FakeMemories
from afterword.producer.testing.script import Script
from afterword.shared.caps import cap_reached, longest_joined, queue_full
from afterword.shared.contracts import ChatRequest, Event, JobStatus, Reply, Usage
from afterword.shared.errors import (
    AfterwordError,
    ConversationBusy,
    JobFailed,
    JobNotFound,
    KeyReused,
    NoReplyInTime,
)
from afterword.shared.lifecycle import JobState, TurnState
from afterword.shared.names import check_job_id
from afterword.shared.settings import Settings
from afterword.shared.usage_contracts import UsageSum


class FakeJobService(JobService):
    """Does to jobs in memory what the ledger and the workers do to theirs.

    `lock` is held by whoever uses it from threads.
    """

    def __init__(self, settings: Settings, clock: FakeClock, script: Script) -> None:
        super().__init__(settings)
        self.lock = threading.RLock()
        self.clock = clock
        self.script = script
        self.requests: list[ChatRequest] = []
        self._jobs: dict[str, FakeJob] = {}
        self._keys: dict[tuple[str, str, str], tuple[str, str, float]] = {}
        self._agenda: list[tuple[float, int, FakeJob]] = []
        self._numbers = itertools.count()
        self.memories = FakeMemories(self._given)

    async def ping(self) -> None:
        """Raise what the script says of everybody's requests, if Redis is said to be away."""
        if (error := self.script.outage()) is not None:
            raise error

    def now(self) -> datetime:
        """Return the time on the fake clock."""
        return self.clock.now()

    def submit_blocking(self, submission: Submission) -> str | None:
        """Accept a request; this never needs a second try."""
        with self.lock:
            return self._accept(submission)

    async def submit(
        self,
        submission: Submission,
        *,
        waited_s: float = 0.0,  # noqa: ARG002
        unsure: bool = False,  # noqa: ARG002
    ) -> str:
        """Accept a request, or raise what the script or the state of the jobs asks for."""
        return self._accept(submission)

    async def submit_many(self, items: Sequence[Item]) -> list[str | AfterwordError]:
        """Accept many requests; return a job id or an error for each."""
        prepared = [self.prepare_or_error(item) for item in items]
        return [
            self._accept_or_error(one) if isinstance(one, Submission) else one for one in prepared
        ]

    async def wait(self, job_id: str, timeout: float) -> Reply:
        """Return the reply of a job, letting time pass until it exists."""
        limit_s = self.clock.elapsed_s + timeout
        while True:
            job = self._find(job_id)
            if job.reply is not None:
                return job.reply
            if job.state.terminal:
                raise JobFailed(job_id, job.state, job.code or job.state)
            if not await self._let_time_pass(limit_s):
                raise NoReplyInTime(job_id, timeout)

    async def stream(self, job_id: str, after: str | None) -> AsyncGenerator[Event, None]:
        """Yield the events of a job, letting time pass until each exists."""
        self._check_event(self._find(job_id), after)
        while True:
            job = self._find(job_id)
            if self._has_no_stream(job):
                yield job.events[-1].model_copy(update={"id": after or "0-0", "state": job.state})
                return
            events = [event for event in job.events if event_order(event.id) > event_order(after)]
            if not events:
                if job.state.terminal:
                    return
                await self._let_time_pass(math.inf)
            for event in events:
                after = event.id
                yield event
                if event.type in ("final", "failed"):
                    return

    async def status(self, job_id: str) -> JobStatus:
        """Return the state of a job and of its turn."""
        job = self._find(job_id)
        return JobStatus(
            job_id=job.id,
            state=job.state,
            turn=job.turn,
            attempts=job.attempts,
            created_at=self.clock.at(job.created_s),
            deadline=self.clock.at(job.deadline_s),
            code=job.code,
            turn_code=job.turn_code,
            tenant=job.request.tenant,
            user_id=job.request.user_id,
            conversation_id=job.request.conversation_id,
            metadata=job.request.metadata,
            started_at=self._at(job.started_s),
            first_text_at=self._at(job.first_text_s if job.reply else math.inf),
            ended_at=self._at(job.ended_s),
            usage=job.usage,
            memory_ids=self.memories.of_job(job.id),
        )

    async def cancel(self, job_id: str) -> bool:
        """Cancel a job; return whether it is cancelled."""
        job = self._find(job_id)
        if not job.state.terminal:
            self._stop(job, "cancelled")
        return job.state is JobState.CANCELLED

    async def ask_about_memories(self, call: MemoryCall) -> Any:
        """Return what a memory worker would answer to a call."""
        self._run_due()
        if (error := self.script.outage()) is not None:
            raise error
        if self.settings.backend == "off":
            return call.result({"code": "memory_off"})
        return call.result(self.memories.answer(call, self.clock.now()))

    async def records_of(self, owner: Owner) -> AsyncGenerator[tuple[str, Any], None]:
        """Yield what the fake knows of a user: jobs, with their requests, replies and events."""
        self._run_due()
        for job in self._jobs.values():
            if (job.request.tenant, job.request.user_id) == owner:
                yield "jobs", job.exported()
        yield "usage", (await self.usage(*owner)).model_dump(mode="json")

    async def usage(self, tenant: str, user_id: str | None) -> UsageSum:
        """Return the tokens that the jobs of a tenant or a user have used."""
        self._run_due()
        jobs = [
            job
            for job in self._jobs.values()
            if job.request.tenant == tenant and user_id in (None, job.request.user_id)
        ]
        used = sum((job.usage for job in jobs), Usage())
        replies = sum(job.reply is not None for job in jobs)
        return UsageSum(tenant=tenant, user_id=user_id, replies=replies, usage=used)

    async def aclose(self) -> None:
        """Do nothing: there is no connection to close."""

    def _check_event(self, job: FakeJob, after: str | None) -> None:
        if after is None or is_beginning(after) or self._has_no_stream(job):
            return
        if event_order(after) not in {event_order(event.id) for event in job.events}:
            raise not_of_this_job()

    def _has_no_stream(self, job: FakeJob) -> bool:
        """Return whether the events of a job are forgotten, all but the last one."""
        return self.clock.elapsed_s > job.ended_s + self.settings.stream_retention_s

    def _at(self, at_s: float) -> datetime | None:
        return None if math.isinf(at_s) else self.clock.at(at_s)

    def _accept_or_error(self, submission: Submission) -> str | AfterwordError:
        try:
            return self._accept(submission)
        except AfterwordError as error:
            return error

    def _accept(self, submission: Submission) -> str:
        job_id, request = submission
        self._run_due()
        if (refusal := self.script.refusal(request)) is not None:
            raise refusal
        if (known := self._known(request)) is not None:
            return known
        busy = self._open_in(request)
        if (joined := self._join(request, busy)) is not None:
            return joined
        self._check_limits(request, busy)
        now_s = self.clock.elapsed_s
        job = FakeJob(
            id=job_id,
            number=len(self._jobs) + 1,
            request=request,
            answer=self.script.answer(request),
            created_s=now_s,
            deadline_s=now_s + (request.expires_in or self.settings.job_ttl_s),
            recalls=self.settings.backend != "off",
        )
        if request.when_busy == "interrupt":
            for other in reversed(busy):
                self._stop(other, "interrupted")
            busy = []
        self._jobs[job_id] = job
        self.requests.append(request)
        self._keep_key(request, job_id)
        if not busy:
            job.start(now_s)
        self._schedule(job)
        self._run_due()
        return job_id

    def _keep_key(self, request: ChatRequest, job_id: str) -> None:
        if request.idempotency_key is not None:
            expires_s = self.clock.elapsed_s + self.settings.idempotency_s
            key = request.tenant, request.user_id, request.idempotency_key
            self._keys[key] = job_id, request.fingerprint(), expires_s

    def _join(self, request: ChatRequest, busy: list[FakeJob]) -> str | None:
        """Join a message to the newest open job if it may be; return the id of that."""
        if request.when_busy != "merge" or not busy or not busy[-1].has_no_text:
            return None
        job = busy[-1]
        joined = _joined(job.request, request, longest_joined(self.settings))
        if joined is None:
            return None
        others = [one.request for one in self._jobs.values() if not one.state.terminal]
        others = [one for one in others if one is not job.request]
        if (cap := cap_reached(joined, others, self.settings, joins=True)) is not None:
            raise queue_full(cap, self.settings)
        place = next(at for at, one in enumerate(self.requests) if one is job.request)
        self.requests[place] = joined
        job.join(joined, self.script.answer(joined), self.clock.elapsed_s)
        self._keep_key(request, job.id)
        self._schedule(job)
        self._run_due()
        return job.id

    def _known(self, request: ChatRequest) -> str | None:
        """Return the job that the idempotency key of a request belongs to; raise `KeyReused`."""
        if request.idempotency_key is None:
            return None
        key = request.tenant, request.user_id, request.idempotency_key
        known = self._keys.get(key)
        if known is None or known[2] <= self.clock.elapsed_s:
            return None
        job_id, fingerprint, _ = known
        if fingerprint != request.fingerprint():
            raise KeyReused
        return job_id

    def _check_limits(self, request: ChatRequest, busy: list[FakeJob]) -> None:
        opened = [job.request for job in self._jobs.values() if not job.state.terminal]
        interrupts = bool(busy) and request.when_busy == "interrupt"
        cap = cap_reached(request, opened, self.settings, interrupts=interrupts)
        if cap is not None:
            raise queue_full(cap, self.settings)
        if busy and request.when_busy == "reject":
            raise ConversationBusy

    def _open_in(self, request: ChatRequest) -> list[FakeJob]:
        """Return the jobs of the request's conversation that have not ended, oldest first."""
        if request.conversation_id is None:
            return []
        conversation = request.tenant, request.user_id, request.conversation_id
        return [
            job
            for job in self._jobs.values()
            if job.conversation == conversation and not job.state.terminal
        ]

    def _find(self, job_id: str) -> FakeJob:
        self._run_due()
        job = self._jobs.get(check_job_id(job_id))
        if job is None or self.clock.elapsed_s > job.ended_s + self.settings.retention_s:
            raise JobNotFound(job_id)
        return job

    def _stop(self, job: FakeJob, code: str) -> None:
        job.end_without_reply(self.clock.elapsed_s, JobState.CANCELLED, code)
        self._schedule(job)
        self._start_next(job)

    def _start_next(self, ended: FakeJob) -> None:
        """Start the job that waited for this one, if any."""
        waiting = self._open_in(ended.request)
        if waiting and math.isinf(waiting[0].started_s):
            waiting[0].start(ended.ended_s)
            self._schedule(waiting[0])

    def _schedule(self, job: FakeJob) -> None:
        if not math.isinf(job.due_s):
            heapq.heappush(self._agenda, (job.due_s, next(self._numbers), job))

    def _run_due(self) -> None:
        """Let everything happen that is due by now, in the order of time."""
        while self._agenda and self._agenda[0][0] <= self.clock.elapsed_s:
            at_s, _, job = heapq.heappop(self._agenda)
            if job.due_s != at_s:  # it was cancelled, or has been scheduled anew
                continue
            open_before, unsettled = not job.state.terminal, job.turn is not TurnState.STORED
            job.take_step()
            if unsettled and job.turn is TurnState.STORED:
                self._store(job)
            self._schedule(job)
            if open_before and job.state.terminal:
                self._start_next(job)

    def _store(self, job: FakeJob) -> None:
        """Keep what a user said as one memory, as the embedded memory does."""
        request = job.request
        self.memories.store(
            Owner(request.tenant, request.user_id),
            request.message,
            request.at or self.clock.at(job.created_s),
            job_id=job.id,
            conversation_id=request.conversation_id,
        )

    def _given(self, memory_id: str) -> list[str]:
        """Return the jobs whose reply was given a memory, the newest first."""
        return [
            job.id
            for job in reversed(self._jobs.values())
            if job.reply and memory_id in {memory.id for memory in job.reply.memories}
        ]

    async def _let_time_pass(self, limit_s: float) -> bool:
        """Wait until time has passed; return false if the limit was reached before."""
        if self.clock.elapsed_s >= limit_s:
            return False
        if self.clock.auto_advance:
            await asyncio.sleep(0)  # other tasks have their turn first
            self.clock.advance_to(min(limit_s, self._agenda[0][0] if self._agenda else limit_s))
        else:
            await self.clock.moved()
        return True


def _joined(first: ChatRequest, then: ChatRequest, most_bytes: int) -> ChatRequest | None:
    """Return a request with the messages of both; None if anything else of them differs."""
    message = f"{first.message}\n{then.message}"
    joined = first.model_copy(update={"message": message})
    but_for = {"message": message, "when_busy": first.when_busy, "idempotency_key": None}
    is_same = then.model_copy(update=but_for).body() == joined.body()
    size = len(json.dumps(message, ensure_ascii=False).encode()) - len('""')
    return joined if is_same and size <= most_bytes else None
