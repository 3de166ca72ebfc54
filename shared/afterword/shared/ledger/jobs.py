"""The steps of a job's life; each is one script."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Iterable, Sequence
from typing import Any

from pydantic_core import to_json

from afterword.shared.budgets import budget_spent, budgets_argument, period_argument
from afterword.shared.caps import (
    caps_argument,
    longest_joined,
    queue_full,
    running_caps_argument,
)
from afterword.shared.contracts import (
    RECORD_VERSION,
    ChatRequest,
    Recalled,
    Reply,
    Usage,
    fingerprint_of,
)
from afterword.shared.errors import (
    AfterwordError,
    Blocked,
    ConversationBusy,
    Fault,
    KeyReused,
    LeaseLost,
    LedgerUnavailable,
    NewerRecord,
)
from afterword.shared.ledger import steps
from afterword.shared.ledger.past_turns import history_in, most_bytes_of_past_turns, overlay_in
from afterword.shared.ledger.records import NOBODY, Claim, LostAttempt, SubmitResult
from afterword.shared.ledger.shard import Shards, fields_of, milliseconds
from afterword.shared.ledger.spending import USAGE_S
from afterword.shared.lifecycle import TurnState
from afterword.shared.names import (
    PRIORITY_STEPS,
    REPLIES,
    Keys,
    lane_id,
    memory_key,
    new_job_id,
    shard_of,
    user_of,
)
from afterword.shared.redaction.policy import Redaction
from afterword.shared.transport.blocking import BlockingConnection
from afterword.shared.transport.causes import spoken
from afterword.shared.transport.signatures import Arguments
from afterword.shared.version import __version__

#: Most leases that one script renews.
RENEWED_AT_ONCE = 200

_USAGE_MS = milliseconds(USAGE_S)

#: The field of a request that names whom an operator blocks.
_BLOCKED_FIELDS = {"user": "user_id", "tenant": "tenant"}


class Jobs:
    """Submit, claim, renew, append, finish, fail, snooze, cancel.

    `submits` are other ways to the same shards for submits; `blocking` serves `submit_blocking`.
    """

    def __init__(
        self,
        shards: Shards,
        submits: Shards | None = None,
        blocking: BlockingConnection | None = None,
    ) -> None:
        self._shards = shards
        self._submits = submits or shards
        self._blocking = blocking
        settings = shards.settings
        self._caps = caps_argument(settings)
        self._running_caps = running_caps_argument(settings, settings.shards)
        self._redaction = Redaction.of(settings)
        self._retention_ms = milliseconds(settings.retention_s)
        self._story_ms = milliseconds(settings.story_s)
        self._stream_ms = milliseconds(settings.stream_retention_s)
        self._failed_ms = milliseconds(settings.dead_retention_s)
        self._lease_ms = milliseconds(settings.lease_s)
        self._max_turns = max(1, settings.history_turns)
        self._conversation_ms = milliseconds(settings.conversation_s)
        self._period = period_argument(settings)

    def new_id(self, request: ChatRequest) -> str:
        """Return a fresh id on the shard of the request's user."""
        owner = memory_key(request.tenant, request.user_id)
        return new_job_id(shard_of(owner, self._shards.settings.shards))

    def submit_blocking(self, job_id: str, request: ChatRequest) -> SubmitResult | None:
        """Accept a job as `submit_many` does, from a thread without a loop and without retries.

        Returns None if it is not known whether it was accepted: then `submit_many` it with this id.
        """
        if self._blocking is None:
            return None
        keys, arguments = self._submission(job_id, request)
        answer = self._shards.run_script_blocking(self._blocking, keys, arguments)
        if answer is None or _interrupts_more(answer):
            return None
        return self._accepted(answer)

    async def submit_many(
        self, requests: Iterable[tuple[str, ChatRequest]]
    ) -> list[SubmitResult | AfterwordError]:
        """Accept jobs under ids from `new_id`; return a result or an error for each, in order.

        The same id again, or the same idempotency key with the same body, gives the same job.
        The errors are `NotAccepted`: then nothing was written, unless it is `NotReplicated`.
        """
        calls = [self._submission(job_id, request) for job_id, request in requests]
        answers = await self._submits.run_scripts(calls)
        while unfinished := [at for at, answer in enumerate(answers) if _interrupts_more(answer)]:
            again = await self._submits.run_scripts(calls[at] for at in unfinished)
            for at, answer in zip(unfinished, again, strict=True):
                answers[at] = answer
        return [self._accepted_or_error(answer) for answer in answers]

    async def try_write(self) -> None:
        """Write and delete a key; raise whatever a submit would raise because of Redis."""
        await self._submits.run_script(self._submits.all[0], steps.TryWrite())

    async def resubmit(self, failed_id: str, body: str, run: str) -> str:
        """Submit a failed job's body as a new job that was said at the same time, once only.

        Returns `waiting`, or why not: `refused`, `erased`, `gone`. It never interrupts other jobs
        of its conversation, even if the failed job did.
        """
        request = ChatRequest.model_validate_json(body).model_copy(update={"when_busy": "enqueue"})
        keys, arguments = self._submission(self.new_id(request), request)
        replay = arguments._replace(replay_of=failed_id, run=run)
        word, told = await self._submits.run_script(keys, replay)
        self._check_accepted(word, told)
        return "waiting" if word in ("new", "same") else str(word)

    def _submission(self, job_id: str, request: ChatRequest) -> tuple[Keys, steps.SubmitJob]:
        """Return the shard of a job, and the arguments that submit it."""
        settings = self._shards.settings
        keys = self._shards.keys_of(job_id)
        owner = memory_key(request.tenant, request.user_id)
        lane = lane_id(owner, keys.shard)
        body = request.body()
        return keys, steps.SubmitJob(
            id=job_id,
            lane=lane,
            tenant=request.tenant,
            version=request.record_version,
            known_version=RECORD_VERSION,
            body=body,
            fingerprint=fingerprint_of(body),
            ttl_ms=milliseconds(request.expires_in or settings.job_ttl_s),
            agenda=f"{REPLIES}.{PRIORITY_STEPS[request.priority]}",
            turn=TurnState.AWAITED if self._is_remembered(request) else TurnState.NONE,
            max_open=settings.max_queued,
            caps=self._caps,
            budgets=budgets_argument(request.tenant, settings),
            idempotency=_hashed(owner, request.idempotency_key),
            idempotency_ms=milliseconds(settings.idempotency_s),
            conversation=_conversation(lane, request.conversation_id),
            when_busy=request.when_busy,
            max_message_bytes=longest_joined(settings),
            retention_ms=self._retention_ms,
            stream_ms=self._stream_ms,
            max_turns=self._max_turns,
            conversation_ms=self._conversation_ms,
            trace=request.trace_context.stored if request.trace_context else "",
        )

    def _is_remembered(self, request: ChatRequest) -> bool:
        return request.remember and self._shards.settings.backend != "off"

    def _accepted_or_error(self, answer: list[Any] | Exception) -> SubmitResult | AfterwordError:
        try:
            return self._accepted(answer)
        except AfterwordError as error:
            return error

    def _accepted(self, answer: list[Any] | Exception) -> SubmitResult:
        if isinstance(answer, AfterwordError):
            raise answer
        if isinstance(answer, Exception):  # Redis refused: a key of another program, for example
            reason = f"AFTERWORD_REDIS_URL: Redis answered {type(answer).__name__}"
            url = self._shards.settings.redis_url or ""
            raise LedgerUnavailable(spoken(reason, url, "")) from answer
        word, told = answer
        self._check_accepted(word, told)
        return SubmitResult(told, new=word == "new")

    def _check_accepted(self, word: str, told: str) -> None:
        if word == "full":
            raise queue_full(told, self._shards.settings)
        if word == "broke":
            raise budget_spent(told)
        if word == "blocked":
            raise Blocked(f"{_BLOCKED_FIELDS[told]}: an operator has blocked it", scope=told)
        if word == "reused":
            raise KeyReused
        if word == "busy":
            raise ConversationBusy

    async def claim(
        self, job_id: str, token: str, *, ahead: bool = False, worker: str = ""
    ) -> Claim | None:
        """Claim the job that a hint names, or one of a tenant whose turn it is instead.

        Returns None if there is nothing to claim: the job is gone, ended, held, taken, behind
        another, or waits because of an order or of a cap.
        `token` names this claim: a retry with it after a lost reply returns the same claim.
        `ahead` says that its hint was taken before older ones, so that those do not count as lost.
        `worker` is who claims it, for the story of the job.
        """
        settings = self._shards.settings
        arguments = steps.ClaimJob(
            id=job_id,
            token=token,
            lease_ms=self._lease_ms,
            max_attempts=settings.max_attempts,
            known_version=RECORD_VERSION,
            overlay_turns=settings.overlay_turns,
            history_turns=settings.history_turns,
            most_bytes=most_bytes_of_past_turns(settings),
            retention_ms=self._retention_ms,
            stream_ms=self._stream_ms,
            failed_ms=self._failed_ms,
            ahead=ahead,
            worker=worker or NOBODY,
            running_caps=self._running_caps,
        )
        answer = await self._shards.run_script(self._shards.keys_of(job_id), arguments)
        match answer:
            case ["claimed", record]:
                return _claim(job_id, fields_of(record))
        return None

    async def hint_next(self, shard: int, agenda: str) -> bool:
        """Hint the next job of a shard ahead of all other hints; return whether one waits."""
        keys = self._shards.all[shard]
        (word,) = await self._shards.run_script(keys, steps.HintNext(agenda=agenda))
        return bool(word == "hinted")

    async def renew_leases(self, held: Sequence[tuple[str, str]]) -> list[str]:
        """Extend the leases of (job or lane id, fence); return the ids that are no longer held."""
        by_shard: dict[str, list[tuple[str, str]]] = {}
        for name, fence in held:
            by_shard.setdefault(self._shards.keys_of(name).root, []).append((name, fence))
        slices = (
            leases[start : start + RENEWED_AT_ONCE]
            for leases in by_shard.values()
            for start in range(0, len(leases), RENEWED_AT_ONCE)
        )
        lost = await asyncio.gather(*map(self._renew, slices))
        return [name for names in lost for name in names]

    async def _renew(self, leases: Sequence[tuple[str, str]]) -> list[str]:
        keys = self._shards.keys_of(leases[0][0])
        arguments = steps.RenewLeases(lease_ms=self._lease_ms, leases=leases)
        (lost,) = await self._shards.run_script(keys, arguments)
        return list(lost)

    async def append_delta(
        self, claim: Claim, number: int, text: str, recalled: Recalled | None = None
    ) -> None:
        """Append a piece of the reply to the stream, numbered from 1; raises `LeaseLost`.

        The first one brings along what the attempt was given by memory.
        """
        await self._run_fenced(
            steps.AppendDelta(
                id=claim.job_id,
                fence=claim.fence,
                number=number,
                attempt=claim.attempt,
                text=text,
                recalled=recalled.model_dump_json() if recalled and number == 1 else "",
            )
        )

    async def finish(
        self,
        claim: Claim,
        reply: Reply,
        *,
        last: tuple[int, str] = (0, ""),
        wasted: Usage | None = None,
        note: str = "",
        cost: int = 0,
    ) -> None:
        """Publish the reply and put the turn in its lane, in one step; raises `LeaseLost`.

        `last` is the number and the text of what no delta has published yet. The turn is skipped if
        the reply says why it is not remembered. `wasted` are tokens of this attempt that are not in
        the reply's own usage. `note` is what the attempt did, for the story of the job, and `cost`
        what it cost, in millionths of a US dollar.
        """
        used = reply.usage if wasted is None else reply.usage + wasted
        await self._run_fenced(
            steps.FinishJob(
                id=claim.job_id,
                fence=claim.fence,
                reply=reply.model_dump_json(),
                turn=TurnState.SKIPPED if reply.not_remembered else TurnState.PENDING,
                turn_code=reply.not_remembered or "",
                conversation_turn=self._turn_json(claim, reply) if reply.conversation_id else "",
                max_turns=self._max_turns,
                conversation_ms=self._conversation_ms,
                retention_ms=self._retention_ms,
                story_ms=self._story_ms,
                stream_ms=self._stream_ms,
                delta=last[0],
                text=last[1],
                recalled=_recalled_json(reply) if last[0] == 1 else "",
                memory=reply.memory,
                first_text=_first_text_ms(claim, reply),
                tokens=used.model_dump_json(),
                given=to_json([one.id for one in reply.memories]).decode()
                if reply.memories
                else "",
                note=note,
                usage_ms=_USAGE_MS,
                cost=cost,
                period=self._period,
                usage=[("replies", 1), *used],
            )
        )

    async def count_usage(self, attempt: Claim | LostAttempt, usage: Usage, cost: int = 0) -> None:
        """Count the tokens of an attempt that gave no reply, once, whoever holds the job now.

        `cost` is what it cost, in millionths of a US dollar.
        """
        await self._shards.run_for_word(
            steps.CountUsage(
                id=attempt.job_id,
                fence=attempt.fence,
                tenant=user_of(attempt.lane)[0],
                usage_ms=_USAGE_MS,
                cost=cost,
                period=self._period,
                usage=[(name, amount) for name, amount in usage if amount],
            )
        )

    async def fail(
        self, claim: Claim, code: str, fault: Fault = Fault.REQUEST, *, note: str = ""
    ) -> None:
        """End a job without a reply, as a dead letter; raises `LeaseLost`."""
        await self._run_fenced(
            steps.FailJob(
                id=claim.job_id,
                fence=claim.fence,
                code=code,
                fault=fault,
                worker=__version__,
                retention_ms=self._failed_ms,
                stream_ms=self._stream_ms,
                note=note,
            )
        )

    async def snooze(
        self,
        claim: Claim,
        delay_s: float,
        *,
        counted: bool,
        tried: bool = True,
        code: str = "",
        note: str = "",
    ) -> None:
        """Give a job back for later; its attempt is spent only if `counted`.

        With `tried` false the provider was not called, and later pauses do not grow.
        """
        await self._run_fenced(
            steps.SnoozeJob(
                id=claim.job_id,
                fence=claim.fence,
                delay_ms=milliseconds(delay_s) if delay_s > 0 else 0,
                counted=counted,
                code=code,
                tried=tried,
                note=note,
            )
        )

    async def cancel(self, job_id: str) -> str:
        """Cancel a job; return `cancelled`, `ended` (it had ended before) or `gone`.

        Raises `NewerRecord` if a newer version wrote it.
        """
        word = await self._shards.run_for_word(
            steps.CancelJob(
                id=job_id,
                known_version=RECORD_VERSION,
                retention_ms=self._retention_ms,
                stream_ms=self._stream_ms,
                max_turns=self._max_turns,
                conversation_ms=self._conversation_ms,
            )
        )
        if word == "held":
            raise NewerRecord(job_id)
        return word

    def _turn_json(self, claim: Claim, reply: Reply) -> str:
        """Return what the conversation keeps of a turn: no secret, if its tenant wants that."""
        request, tenant = json.loads(claim.body), user_of(claim.lane)[0]
        turn = {
            "id": claim.job_id,
            "sequence": claim.sequence,
            "at": round(claim.said_at.timestamp() * 1000),
            "user": self._redaction.shown(tenant, request["message"]),
            "reply": self._redaction.shown(tenant, reply.text),
            "stop_reason": reply.stop_reason,
        }
        return json.dumps(turn, ensure_ascii=False)

    async def _run_fenced(self, arguments: Arguments) -> None:
        if await self._shards.run_for_word(arguments) == "lost":
            raise LeaseLost("another worker holds this job now, or it has ended")


def _interrupts_more(answer: list[Any] | Exception) -> bool:
    """Return whether a submit has ended some of the jobs that it interrupts, and must go on."""
    return not isinstance(answer, Exception) and answer[0] == "more"


def _hashed(owner: str, key: str | None) -> str:
    """Return the name of a user's idempotency key; an owner holds no space, so it is injective."""
    return "" if key is None else hashlib.sha256(f"{owner} {key}".encode()).hexdigest()


def _conversation(lane: str, conversation_id: str | None) -> str:
    if conversation_id is None:
        return ""
    return f"{lane}/{hashlib.sha256(conversation_id.encode()).hexdigest()}"


def _first_text_ms(claim: Claim, reply: Reply) -> int:
    """Return when the first piece of the text came, by the clock of Redis; 0 if there was none."""
    after_ms = reply.timings_ms.first_text
    return 0 if after_ms is None else claim.queued_ms + after_ms


def _recalled_json(reply: Reply) -> str:
    """Return the JSON of a `Recalled`, whose fields a reply has."""
    return Recalled(memory=reply.memory, memories=reply.memories).model_dump_json()


def _claim(hint: str, record: dict[str, Any]) -> Claim:
    return Claim(
        job_id=record["id"],
        hint=hint,
        agenda=record["agenda"],
        fence=str(record["fence"]),
        attempt=int(record["attempt"]),
        snoozes=int(record["snoozes"]),
        body=record["body"],
        lane=record["lane"],
        remembered=record["turn"] == TurnState.AWAITED,
        created_ms=int(record["created"]),
        queued_ms=int(record["queued"]),
        claimed_ms=int(record["claimed"]),
        deadline_ms=int(record["deadline"]),
        overlay=overlay_in(record["overlay"]),
        history=history_in(record["history"]),
        sequence=int(record["sequence"]),
        erasing=record["erasing"] == 1,
        trace=record["trace"],
        joined=record["joined"],
        previous="" if record["previous"] == record["fence"] else str(record["previous"]),
        lost=None if record["lost"] == "" else int(record["lost"]),
    )
