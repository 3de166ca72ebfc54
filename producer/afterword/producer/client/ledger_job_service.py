"""Jobs that are kept in the ledger, and answered by workers."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any, Self, TypeAlias

from afterword.producer.checked_ledger import CheckedLedger
from afterword.producer.client.follow import Follower
from afterword.producer.client.job_service import (
    Item,
    JobService,
    Submission,
)
from afterword.producer.client.memory_asker import ask
from afterword.producer.client.memory_calls import MemoryCall, Owner
from afterword.shared.contracts import Event, JobStatus, Reply
from afterword.shared.errors import AfterwordError, LedgerUnavailable, NoReplyInTime
from afterword.shared.events import JobRefused, JobSubmitted
from afterword.shared.ledger.records import SubmitResult
from afterword.shared.observer import bound, emit, emit_internal_error, is_heard
from afterword.shared.settings import Settings
from afterword.shared.transport.blocking import Unconfirmed
from afterword.shared.transport.causes import spoken
from afterword.shared.usage_contracts import UsageSum

#: Requests of one `submit_many` that are sent to Redis together, at most.
GROUP = 1000

#: Requests that are validated before other tasks get their turn on the event loop.
_VALIDATED_AT_ONCE = 32

_Result: TypeAlias = str | AfterwordError


class LedgerJobService(JobService):
    """Submits jobs to the ledger and follows them there, over two Redis connections.

    Bound to the event loop that first uses it; `prepare` and `submit_blocking` may be called from
    any thread. The first submit checks that Redis is fit to hold the ledger.
    """

    def __init__(self, checked: CheckedLedger) -> None:
        super().__init__(checked.ledger.settings)
        self._checked = checked
        self._ledger = checked.ledger

    @classmethod
    def open(cls, settings: Settings) -> Self:
        """Open the ledger of some settings."""
        return cls(CheckedLedger.open(settings, founds=True))

    async def ping(self) -> None:
        """Raise whatever would keep a submit from being accepted; return if nothing would."""
        limit_s, began = self.settings.submit_timeout_s, asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(limit_s):
                ledger = await self._checked.get()
                await ledger.jobs.try_write()
        except TimeoutError:
            raise self._too_late(began) from None

    def submit_blocking(self, submission: Submission) -> str | None:
        """Try once to submit from the calling thread; None if `submit` has to be called.

        Raises `Unconfirmed` if `submit` has to find out whether it was accepted.
        """
        if not self._checked.checked:
            return None
        try:
            accepted = self._ledger.jobs.submit_blocking(*submission)
        except Unconfirmed:
            raise
        except AfterwordError as error:
            _report(submission, error)
            raise
        if accepted is None:
            return None
        _report(submission, accepted.job_id)
        return accepted.job_id

    async def submit(
        self, submission: Submission, *, waited_s: float = 0.0, unsure: bool = False
    ) -> str:
        """Submit a request and return the id of its job; raise `NotAccepted`."""
        (result,) = await self._submit_together([submission], waited_s=waited_s, unsure=unsure)
        if isinstance(result, AfterwordError):
            raise result
        return result

    async def submit_many(self, items: Sequence[Item]) -> list[_Result]:
        """Submit many requests; one group is validated while Redis works on the one before."""
        groups = [items[start : start + GROUP] for start in range(0, len(items), GROUP)]
        results: list[_Result] = []
        prepared: list[Submission | AfterwordError] = []
        for group in [*groups, []]:
            accepted, prepared = await asyncio.gather(
                self._submit_group(prepared), self._prepare_group(group)
            )
            results += accepted
        return results

    async def wait(self, job_id: str, timeout: float) -> Reply:  # the caller's own limit
        """Return the reply of a job as soon as it exists.

        When the time is over it looks once more: what is raised was seen, however short the time.
        """
        follower = Follower(self._ledger, job_id)
        try:
            async with asyncio.timeout(timeout):
                return await follower.reply()
        except TimeoutError:
            reply = await follower.reply_now()
        if reply is None:
            raise NoReplyInTime(job_id, timeout)
        return reply

    async def stream(self, job_id: str, after: str | None) -> AsyncGenerator[Event, None]:
        """Yield the events of a job that follow an event id, until the last one."""
        async with aclosing(Follower(self._ledger, job_id).events(after)) as events:
            async for event in events:
                yield event

    async def status(self, job_id: str) -> JobStatus:
        """Return the state of a job and of its turn."""
        return await self._ledger.queries.status(job_id)

    async def cancel(self, job_id: str) -> bool:
        """Cancel a job; return whether it is cancelled."""
        answer = await self._ledger.jobs.cancel(job_id)
        if answer == "gone":
            await self.status(job_id)  # raises what a caller expects of an unknown job
        return answer == "cancelled"

    async def ask_about_memories(self, call: MemoryCall) -> Any:
        """Return what a memory worker answers to a call."""
        ledger = await self._checked.get()
        return await ask(ledger.memory_requests, call, self.settings.shards)

    async def records_of(self, owner: Owner) -> AsyncGenerator[tuple[str, Any], None]:
        """Yield what the ledger keeps of a user."""
        ledger = await self._checked.for_reading()
        async for record in ledger.user_records.all(owner.lane(self.settings.shards)):
            yield record

    async def usage(self, tenant: str, user_id: str | None) -> UsageSum:
        """Return the tokens that the jobs of a tenant or a user have used."""
        ledger = await self._checked.for_reading()
        return await ledger.queries.usage(tenant, user_id)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._checked.aclose()

    async def _prepare_group(self, group: Sequence[Item]) -> list[Submission | AfterwordError]:
        prepared: list[Submission | AfterwordError] = []
        for item in group:
            prepared.append(self.prepare_or_error(item))
            if len(prepared) % _VALIDATED_AT_ONCE == 0:
                await asyncio.sleep(0)
        return prepared

    async def _submit_group(self, prepared: Sequence[Submission | AfterwordError]) -> list[_Result]:
        """Submit all at once, except that those of one conversation follow each other."""
        submissions: dict[int, Submission] = {}
        results: dict[int, _Result] = {}
        for position, one in enumerate(prepared):
            if isinstance(one, AfterwordError):
                results[position] = one
            else:
                submissions[position] = one
        for wave in waves(submissions):
            accepted = await self._results_of(list(wave.values()))
            results |= zip(wave, accepted, strict=True)
        return [results[position] for position in range(len(prepared))]

    async def _results_of(self, submissions: Sequence[Submission]) -> Sequence[_Result]:
        try:
            return await self._submit_together(submissions)
        except AfterwordError as error:
            return [error] * len(submissions)
        except Exception as error:  # noqa: BLE001 the ids of earlier groups must reach the caller
            emit_internal_error(error)
            broken = LedgerUnavailable(f"{type(error).__name__} inside of Afterword, a bug")
            return [broken] * len(submissions)

    async def _submit_together(
        self, submissions: Sequence[Submission], *, waited_s: float = 0.0, unsure: bool = False
    ) -> list[_Result]:
        """Submit requests in one round trip, and report what became of each.

        Raises `LedgerUnavailable` if Redis does not confirm them in time.
        """
        try:
            results = await self._send_together(submissions, waited_s=waited_s, unsure=unsure)
        except AfterwordError as error:
            for one in submissions:
                _report(one, error)
            raise
        for one, result in zip(submissions, results, strict=True):
            _report(one, result)
        return results

    async def _send_together(
        self, submissions: Sequence[Submission], *, waited_s: float, unsure: bool
    ) -> list[_Result]:
        began, sent = asyncio.get_running_loop().time(), unsure
        try:
            async with asyncio.timeout(self.settings.submit_timeout_s - waited_s):
                ledger = await self._checked.get()
                sent = True
                accepted = await ledger.jobs.submit_many(submissions)
        except TimeoutError:
            late = self._too_late(began)
            sent = unsure or (sent and late.may_be_accepted)
            raise _with_advice(late, sent=sent) from None
        except LedgerUnavailable as error:
            raise _with_advice(error, sent=sent) from None
        return [_result_of(one, unsure=unsure) for one in accepted]

    def _too_late(self, began: float) -> LedgerUnavailable:
        """Return the error of a call that began at a moment and took too long."""
        limit_s = self.settings.submit_timeout_s
        known = self._ledger.trouble_since(began)
        if known is None:
            reason = f"AFTERWORD_REDIS_URL: Redis did not confirm within {limit_s:g} s"
            known = LedgerUnavailable(reason, cause="silent")
        else:
            reason = f"{known} (tried for {limit_s:g} s)"
        told = spoken(reason, self.settings.redis_url or "", known.cause)
        return LedgerUnavailable(told, cause=known.cause, may_be_accepted=known.may_be_accepted)


def _report(submission: Submission, result: _Result) -> None:
    """Report what became of a submit, if anybody wants to know."""
    kind = JobRefused if isinstance(result, AfterwordError) else JobSubmitted
    if not is_heard(kind):
        return
    trace = submission.request.trace_context
    with bound(job_id=submission.job_id, trace=trace.stored if trace else ""):
        if isinstance(result, AfterwordError):
            emit(JobRefused, error=type(result).__name__)
        else:
            emit(JobSubmitted, accepted_as=result)


def _result_of(accepted: SubmitResult | AfterwordError, *, unsure: bool) -> _Result:
    if isinstance(accepted, LedgerUnavailable):
        return _with_advice(accepted, sent=unsure or accepted.may_be_accepted)
    return accepted.job_id if isinstance(accepted, SubmitResult) else accepted


def _with_advice(error: LedgerUnavailable, *, sent: bool) -> LedgerUnavailable:
    """Return the error of a submit that Redis did not confirm, with what its caller has to do.

    With `sent` false it is certain that there is no job.
    """
    advice = (
        "it may have accepted the request all the same: send it again with the same idempotency "
        "key (without one that may make a second job)"
        if sent
        else "it has not accepted the request: send it again"
    )
    return LedgerUnavailable(f"{error}; {advice}", cause=error.cause, may_be_accepted=sent)


def waves(submissions: Mapping[int, Submission]) -> list[dict[int, Submission]]:
    """Divide submissions into waves that hold at most one of each conversation, in order."""
    found: list[dict[int, Submission]] = []
    seen: Counter[tuple[str, ...]] = Counter()
    for position, submission in submissions.items():
        wave, request = 0, submission.request
        if request.conversation_id is not None:
            conversation = (request.tenant, request.user_id, request.conversation_id)
            wave, seen[conversation] = seen[conversation], seen[conversation] + 1
        if wave == len(found):
            found.append({})
        found[wave][position] = submission
    return found
