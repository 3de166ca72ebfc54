"""What a producer asks of whatever keeps its jobs: Redis, or the memory of a test."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple, TypeAlias

from afterword.producer.client.memory_calls import MemoryCall, Owner
from afterword.shared.clock import utc_now
from afterword.shared.closeable import AsyncCloseable
from afterword.shared.contracts import ChatRequest, Event, JobStatus, Reply
from afterword.shared.errors import AfterwordError, InvalidRequest
from afterword.shared.names import memory_key, new_job_id, shard_of
from afterword.shared.redaction.policy import Redaction
from afterword.shared.settings import Settings
from afterword.shared.trace_context import active_context
from afterword.shared.traces import recorder_in_use
from afterword.shared.usage_contracts import UsageSum

#: A request as it is given: the arguments of `submit` by their names, or a `ChatRequest`.
RequestFields: TypeAlias = Mapping[str, Any] | ChatRequest

#: How far the clock of whoever says when a message was said may be ahead of ours.
CLOCK_SKEW = timedelta(minutes=5)

#: A request of many, or the error that takes its place.
Item: TypeAlias = RequestFields | InvalidRequest


class Submission(NamedTuple):
    """A valid request, and the id that its job will have unless its idempotency key is known."""

    job_id: str
    request: ChatRequest


class JobService(AsyncCloseable):
    """Submits jobs and follows them by their ids. Both producers, and both fakes, stand on one."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._redaction = Redaction.of(settings)

    def prepare(self, fields: RequestFields) -> Submission:
        """Validate a request and give it a job id; raise `InvalidRequest`. Nothing is written."""
        request = ChatRequest.parse(
            fields,
            max_bytes=self.settings.max_message_bytes,
            max_tokens=self.settings.max_message_tokens,
        )
        if request.at is not None and request.at > self.now() + CLOCK_SKEW:
            raise InvalidRequest("at", "must not be in the future")
        self._redaction.check(request.tenant, message=request.message)
        owner = memory_key(request.tenant, request.user_id)
        job_id = new_job_id(shard_of(owner, self.settings.shards))
        return Submission(job_id, self._in_trace(job_id, request))

    def _in_trace(self, job_id: str, request: ChatRequest) -> ChatRequest:
        """Return a request with the span that its job belongs to, if there is one.

        While traces are on, that is the span of its submit, which begins here.
        """
        trace = request.trace_context or active_context()
        if recorder := recorder_in_use(self.settings):
            trace = recorder.begin_submit(job_id, trace)
        if trace is request.trace_context:
            return request
        return request.model_copy(update={"trace_context": trace})

    def check_memory_text(self, field: str, text: str, tenant: str | None = None) -> None:
        """Raise `InvalidRequest` for a text that no message could have.

        If its `tenant` is given it is to be stored, and may hold no secret that its tenant refuses.
        """
        if len(text.encode()) > self.settings.max_message_bytes:
            raise InvalidRequest(field, f"must not exceed {self.settings.max_message_bytes} bytes")
        if tenant is not None:
            self._redaction.check(tenant, **{field: text})

    def now(self) -> datetime:
        """Return the time that no message can have been said after."""
        return utc_now()

    def prepare_or_error(self, item: Item) -> Submission | InvalidRequest:
        """Validate a request of many; return its error instead of raising it."""
        if isinstance(item, InvalidRequest):
            return item
        try:
            return self.prepare(item)
        except InvalidRequest as error:
            return error

    @abstractmethod
    async def ping(self) -> None:
        """Raise whatever would keep a submit from being accepted; return if nothing would."""

    @abstractmethod
    def submit_blocking(self, submission: Submission) -> str | None:
        """Try once to submit from the calling thread, without the event loop.

        Returns the id of the job, or None if it was not sent, or refused: then `submit` it. Raises
        `Unconfirmed` if `submit` has to find out whether it was accepted.
        """

    @abstractmethod
    async def submit(
        self, submission: Submission, *, waited_s: float = 0.0, unsure: bool = False
    ) -> str:
        """Submit a request and return the id of its job; raise `NotAccepted`.

        `waited_s` seconds of the time limit are already spent. `unsure` if it may have been
        accepted before.
        """

    @abstractmethod
    async def submit_many(self, items: Sequence[Item]) -> list[str | AfterwordError]:
        """Submit what `collect` returned; return a job id or an error for each, whatever it is."""

    @abstractmethod
    async def wait(self, job_id: str, timeout: float) -> Reply:
        """Return the reply of a job as soon as it exists."""

    @abstractmethod
    def stream(self, job_id: str, after: str | None) -> AsyncGenerator[Event, None]:
        """Yield the events of a job that follow an event id, until the last one."""

    @abstractmethod
    async def status(self, job_id: str) -> JobStatus:
        """Return the state of a job and of its turn."""

    @abstractmethod
    async def cancel(self, job_id: str) -> bool:
        """Cancel a job; return whether it is cancelled."""

    @abstractmethod
    async def ask_about_memories(self, call: MemoryCall) -> Any:
        """Return what a memory worker answers; raise `MemoriesUnavailable`, `MemoryNotFound`."""

    @abstractmethod
    def records_of(self, owner: Owner) -> AsyncGenerator[tuple[str, Any], None]:
        """Yield what is kept of a user beside memories: a section of `UserExport`, and a record."""

    @abstractmethod
    async def usage(self, tenant: str, user_id: str | None) -> UsageSum:
        """Return the tokens that the jobs of a tenant or a user have used."""


def collect(requests: Iterable[RequestFields]) -> list[Item]:
    """Return all requests, on the caller's thread and before anything is submitted.

    If iterating raises, an error takes the place of the next request, and there are no more. Raises
    `InvalidRequest` for what is no iterable at all.
    """
    if not isinstance(requests, Iterable):
        raise InvalidRequest("requests", "must be an iterable of requests")
    items: list[Item] = []
    try:
        for request in requests:
            items.append(request)  # noqa: PERF402 those before the error are kept
    except Exception as error:  # noqa: BLE001 an iterable of the caller's own may raise anything
        broken = InvalidRequest("requests", f"iterating raised {type(error).__name__}")
        broken.__cause__ = error
        items.append(broken)
    return items
