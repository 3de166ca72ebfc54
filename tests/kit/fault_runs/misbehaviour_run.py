"""Runs the workers' own runtime in this process, on stand-ins that misbehave."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from pydantic import SecretStr
from redis.asyncio import Redis

from afterword.shared.ledger.ledger import Ledger
from afterword.shared.lifecycle import JobState, TurnState
from afterword.shared.names import MEMORIES, REPLIES
from afterword.shared.settings import Settings
from afterword.workers.wiring import Runtime, runtime
from tests.kit.claude_api import scripted_answers as claude_answers
from tests.kit.claude_api.server import ClaudeStandIn
from tests.kit.fault_runs.misbehaviours import FOREIGN, Misbehaviour
from tests.kit.ledger.builder import LedgerInspector, submit_job
from tests.kit.mem0_api import scripted_answers as mem0_answers
from tests.kit.mem0_api.server import KEY, Mem0StandIn
from tests.kit.waiting import until

#: What every message holds and no log line may.
CANARY = "canary"

#: Jobs and turns under way at a time, users that send them, hints taken up at a time.
MOST_OPEN = 12
USERS = 6
MODELS = 2
SLOTS = 16

#: A run that has not ended by then never will.
PATIENCE_S = 40.0

#: No job is due to end by then, even on a busy machine: what ends it is what it meets.
JOB_TTL_S = 600.0

Work = Callable[[str], Coroutine[Any, Any, None]]

_UNSETTLED = {
    *(f"job:{state}" for state in JobState if not state.terminal),
    *(f"turn:{state}" for state in TurnState if not state.settled),
}


def short_waits(redis_url: str, namespace: str, claude_url: str, mem0_url: str) -> Settings:
    """Return settings under which every wait is short."""
    return Settings(
        redis_url=redis_url, namespace=namespace, durability="none", memory="hosted",
        mem0_api_key=SecretStr(KEY), mem0_host=mem0_url,
        anthropic_api_key=SecretStr("key"), anthropic_base_url=claude_url,
        recall_budget_ms=50, delta_ms=10,
        reply_timeout_s=0.3, first_token_timeout_s=0.15, idle_timeout_s=0.1,
        write_timeout_s=0.3, pending_s=0.5, visible_s=0.03, repair_s=0.5,
        lease_s=1.0, sweep_s=0.05, hint_grace_s=0.3, job_ttl_s=JOB_TTL_S, pause_cap_s=0.1,
    )  # fmt: skip


class MisbehaviourRun:
    """Plays a script of misbehaviours to jobs until it is used up, then lets all come to an end."""

    def __init__(self, redis_url: str, namespace: str, script: Sequence[Misbehaviour]) -> None:
        self._redis_url = redis_url
        self._namespace = namespace
        self._script = script
        self.claude = ClaudeStandIn()
        self.mem0 = Mem0StandIn()
        self.jobs: list[str] = []
        self.played: Counter[str] = Counter()
        self.ends: Counter[str] = Counter()
        self.wrong: list[str] = []

    async def run(self) -> None:
        """Run it all; what is wrong in the end stands in `wrong`."""
        self.mem0.works_s = 0.02
        names = self._set_up()
        async with self.claude, self.mem0:
            settings = short_waits(self._redis_url, self._namespace, self.claude.url, self.mem0.url)
            inspector = LedgerInspector(settings)
            try:
                async with Ledger(settings, patience_s=5.0) as ledger, working(settings):
                    await self._submit(ledger, inspector)
                    await until(
                        lambda: _over(inspector), f"all is over {inspector.counts()}", PATIENCE_S
                    )
                    await self._check(ledger, inspector)
            finally:
                inspector.close()
        left = Counter(names[id(play)] for play in self.claude.left)
        left += Counter(names[id(play)] for play in self.mem0.left)
        self.played = Counter(names.values()) - left

    def _set_up(self) -> dict[int, str]:
        """Hand the script to the stand-ins; return the names of the plays."""
        names: dict[int, str] = {}
        for misbehaviour in self._script:
            play = _own(misbehaviour.play)
            names[id(play)] = misbehaviour.name
            if isinstance(play, claude_answers.ClaudeAnswer):
                self.claude.will_answer(play)
            else:
                self.mem0.will_answer(play)
        return names

    async def _submit(self, ledger: Ledger, inspector: LedgerInspector) -> None:
        """Submit jobs until nothing is left to be played; looks are rare, so they may be left."""
        while self.claude.left or any(one.verb != "get_all" for one in self.mem0.left):
            number = len(self.jobs)
            user = f"user-{number % USERS}"
            self.jobs.append(
                await submit_job(
                    ledger, _said(number), user_id=user, model=f"model-{number % MODELS}"
                )
            )
            await until(
                lambda: _open(inspector) < MOST_OPEN, "jobs and turns come to an end", PATIENCE_S
            )

    async def _check(self, ledger: Ledger, inspector: LedgerInspector) -> None:
        for job_id in self.jobs:
            status = await ledger.queries.status(job_id)
            self.ends[f"{status.state} / {status.turn}"] += 1
            ended_s = float(inspector.job(job_id)["ended"]) / 1000
            if ended_s > status.deadline.timestamp() + 1:
                self.wrong.append(f"{job_id} ended after its deadline")
            self._check_events(status.state, [event["type"] for event in inspector.events(job_id)])
            self._check_turn(job_id, status.state, status.turn)
        self.wrong += [f"{name} is left open" for name in inspector.open_ends()]
        self.wrong += [
            "a foreign row reached Claude"
            for seen in self.claude.requests
            if FOREIGN in json.dumps(seen.body)
        ]

    def _check_events(self, state: JobState, kinds: Sequence[str]) -> None:
        finals, ends = kinds.count("final"), kinds.count("final") + kinds.count("failed")
        last = kinds[-1] in ("final", "failed")
        if finals != (state is JobState.SUCCEEDED) or ends != 1 or not last:
            self.wrong.append(f"{state} with {list(kinds)}")

    def _check_turn(self, job_id: str, state: JobState, turn: TurnState) -> None:
        if (state is JobState.SUCCEEDED) != (turn is not TurnState.NONE):
            self.wrong.append(f"{state} with a turn that is {turn}")
        said = _said(self.jobs.index(job_id))
        rows = [row for row in self.mem0.rows if row["memory"] == said]
        if turn is TurnState.STORED and len(rows) != 1:
            self.wrong.append(f"{job_id} is stored {len(rows)} times")


def _said(number: int) -> str:
    """Return the message of the nth job; no other says the same."""
    return f"{CANARY}: I have {number} cats"


def _own(
    play: claude_answers.ClaudeAnswer | mem0_answers.Mem0Answer,
) -> claude_answers.ClaudeAnswer | mem0_answers.Mem0Answer:
    """Return a copy, so that each play of a script is one of its own."""
    return type(play)(**{name: getattr(play, name) for name in play.__slots__})


def _open(inspector: LedgerInspector) -> int:
    """Return how many jobs have not ended, and how many turns of those that have."""
    counts = {name.rpartition(":")[0]: count for name, count in inspector.counts().items()}
    return sum(counts.get(name, 0) for name in _UNSETTLED - {"turn:awaited"})


def _over(inspector: LedgerInspector) -> bool:
    return not _open(inspector) and not inspector.repairs() and not inspector.open_ends()


@asynccontextmanager
async def working(settings: Settings) -> AsyncIterator[None]:
    """Run one worker for both queues, which takes hints as Celery's would."""
    async with runtime(settings, lambda: {REPLIES, MEMORIES}) as worker:
        taker = asyncio.create_task(_take_hints(settings, worker))
        try:
            yield
        finally:
            taker.cancel()
            await asyncio.gather(taker, return_exceptions=True)


async def _take_hints(settings: Settings, worker: Runtime) -> None:
    assert settings.redis_url is not None
    inspector = LedgerInspector(settings)
    lists: dict[str, Work] = {inspector.list_of(MEMORIES): worker.store_turns}
    lists |= dict.fromkeys((inspector.list_of(REPLIES, step) for step in (0, 3, 6)), worker.respond)
    slots = asyncio.Semaphore(SLOTS)
    async with (
        Redis.from_url(settings.redis_url, decode_responses=True) as redis,
        asyncio.TaskGroup() as group,
    ):
        with _closing(inspector):
            while True:
                await slots.acquire()
                taken: Any = None
                while taken is None:  # a longer wait would exceed the client's own time limit
                    taken = await redis.blpop(list(lists), timeout=1)
                    _end_if_cancelled()
                task = group.create_task(lists[taken[0]](_named_in(taken[1])))
                task.add_done_callback(lambda _: slots.release())


def _end_if_cancelled() -> None:
    """Raise a cancellation that was lost: one that comes with an answer, to `wait_for`, in 3.11."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


def _named_in(message: str) -> str:
    """Return the job or lane that a hint names."""
    return str(json.loads(json.loads(message)["body"])[0][0])


@contextmanager
def _closing(inspector: LedgerInspector) -> Iterator[None]:
    try:
        yield
    finally:
        inspector.redis.close()
