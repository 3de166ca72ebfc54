"""The producer for code that runs on an event loop."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import aclosing
from datetime import datetime
from typing import Any

from afterword.producer.client.async_memories import AsyncUserMemories
from afterword.producer.client.job_service import JobService, collect
from afterword.producer.client.ledger_job_service import LedgerJobService
from afterword.producer.client.memory_calls import Owner
from afterword.producer.client.per_loop_job_service import PerLoopJobService
from afterword.shared.arguments import AnyId, EventId, Id, Seconds, checked
from afterword.shared.closeable import AsyncCloseable
from afterword.shared.contracts import ChatRequest, Event, JobStatus, Priority, Reply, WhenBusy
from afterword.shared.discovery import settings_in_use
from afterword.shared.errors import AfterwordError
from afterword.shared.names import check_job_id
from afterword.shared.settings import Settings
from afterword.shared.usage_contracts import UsageSum


class AsyncProducer(AsyncCloseable):
    """Submits chat requests and follows their jobs, from code that runs on an event loop.

    Make one for each process: it holds two Redis connections, however many jobs are waited for, and
    two more for each further event loop that uses it. A handle on a job works on every loop. It
    survives a fork, if no event loop runs meanwhile: the child opens connections of its own. Use it
    as an async context manager, or call `aclose`. The first submit checks that Redis is fit to hold
    the ledger and raises `Misconfigured` if it is not.

    Args:
        settings: where the ledger is, and its limits; read from the environment if omitted.
            Without `AFTERWORD_REDIS_URL` the stack that `afterword up` runs on this machine is
            used.

    """

    @checked
    def __init__(self, settings: Settings | None = None) -> None:
        known = settings or settings_in_use()
        self._service: JobService = PerLoopJobService(known, lambda: LedgerJobService.open(known))

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
        remember: bool = True,
        at: datetime | str | None = None,
        timezone: str | None = None,
        trace_context: Mapping[str, str] | None = None,
    ) -> AsyncJob:
        """Submit one message, and return its job as soon as it is stored in the ledger.

        Returns or raises within `AFTERWORD_SUBMIT_TIMEOUT_S` (2 s). Accepted means stored: the job
        reaches exactly one end, whatever crashes. Sending the same request again with the same
        `idempotency_key` returns the same job. `ChatRequest` documents the limits of each field.

        Args:
            user_id: whose memories are recalled and extended.
            message: what the user said.
            conversation_id: messages of one conversation are answered in the order of their
                submission, each with the earlier ones in its prompt.
            when_busy: what happens while an earlier message of the conversation has no reply:
                `enqueue` waits for it, `reject` raises `ConversationBusy`, `interrupt` cancels the
                earlier ones, `merge` joins the newest of them if its reply has not begun: then
                the job is the same.
            idempotency_key: makes it safe to send the request again; unique for the user.
            tenant: separates users with the same id from each other.
            system: text that follows `AFTERWORD_SYSTEM_PROMPT` in the system prompt.
            model: the model that replies, instead of `AFTERWORD_MODEL`.
            max_tokens: the longest reply, in tokens, instead of `AFTERWORD_MAX_TOKENS`.
            metadata: a JSON object that is kept with the job and sent to no provider.
            priority: `high` is answered before `normal`, `normal` before `low`.
            expires_in: seconds after which the job expires if it has no reply;
                `AFTERWORD_JOB_TTL_S` if omitted.
            remember: whether the turn is stored in memory; without, it is only answered.
            at: when the message was said, if not now, with a time zone; not in the future.
            timezone: the user's IANA time zone, in which days and dates are told to the model.
            trace_context: the span that the job belongs to, as a mapping with `traceparent`; the
                one that is active in OpenTelemetry if omitted.

        Raises:
            InvalidRequest: a field is not valid; `field` names it.
            QueueFull: as much is open as a cap allows; `scope` says whose cap it is.
            ConversationBusy: `when_busy` is `reject`, and the conversation is busy.
            KeyReused: the idempotency key was used with a different request.
            LedgerUnavailable: Redis did not confirm in time; `cause` says why. If its
                `may_be_accepted` is true, the job may exist: send the request again with the same
                idempotency key.
            NotReplicated: too few replicas confirmed (`AFTERWORD_DURABILITY=d3`). The job may
                exist: send the request again with the same idempotency key.
            Misconfigured: Redis is not fit to hold the ledger.

        """
        submission = self._service.prepare(
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
                "metadata": metadata,
                "priority": priority,
                "expires_in": expires_in,
                "remember": remember,
                "at": at,
                "timezone": timezone,
                "trace_context": trace_context,
            }
        )
        return AsyncJob(self._service, await self._service.submit(submission))

    async def submit_many(
        self, requests: Iterable[Mapping[str, Any] | ChatRequest]
    ) -> list[AsyncJob | AfterwordError]:
        """Submit many requests, and return a job or an error for each, in their order.

        Each request is a `ChatRequest`, or a mapping with the arguments of `submit`. Whatever is
        wrong with one, its error takes its place and stops no other: `InvalidRequest` if it is no
        request, else what `submit` would raise. If iterating over `requests` raises, an error is
        the last of the list; its `__cause__` is what was raised. Requests of one conversation are
        accepted in the order in which they are given. Up to 1,000 share a round trip.
        """
        results = await self._service.submit_many(collect(requests))
        return [AsyncJob(self._service, one) if isinstance(one, str) else one for one in results]

    async def ping(self) -> None:
        """Check that a request would be accepted now: for the readiness probe of a backend.

        Connects to Redis, checks once that it is fit to hold the ledger, and writes and deletes a
        key. Nothing is said about workers, nor about the caps of a user. Returns or raises within
        `AFTERWORD_SUBMIT_TIMEOUT_S`; the error's `http_status` is what the probe answers.

        Raises:
            LedgerUnavailable: Redis does not answer or takes no writes; `cause` says why.
            QueueFull: Redis is at its `maxmemory`.
            NotReplicated: too few replicas confirmed (`AFTERWORD_DURABILITY=d3`).
            Misconfigured: Redis is not fit to hold the ledger.

        """
        await self._service.ping()

    @checked
    async def usage(self, *, tenant: Id = "default", user_id: Id | None = None) -> UsageSum:
        """Return the tokens that the jobs of a tenant, or of one of its users, have used.

        Attempts without a reply (cancelled, timed out, cut off, retried) count as far as Claude had
        told their tokens: the input when it begins to stream, the output only at its end. A
        tenant's sum is kept for ever, a user's for 90 days after it last grew. Raises
        `InvalidRequest` if no job could have had this tenant or user id.
        """
        return await self._service.usage(tenant, user_id)

    @checked
    def memories(self, user_id: Id, *, tenant: Id = "default") -> AsyncUserMemories:
        """Return what a user may see and change: their memories.

        Nothing is read yet. It is safe to ask for a user who has none. Check first that whoever
        asks is that user, or may act for them.
        """
        return AsyncUserMemories(self._service, Owner(tenant, user_id))

    @checked
    def job(self, job_id: AnyId) -> AsyncJob:
        """Return a handle on a job that any process has submitted.

        Nothing is read yet: whether the job exists shows with the first call on the handle.
        Raises `JobNotFound` if `job_id` does not have the form of a job id.
        """
        return AsyncJob(self._service, check_job_id(job_id))

    async def aclose(self) -> None:
        """Close the connections. Submitted jobs go on, and a call after that opens them again."""
        await self._service.aclose()


class AsyncJob:
    """A handle on one job, returned by `AsyncProducer`.

    Attributes:
        id: the job's id; any process can follow the job with `AsyncProducer.job(id)`.

    """

    def __init__(self, service: JobService, job_id: str) -> None:
        self._service = service
        self.id = job_id

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.id!r})"

    @checked
    async def wait(self, timeout: Seconds = 60.0) -> Reply:
        """Return the reply as soon as it exists.

        Args:
            timeout: how long to wait, in seconds, up to a hundred years; 0 looks once.

        Raises:
            InvalidRequest: `timeout` is negative, not finite or not a number.
            NoReplyInTime: the time is over; the job goes on, and can be waited for again.
            JobFailed: the job ended without a reply; `code` says why.
            JobNotFound: there is no such job, or its retention time is over.
            LedgerUnavailable: Redis gave no answer, so nobody knows; wait again. This may come up
                to `AFTERWORD_SUBMIT_TIMEOUT_S` after the time is over.
            NewerRecord: only a newer version of Afterword can read it.

        """
        return await self._service.wait(self.id, timeout)

    @checked
    async def stream(self, after: EventId | None = None) -> AsyncGenerator[Event, None]:
        """Yield the events of the reply as they are published, the last one being its end.

        The last event is `final` or `failed`. A `restart` voids the text of all deltas before it.
        Once the stream's retention time (`AFTERWORD_STREAM_RETENTION_S`) is over, only the last
        event is given.

        Args:
            after: the id of the last event that was seen, to continue after it; all events if
                omitted, or if it is `0-0`. Any process can continue a stream.

        Raises:
            InvalidRequest: `after` is not the id of an event of this job: at once if it does not
                have the form of one, else with the first event. After the retention time of the
                stream any id will do.
            JobNotFound: there is no such job, or its retention time is over.
            LedgerUnavailable: Redis gave no answer; continue after the last event.
            NewerRecord: only a newer version of Afterword can read it.

        """
        async with aclosing(self._service.stream(self.id, after)) as events:
            async for event in events:
                yield event

    async def status(self) -> JobStatus:
        """Return the state of the job, and of its turn on its way to memory.

        Raises `JobNotFound`, `LedgerUnavailable` or `NewerRecord`.
        """
        return await self._service.status(self.id)

    async def cancel(self) -> bool:
        """Cancel the job unless it has ended; return whether it is cancelled, now or before.

        A reply that is being generated is stopped. What the user said stays in the conversation
        and is remembered. Raises `JobNotFound`, `LedgerUnavailable`, or `NewerRecord` if only a
        newer version of Afterword may cancel it.
        """
        return await self._service.cancel(self.id)
