"""`afterword doctor --drill`: the live fleet remembers, replays and erases a user of its own."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from afterword.producer.admin.async_admin import AsyncOperator
from afterword.producer.admin.async_steering import QUEUES
from afterword.producer.admin.wording import duration
from afterword.producer.cli import render
from afterword.producer.cli.checks.finding import Finding, fail, ok
from afterword.producer.cli.workers_seen import open_ledger, running
from afterword.producer.client.async_client import AsyncJob, AsyncProducer
from afterword.shared.contracts import Reply
from afterword.shared.errors import AfterwordError, IllegalStep
from afterword.shared.ledger.dead_letter_records import (
    DeadLetterFilter,
    ReplayOutcome,
    ReplayPace,
)
from afterword.shared.ledger.records import ErasureState
from afterword.shared.lifecycle import TurnState
from afterword.shared.plurals import quantity
from afterword.shared.settings import Settings

Found = TypeVar("Found")

#: The tenant of all drills. Its users are `drill-...`, a new one for each drill.
TENANT = "afterword-drill"

#: What is said, asked about it, and the word by which it is known, in lower case.
FACT = "I prefer all temperatures in Celsius, never Fahrenheit."
QUESTION = "What is a good temperature for a bedroom?"
KNOWN_BY = "celsius"

#: The same of the turn that becomes a dead letter.
LATE_FACT = "My dog is called Otto."
LATE_QUESTION = "What is my dog called?"
LATE_KNOWN_BY = "otto"

#: Enough for a sentence, so that a drill costs little.
_MAX_TOKENS = 64

_LOOK_EVERY_S = 0.25

_MEND = "Run `afterword doctor`, mend what it names, and drill again."


class DrillFailed(Exception):
    """A step of a drill failed: what went wrong, and what cures it."""

    def __init__(self, detail: str, remedy: str = _MEND) -> None:
        super().__init__(detail)
        self.remedy = remedy


@dataclass(frozen=True, slots=True)
class Drill:
    """One drill: its own user, its connections, and its limits.

    `patience_s` is how long each step may take. `restart` is a command that restarts the workers,
    empty for none.
    """

    producer: AsyncProducer
    operator: AsyncOperator
    settings: Settings
    patience_s: float
    restart: Sequence[str] = ()
    user_id: str = field(default_factory=lambda: f"drill-{secrets.token_hex(8)}")

    async def steps(self) -> AsyncGenerator[Finding, None]:
        """Take each step and yield what it found, up to the first that fails.

        However it ends, the erasure of its user was requested.
        """
        named: dict[str, Callable[[], Awaitable[str]]] = {
            "drill: answer and remember": self._tell,
            **({"drill: restart": self._restart_workers} if self.restart else {}),
            "drill: recall": self._ask,
            "drill: bury": self._bury,
            "drill: replay": self._replay,
            "drill: erase": self._erase,
            "drill: erased": self._ask_again,
        }
        try:
            for name, step in named.items():
                found = await _finding(name, step)
                yield found
                if found.remedy:
                    return
        finally:
            await self.operator.forget(self.user_id, tenant=TENANT)

    async def _tell(self) -> str:
        began = time.monotonic()
        job, reply = await self._say(FACT)
        answered_s = time.monotonic() - began
        if reply.not_remembered:
            raise DrillFailed(f"the turn is not remembered: {reply.not_remembered}")
        state = await self._until_settled(job)
        if state is not TurnState.STORED:
            raise DrillFailed(f"the turn is {state}, not stored")
        took = duration(time.monotonic() - began)
        return f"answered in {duration(answered_s)}, stored in {took}"

    async def _restart_workers(self) -> str:
        began = time.monotonic()
        command = await asyncio.create_subprocess_exec(*self.restart)
        if code := await asyncio.wait_for(command.wait(), self.patience_s):
            raise DrillFailed(f"{self.restart[0]} ended with {code}", "Correct --restart.")
        await self._until(self._all_kinds_run, "no worker of each kind was heard of again")
        return f"workers of each kind run again after {duration(time.monotonic() - began)}"

    async def _ask(self) -> str:
        reply = await self._recall(QUESTION, KNOWN_BY)
        return f"the fact was given to the model, in {reply.timings_ms.recall} ms"

    async def _bury(self) -> str:
        """Say another fact while the user's memory is paused, and bury its turn."""
        steering = self.operator.steering
        user = self.user_id
        await steering.pause(
            "memories", tenant=TENANT, user_id=user, reason="drill", for_s=self.patience_s
        )
        try:
            job, _ = await self._say(LATE_FACT)
            await self._until(lambda: self._is_buried(job.id), "the turn is not buried")
        finally:
            await steering.resume("memories", tenant=TENANT, user_id=user)
        return "a turn whose memory was paused is a dead letter"

    async def _is_buried(self, job_id: str) -> bool:
        """Bury a turn; false while a worker still has the lane from the turn before."""
        try:
            await self.operator.bury(job_id)
        except IllegalStep:
            return False
        return True

    async def _replay(self) -> str:
        """Replay the letter twice: the second time there is nothing to replay."""
        chosen = DeadLetterFilter(tenant=TENANT, user_id=self.user_id)
        began = time.monotonic()
        pace = ReplayPace(stall_timeout_s=self.patience_s)
        run = await self.operator.replay(await self.operator.plan(chosen, pace), apply=True)
        if run.outcomes != {ReplayOutcome.STORED: 1}:
            outcomes = render.counts(run.outcomes) or "nothing replayed"
            raise DrillFailed(f"the replay is {render.replay_state(run)}: {outcomes}")
        took = duration(time.monotonic() - began)
        if left := (await self.operator.plan(chosen)).dead_letters:
            raise DrillFailed(f"left over: {quantity(len(left), 'dead letter')}")
        reply = await self._recall(LATE_QUESTION, LATE_KNOWN_BY)
        texts = [memory.text for memory in reply.memories]
        if len(texts) != len(set(texts)):
            raise DrillFailed("a memory is stored twice")
        return f"stored in {took}, once, and given to the model"

    async def _recall(self, question: str, known_by: str) -> Reply:
        _, reply = await self._say(question, remember=False)
        if reply.memory == "degraded":
            raise DrillFailed("memory could not be searched in time")
        if not any(known_by in memory.text.lower() for memory in reply.memories):
            raise DrillFailed(
                f"what was told is in none of {quantity(len(reply.memories), 'memory', 'memories')}"
            )
        return reply

    async def _erase(self) -> str:
        began = time.monotonic()
        await self.operator.forget(self.user_id, tenant=TENANT)
        limit_s = self.patience_s + _settle_s(self.settings)
        await self._until(self._is_erased, "the erasure is not complete", limit_s)
        return f"complete after {duration(time.monotonic() - began)}"

    async def _ask_again(self) -> str:
        _, reply = await self._say(QUESTION, remember=False)
        if reply.memories:
            raise DrillFailed("a memory of the erased user was given to the model")
        return "nothing is known of the user any more"

    async def _say(self, message: str, *, remember: bool = True) -> tuple[AsyncJob, Reply]:
        job = await self.producer.submit(
            user_id=self.user_id,
            tenant=TENANT,
            message=message,
            remember=remember,
            max_tokens=_MAX_TOKENS,
        )
        return job, await job.wait(timeout=self.patience_s)

    async def _until_settled(self, job: AsyncJob) -> TurnState:
        async def settled() -> TurnState | None:
            turn = (await job.status()).turn
            return turn if turn.settled else None

        return await self._until(settled, "the turn is not stored")

    async def _is_erased(self) -> bool:
        found = await self.operator.erasure(self.user_id, tenant=TENANT)
        return found is not None and found.state is ErasureState.ERASED

    async def _all_kinds_run(self) -> bool:
        async with open_ledger(self.settings) as checked:
            shards = await checked.ledger.maintenance.overview()
        return all(running(shards, kind) for kind in QUEUES)

    async def _until(
        self,
        look: Callable[[], Awaitable[Found | None]],
        problem: str,
        limit_s: float | None = None,
    ) -> Found:
        """Return the first true value of `look`; fail if none comes in time."""
        limit_s = limit_s or self.patience_s
        end = time.monotonic() + limit_s
        while not (found := await look()):
            if time.monotonic() >= end:
                raise DrillFailed(f"{problem} after {duration(limit_s)}")
            await asyncio.sleep(_LOOK_EVERY_S)
        return found


def _settle_s(settings: Settings) -> float:
    """Return how long an erasure waits, by design, for writes that were under way."""
    slow = settings.pending_s if settings.backend == "hosted" else 0.0
    return settings.write_timeout_s + settings.lease_s + slow


async def _finding(name: str, step: Callable[[], Awaitable[str]]) -> Finding:
    try:
        return ok(name, await step())
    except DrillFailed as failed:
        return fail(name, str(failed), failed.remedy)
    except (AfterwordError, OSError, TimeoutError) as error:
        return fail(name, str(error) or type(error).__name__, _MEND)
