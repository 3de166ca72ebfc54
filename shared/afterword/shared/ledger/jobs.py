"""The steps of a job's life, each one script."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import json
from collections.abc import Iterable, Sequence
from typing import Any

from afterword.shared.contracts import RECORD_VERSION, ChatRequest, Reply, Usage, fingerprint_of
from afterword.shared.errors import (
    AfterwordError,
    ConversationBusy,
    Fault,
    KeyReused,
    LeaseLost,
    NewerRecord,
    QueueFull,
)
from afterword.shared.ledger.records import Claim, PastTurn, SubmitResult, moment
from afterword.shared.ledger.shard import Shards, milliseconds
from afterword.shared.lifecycle import TurnState
from afterword.shared.names import (
    PRIORITY_STEPS,
    REPLIES,
    Keys,
    lane_id,
    memory_key,
    new_job_id,
    shard_of,
)
from afterword.shared.transport.blocking import BlockingConnection
from afterword.shared.version import __version__

#: How long a user's sums of usage are kept after their last reply.
USAGE_S = 90 * 24 * 3600.0


class Jobs:
    """Submit, claim, renew, delta, finish, fail, snooze, cancel."""

    def __init__(
        self,
        shards: Shards,
        submits: Shards | None = None,
        direct: BlockingConnection | None = None,
    ) -> None:
        """Take the shards that the jobs live on, and other ways to them for submits, if any."""
        self._shards = shards
        self._submits = submits or shards
        self._direct = direct
        settings = shards.settings
        self._kept = (
            milliseconds(settings.retention_s),
            milliseconds(settings.stream_retention_s),
        )
        self._failed_ms = milliseconds(settings.dead_retention_s)
        self._lease_ms = milliseconds(settings.lease_s)

    def new_id(self, request: ChatRequest) -> str:
        """Return a fresh id on the shard of the request's user."""
        owner = memory_key(request.tenant, request.user_id)
        return new_job_id(shard_of(owner, self._shards.settings.shards))

    async def submit(self, job_id: str, request: ChatRequest) -> SubmitResult:
        """Accept a job under an id of `new_id`.

        Sending the same id, or the same idempotency key with the same body, again gives the
        same job. Raises a `NotAccepted`: then nothing was written, unless it is `NotReplicated`.
        """
        keys, arguments = self._submission(job_id, request)
        return self._accepted(await self._submits.run("job/submit", keys, *arguments))

    def submit_blocking(self, job_id: str, request: ChatRequest) -> SubmitResult | None:
        """Accept a job as `submit` does, from a thread without a loop and with one try.

        Returns None if it is not known whether it was accepted: `submit` it then, with this id.
        """
        if self._direct is None:
            return None
        keys, arguments = self._submission(job_id, request)
        answer = self._shards.run_directly(self._direct, "job/submit", keys, *arguments)
        return None if answer is None else self._accepted(answer)

    async def submit_many(
        self, asked: Iterable[tuple[str, ChatRequest]]
    ) -> list[SubmitResult | AfterwordError]:
        """Accept many jobs, as `submit` does; return for each what became of it."""
        calls = (self._submission(job_id, request) for job_id, request in asked)
        answers = await self._submits.run_all("job/submit", calls)
        return [self._accepted_or_error(answer) for answer in answers]

    async def resubmit(self, failed_id: str, body: str, run: str) -> str:
        """Submit a failed job's body as a new job, as of then, once and for all.

        Returns `waiting`, or why not: `refused`, `erased`, `gone`. It never ends other jobs of its
        conversation, whatever it did at first.
        """
        request = ChatRequest.model_validate_json(body).model_copy(update={"when_busy": "enqueue"})
        keys, arguments = self._submission(self.new_id(request), request)
        word, _ = await self._submits.run("job/submit", keys, *arguments, failed_id, run)
        self._check_accepted(word)
        return "waiting" if word in ("new", "same") else str(word)

    def _submission(self, job_id: str, request: ChatRequest) -> tuple[Keys, Sequence[str | float]]:
        """Return where a job is to live, and what its script takes."""
        settings = self._shards.settings
        keys = self._shards.keys_of(job_id)
        lane = lane_id(memory_key(request.tenant, request.user_id), keys.shard)
        body = request.body()
        return keys, (
            job_id,
            lane,
            request.tenant,
            body,
            milliseconds(request.expires_in or settings.job_ttl_s),
            fingerprint_of(body),
            _hashed(request.tenant, request.idempotency_key),
            milliseconds(settings.idempotency_s),
            TurnState.NONE if settings.backend == "off" else TurnState.AWAITED,
            f"{REPLIES}.{PRIORITY_STEPS[request.priority]}",
            settings.max_queued,
            RECORD_VERSION,
            _talk(lane, request.conversation_id),
            request.when_busy,
            *self._kept,
        )

    def _accepted_or_error(self, answer: list[Any] | Exception) -> SubmitResult | AfterwordError:
        try:
            return self._accepted(answer)
        except AfterwordError as error:
            return error

    def _accepted(self, answer: list[Any] | Exception) -> SubmitResult:
        if isinstance(answer, Exception):
            raise answer
        word, accepted = answer
        self._check_accepted(word)
        return SubmitResult(accepted, new=word == "new")

    def _check_accepted(self, word: str) -> None:
        if word == "full":
            most = self._shards.settings.max_queued
            raise QueueFull(f"{most} jobs are open; try again later")
        if word == "reused":
            raise KeyReused
        if word == "busy":
            raise ConversationBusy

    async def claim(self, job_id: str, token: str) -> Claim | None:
        """Take a job on, or return None if it is gone, ended, held, behind or someone else's.

        `token` names this claim: asking again with it after a lost answer gives the same claim.
        """
        settings = self._shards.settings
        answer = await self._shards.run(
            "job/claim",
            self._shards.keys_of(job_id),
            job_id,
            token,
            self._lease_ms,
            settings.max_attempts,
            RECORD_VERSION,
            settings.overlay_turns,
            settings.history_turns,
            *self._kept,
            self._failed_ms,
        )
        return _claim(job_id, answer) if answer[0] == "claimed" else None

    async def renew_leases(self, held: Sequence[tuple[str, str]]) -> list[str]:
        """Extend the leases of (job or lane id, fence); return the ids no longer held."""
        by_shard: dict[str, list[str]] = {}
        for name, fence in held:
            by_shard.setdefault(self._shards.keys_of(name).root, []).extend((name, fence))
        lost = await asyncio.gather(*(self._renew(names) for names in by_shard.values()))
        return [name for names in lost for name in names]

    async def _renew(self, names: Sequence[str]) -> list[str]:
        keys = self._shards.keys_of(names[0])
        return await self._shards.run("job/renew", keys, self._lease_ms, *names)

    async def append_delta(self, claim: Claim, number: int, text: str) -> None:
        """Publish a piece of the reply, numbered from 1; raise `LeaseLost` if overtaken."""
        _held(
            await self._shards.run_for(
                "job/delta", claim.job_id, claim.fence, number, claim.attempt, text
            )
        )

    async def finish(
        self, claim: Claim, reply: Reply, *, last: tuple[int, str] = (0, ""), skip: str = ""
    ) -> None:
        """Publish the reply and put the turn in its lane, in one step.

        `last` is the number and the text of what deltas have not published yet. `skip` says
        why the turn is not to be remembered, if so. Raises `LeaseLost`.
        """
        request = json.loads(claim.body)
        _held(
            await self._shards.run_for(
                "job/finish",
                claim.job_id,
                claim.fence,
                reply.model_dump_json(),
                TurnState.SKIPPED if skip else TurnState.PENDING,
                skip,
                _talk_turn(claim, request["message"], reply) if reply.conversation_id else "",
                max(1, self._shards.settings.history_turns),
                milliseconds(self._shards.settings.conversation_s),
                *self._kept,
                *last,
                milliseconds(USAGE_S),
                *_added(reply.usage),
            )
        )

    async def fail(self, claim: Claim, code: str, fault: Fault = Fault.REQUEST) -> None:
        """End a job without a reply, as a dead letter; raise `LeaseLost` if overtaken."""
        kept = self._failed_ms, self._kept[1]
        _held(
            await self._shards.run_for(
                "job/fail", claim.job_id, claim.fence, code, *kept, fault, __version__
            )
        )

    async def snooze(
        self, claim: Claim, delay_s: float, *, counted: bool, tried: bool = True, code: str = ""
    ) -> None:
        """Give a job back for later; only a `counted` one has spent its attempt.

        One that was not even `tried` only waited: its pauses do not grow by that.
        """
        delay_ms = milliseconds(delay_s) if delay_s > 0 else 0
        _held(
            await self._shards.run_for(
                "job/snooze", claim.job_id, claim.fence, delay_ms, int(counted), code, int(tried)
            )
        )

    async def cancel(self, job_id: str) -> str:
        """Cancel a job; return `cancelled`, `ended` (it was over) or `gone`.

        Raises `NewerRecord` if a newer version wrote it.
        """
        word = await self._shards.run_for("job/cancel", job_id, *self._kept, RECORD_VERSION)
        if word == "held":
            raise NewerRecord(job_id)
        return str(word)


def _hashed(tenant: str, key: str | None) -> str:
    if key is None:
        return ""
    return hashlib.sha256(f"{len(tenant)}:{tenant}{key}".encode()).hexdigest()


def _talk(lane: str, conversation_id: str | None) -> str:
    if conversation_id is None:
        return ""
    return f"{lane}/{hashlib.sha256(conversation_id.encode()).hexdigest()}"


def _talk_turn(claim: Claim, message: str, reply: Reply) -> str:
    return json.dumps(
        {"id": claim.job_id, "at": claim.created_ms, "user": message, "reply": reply.text},
        ensure_ascii=False,
    )


def _added(usage: Usage) -> Sequence[str | int]:
    """Return what one reply adds to the sums: name, number, ..."""
    return ["replies", 1, *itertools.chain.from_iterable(usage)]


def _held(word: str) -> None:
    if word == "lost":
        raise LeaseLost("someone newer owns this job, or it has ended")


def _claim(job_id: str, answer: Sequence[Any]) -> Claim:
    _, fence, attempt, snoozes, now, created, deadline, body, lane, turn, *past = answer
    overlay, history, erasing, queued = past
    return Claim(
        job_id=job_id,
        fence=str(fence),
        attempt=int(attempt),
        snoozes=int(snoozes),
        body=body,
        lane=lane,
        remembered=turn == TurnState.AWAITED,
        created_ms=int(created),
        queued_ms=int(queued),
        claimed_ms=int(now),
        deadline_ms=int(deadline),
        overlay=_overlay(overlay),
        history=tuple(_past(json.loads(entry)) for entry in history),
        erasing=erasing == 1,
    )


def _overlay(fields: Sequence[str]) -> tuple[PastTurn, ...]:
    """Read the flat list of (id, created, state, body, reply), newest first; give oldest first."""
    rows = [fields[start : start + 5] for start in range(0, len(fields), 5)]
    return tuple(
        PastTurn(name, moment(created), json.loads(body)["message"], json.loads(reply)["text"])
        for name, created, _, body, reply in reversed(rows)
    )


def _past(entry: dict[str, Any]) -> PastTurn:
    return PastTurn(entry["id"], moment(entry["at"]), entry["user"], entry["reply"])
