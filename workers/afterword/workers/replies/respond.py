"""One job in a response worker: claim, recall, model call, reply."""

from __future__ import annotations

import asyncio
import hmac
import random
import secrets
import time
from contextlib import suppress
from dataclasses import dataclass, field

from pydantic import ValidationError

from afterword.shared.contracts import ChatRequest, Recalled, Reply, Timings, Usage
from afterword.shared.errors import (
    AfterwordError,
    Fault,
    LeaseLost,
    LedgerUnavailable,
    ProviderError,
)
from afterword.shared.events import (
    JobClaimed,
    JobGivenUp,
    JobOvertaken,
    JobReleased,
    JobRetried,
    JobReturned,
    JobSnoozed,
    RecallFinished,
    ReplyPublished,
    TokensWithoutReply,
    tokens_told,
)
from afterword.shared.ledger.attempt_note import MOST_LEFT_OUT, AttemptNote, NotedRecall
from afterword.shared.ledger.jobs import Jobs
from afterword.shared.ledger.records import Claim, LostAttempt, moment
from afterword.shared.local_time import today_line
from afterword.shared.names import lane_tag, owner_of, user_of
from afterword.shared.observer import bound, emit, emit_internal_error
from afterword.shared.prices import micro_usd
from afterword.shared.settings import Settings
from afterword.shared.tenant_classes import class_of
from afterword.shared.trace_context import trace_of
from afterword.workers.gate import GateShut
from afterword.workers.kept_text import KeptText
from afterword.workers.leases import Leases
from afterword.workers.ports import Answer, Recall
from afterword.workers.quotas import Wanted
from afterword.workers.replies import prompt
from afterword.workers.replies.delta_buffer import DeltaBuffer
from afterword.workers.replies.lost_attempts import LostAttemptCounter
from afterword.workers.replies.model_call import ModelCall, ModelCaller
from afterword.workers.replies.prompt_limits import limits_of
from afterword.workers.replies.recall import Recaller
from afterword.workers.replies.shard_turns import ShardTurns
from afterword.workers.rules import retry_policy as policy
from afterword.workers.rules.remembering import reason_to_skip
from afterword.workers.rules.token_meter import NOTHING, TokenMeter


@dataclass(frozen=True, slots=True)
class _Attempt:
    """A claimed job, and what is counted and noted of the attempt; `began` is when it began."""

    claim: Claim
    began: float
    meter: TokenMeter = field(default_factory=TokenMeter)
    note: AttemptNote = field(default_factory=AttemptNote)


@dataclass(frozen=True, slots=True)
class _Prepared:
    """An attempt with its prompt, ready for the model call."""

    attempt: _Attempt
    request: ChatRequest
    built: prompt.Built
    recall_ms: int

    @property
    def claim(self) -> Claim:
        return self.attempt.claim


class Responder:
    """Answers jobs, each at most once per claim; every outcome is recorded in the ledger.

    `tag_key` is the secret that turns user ids into opaque tags for the provider; `worker_name` is
    what the stories of jobs call this worker.
    """

    def __init__(  # noqa: PLR0913 what a reply needs
        self,
        settings: Settings,
        jobs: Jobs,
        model_caller: ModelCaller,
        recaller: Recaller,
        leases: Leases,
        tag_key: bytes,
        *,
        worker_name: str = "",
    ) -> None:
        self._settings = settings
        self._jobs = jobs
        self._model_caller = model_caller
        self._recaller = recaller
        self._leases = leases
        self._tag_key = tag_key
        self._worker_name = worker_name
        self._kept = KeptText.of(settings)
        self._limits = limits_of(settings)
        self._lost_attempts = LostAttemptCounter(settings, jobs)
        self._shard_turns = ShardTurns(settings.shards, jobs.hint_next)

    async def respond(self, job_id: str, *, ahead: bool = False) -> None:
        """Answer one job, unless it is another worker's, held for a newer version, or ended.

        `ahead` says that its hint was taken before older ones.
        """
        await self._recaller.admit(job_id, ahead=ahead)
        try:
            await self._respond(job_id, ahead=ahead)
        finally:
            self._recaller.leave(job_id)

    async def _respond(self, job_id: str, *, ahead: bool) -> None:
        began = time.monotonic()
        claim = await self._jobs.claim(
            job_id, secrets.token_hex(8), ahead=ahead, worker=self._worker_name
        )
        if claim is None:
            return
        await self._shard_turns.took(claim.job_id, claim.agenda, _queued_s(claim))
        lane, trace = lane_tag(claim.lane), self._trace_of(claim)
        kind = class_of(user_of(claim.lane)[0], self._settings.tenant_classes)
        with bound(job_id=job_id, lane=lane, attempt=claim.attempt, trace=trace, tenant_class=kind):
            emit(
                JobClaimed,
                queued_s=_queued_s(claim),
                snoozes=claim.snoozes,
                fence=claim.fence,
                previous=claim.previous,
                joined=claim.joined if self._settings.traces else "",
            )
            attempt = _Attempt(claim, began)
            try:
                async with self._leases.holding(claim.job_id, claim.fence):
                    await self._attempt(attempt)
            except LeaseLost:
                emit(JobOvertaken)
                if attempt.meter.is_settled:
                    await self._count(claim, NOTHING, 0)  # or it would count as lost
            finally:
                if not attempt.meter.is_settled:
                    await asyncio.shield(self._count_unanswered(claim, attempt.meter))

    def _trace_of(self, claim: Claim) -> str:
        """Return the trace that a job belongs to; '' if it has none, and traces are off."""
        return claim.trace or (trace_of(claim.job_id).stored if self._settings.traces else "")

    async def _count(self, claim: Claim, usage: Usage, cost: int) -> bool:
        """Count the tokens of an attempt; return whether they are counted now."""
        try:
            await self._jobs.count_usage(claim, usage, cost)
        except AfterwordError:  # Redis is away or full: how the attempt ended must not be lost
            return False
        return True

    async def _count_unanswered(self, claim: Claim, meter: TokenMeter) -> None:
        """Count the tokens of an attempt that gave no reply, however it ended."""
        usage = meter.unanswered
        counted = await self._count(claim, usage, self._cost_of(meter))
        emit(
            TokensWithoutReply,
            **tokens_told(usage),
            counted=counted,
        )

    async def _attempt(self, attempt: _Attempt) -> None:
        """Answer the job; record a failure, or give the job back uncounted if this worker stops."""
        claim, note = attempt.claim, attempt.note
        try:
            await self._answer(attempt)
        except asyncio.CancelledError:
            if not self._leases.lost_by(claim.job_id):
                given_back = self._jobs.snooze(claim, 0, counted=False, tried=False, note=note.text)
                await asyncio.shield(given_back)
                emit(JobReturned)
            raise
        except (LeaseLost, LedgerUnavailable):
            raise
        except GateShut as shut:
            delay_s, code = shut.retry_after_s, shut.code
            await self._jobs.snooze(
                claim, delay_s, counted=False, tried=False, code=code, note=note.text
            )
            emit(JobReleased, code=code, delay_s=delay_s)
        except Exception as error:  # noqa: BLE001 every error is judged and recorded
            await self._judge(attempt, error)

    async def _judge(self, attempt: _Attempt, error: Exception) -> None:
        if not isinstance(error, ProviderError):
            emit_internal_error(error)
        claim, note = attempt.claim, attempt.note.text
        tries = claim.attempt + claim.snoozes
        verdict = policy.judge(
            error,
            attempt=claim.attempt,
            most_attempts=self._settings.max_attempts,
            tries=tries,
            jitter=random.random(),  # noqa: S311 no secret
            pause_cap_s=self._settings.pause_cap_s,
        )
        code, fault, delay_s = verdict.code, verdict.fault, verdict.delay_s
        if verdict.decision is policy.Decision.GIVE_UP:
            await self._fail(attempt, code, fault)
            return
        counted = verdict.decision is policy.Decision.RETRY
        await self._jobs.snooze(claim, delay_s, counted=counted, code=code, note=note)
        emit(JobRetried if counted else JobSnoozed, code=code, fault=fault, delay_s=delay_s)

    async def _fail(self, attempt: _Attempt, code: str, fault: Fault) -> None:
        await self._jobs.fail(attempt.claim, code, fault, note=attempt.note.text)
        emit(JobGivenUp, code=code, fault=fault)

    async def _answer(self, attempt: _Attempt) -> None:
        try:
            request = ChatRequest.model_validate_json(attempt.claim.body)
        except ValidationError:
            await self._fail(attempt, "undecodable", Fault.REQUEST)
            return
        if lost := attempt.claim.lost_attempt:
            await self._count_lost(lost, request)
        wanted = self._wanted(attempt.claim, request)
        call = await self._model_caller.admit(request.model, wanted)
        try:
            await self._answer_with(call, await self._prepare(attempt, request))
        finally:
            call.give_way()

    async def _count_lost(self, lost: LostAttempt, request: ChatRequest) -> None:
        with suppress(AfterwordError):  # Redis is away or full: the reply must not be lost for it
            await self._lost_attempts.count(lost, request)

    def _wanted(self, claim: Claim, request: ChatRequest) -> Wanted:
        return Wanted(
            lambda: prompt.guess(request, claim.overlay, claim.history, self._limits),
            request.max_tokens or self._settings.max_tokens,
            returning=claim.previous != "",
        )

    async def _answer_with(self, call: ModelCall, prepared: _Prepared) -> None:
        claim, meter, note = prepared.claim, prepared.attempt.meter, prepared.attempt.note
        started = time.monotonic()
        deltas = DeltaBuffer(
            lambda number, text: self._jobs.append_delta(
                claim, number, text, prepared.built.recalled
            ),
            self._settings.delta_ms / 1000,
        )
        try:
            answer = await call.stream(prepared.built.prompt, deltas.push, meter, note)
            last = await deltas.take_unpublished()
        finally:
            deltas.stop()
        model_ms = _since(started)
        timings = _timings(prepared, model_ms, deltas.began and deltas.began - started)
        skip = self._reason_to_skip(prepared, answer)
        reply = _reply(prepared, answer, timings, skip)
        publishing = time.monotonic()
        await self._jobs.finish(
            claim,
            reply,
            last=last,
            wasted=meter.earlier,
            note=note.text,
            cost=self._cost_of(meter),
        )
        meter.settle()
        overhead_ms = _since(prepared.attempt.began) - prepared.recall_ms - model_ms
        emit(
            ReplyPublished,
            total_s=reply.timings_ms.total / 1000,
            not_remembered=skip or "",
            publish_s=time.monotonic() - publishing,
            overhead_s=max(0, overhead_ms) / 1000,
        )

    def _cost_of(self, meter: TokenMeter) -> int:
        """Return what the calls of an attempt cost, in millionths of a US dollar."""
        return micro_usd(meter.calls, self._settings.model_prices)

    def _reason_to_skip(self, prepared: _Prepared, answer: Answer) -> str | None:
        return reason_to_skip(
            prepared.request,
            answer.stop_reason,
            memory=prepared.claim.remembered and self._settings.backend != "off",
            pleasantries=not self._settings.skip_pleasantries,
        )

    async def _prepare(self, attempt: _Attempt, request: ChatRequest) -> _Prepared:
        claim = attempt.claim
        owner, tenant = owner_of(claim.lane), request.tenant
        started = time.monotonic()
        if claim.erasing:
            recall = self._recaller.skip()
        else:
            query = self._kept.shown(tenant, request.message)
            recall = await self._recaller.recall(
                owner, query, job_id=claim.hint, waited_s=_queued_s(claim)
            )
        recall_s = time.monotonic() - started
        built = prompt.build(
            request,
            recall,
            overlay=self._kept.overlay(tenant, claim.overlay),
            history=self._kept.conversation(tenant, claim.history),
            limits=self._limits,
            user_tag=self._tag(owner),
            today=_today(claim, request.timezone),
        )
        kept = len(built.recalled.memories)
        emit(
            RecallFinished,
            status=built.recalled.memory,
            kept=kept,
            dropped=recall.found - kept,
            duration_s=recall_s,
        )
        recall_ms = round(recall_s * 1000)
        attempt.note.recall = _noted(claim, recall, built.recalled, recall_ms)
        return _Prepared(attempt, request, built, recall_ms)

    def _tag(self, owner: str) -> str:
        """Return an opaque name of the user for the provider, never their id."""
        return hmac.digest(self._tag_key, owner.encode(), "sha256").hex()[:32]


def _today(claim: Claim, timezone: str | None) -> str:
    """Return what day it is for the user; "" if they told no time zone."""
    if timezone is None:
        return ""
    return today_line(moment(claim.claimed_ms), claim.said_at, timezone)


def _noted(claim: Claim, recall: Recall, given: Recalled, took_ms: int) -> NotedRecall:
    """Return what a story tells of a recall: also what was found, and is not in the prompt."""
    ids = {memory.id for memory in given.memories}
    no_room = [(one.id, "no_room") for one in recall.memories or () if one.id not in ids]
    return NotedRecall(
        given.memory,
        recall.code,
        found=recall.found,
        given=len(ids),
        overlay=len(claim.overlay),
        took_ms=took_ms,
        left_out=(*no_room, *recall.left_out)[:MOST_LEFT_OUT],
    )


def _timings(prepared: _Prepared, model_ms: int, first_text_s: float | None) -> Timings:
    """Return how long a reply took; `first_text_s` is what the model took to its first text."""
    queued_ms = prepared.claim.claimed_ms - prepared.claim.queued_ms
    before_ms = queued_ms + prepared.recall_ms
    return Timings(
        queued=queued_ms,
        recall=prepared.recall_ms,
        model=model_ms,
        total=before_ms + model_ms,
        first_text=None if first_text_s is None else before_ms + round(first_text_s * 1000),
    )


def _reply(
    prepared: _Prepared, answer: Answer, timings: Timings, not_remembered: str | None
) -> Reply:
    return Reply(
        job_id=prepared.claim.job_id,
        user_id=prepared.request.user_id,
        conversation_id=prepared.request.conversation_id,
        text=answer.text,
        stop_reason=answer.stop_reason,
        stop_details=answer.stop_details,
        model=answer.model,
        usage=answer.usage,
        memory=prepared.built.recalled.memory,
        memories=prepared.built.recalled.memories,
        not_remembered=not_remembered,
        attempts=prepared.claim.attempt,
        timings_ms=timings,
    )


def _queued_s(claim: Claim) -> float:
    """Return how long the job has waited for a worker, in seconds."""
    return (claim.claimed_ms - claim.queued_ms) / 1000


def _since(started: float) -> int:
    return round((time.monotonic() - started) * 1000)
