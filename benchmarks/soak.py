"""A constant load with continuous faults, and a report of what became of every job.

`python -m benchmarks.soak --minutes 5` submits at a fixed rate, whatever happens. Meanwhile it
kills and stops workers in turn, kills Redis, makes mem0 unavailable for a fifth of the time, spoils
one answer of Claude in twenty, has some turns rejected and replayed, and erases some users. At the
end every job must be accounted for. Claude and mem0's platform are stand-ins; the rest is as in
production. With `--hostile` it is attacked as well: see `benchmarks/attacks.py`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any

from afterword.producer import AsyncJob, AsyncProducer
from afterword.shared.errors import AfterwordError, LedgerUnavailable
from afterword.shared.ledger.dead_letter_records import DeadLetterFilter, DeadLetterKind
from afterword.shared.ledger.ledger import Ledger
from afterword.shared.ledger.records import ErasureState
from afterword.shared.lifecycle import TurnState
from afterword.shared.names import Keys, lane_id, memory_key
from afterword.shared.settings import Settings
from benchmarks.attacks import TENANT, Attacks
from benchmarks.soak_state import explanation
from tests.kit.claude_api.scripted_answers import ClaudeAnswer, ServerFault
from tests.kit.fault_runs.delivery_report import DeliveryReport, JobOutcome, delivery_report
from tests.kit.mem0_api import scripted_answers as mem0_answers
from tests.kit.mem0_api.server import KEY
from tests.kit.servers.provider_thread import ProviderThread
from tests.kit.servers.scripted_http_server import Request, Step, whole
from tests.kit.servers.valkey import Valkey
from tests.kit.waiting import until
from tests.kit.workers.forked_workers import ForkedWorkers

USERS = 40
ERASED = ("erased-0", "erased-1")
CANARY = "canary-4711"

_KILL_EVERY_S = 10.0
_STOP_EVERY_S = 30.0
_STOPPED_S = 3.0
_BACK_S = 5.0
_SPAN_S = 300.0
_DRAIN_S = 180.0
_AT_ONCE = 200
_SHOWN = 20
FAULT_KINDS = tuple(one.name for one in fields(DeliveryReport) if one.name != "accepted")
_WRONG_SHARE = 0.05
_WRONG_ANSWERS = (
    ClaudeAnswer(status=529), ClaudeAnswer(status=500),
    ClaudeAnswer(status=429, headers={"retry-after": "1"}),
    ClaudeAnswer(fault=ServerFault.TRUNCATE), ClaudeAnswer(fault=ServerFault.CUT),
    ClaudeAnswer(fault=ServerFault.RESET),
    ClaudeAnswer(fault=ServerFault.ERROR_EVENT, error_type="overloaded_error"),
    ClaudeAnswer(fault=ServerFault.BAD_JSON),
    ClaudeAnswer(fault=ServerFault.HTML), ClaudeAnswer(fault=ServerFault.CLOSE_FIRST),
)  # fmt: skip


@dataclass
class SoakLog:
    """What happened during the run, for the report."""

    jobs: dict[str, tuple[AsyncJob, str]] = field(default_factory=dict)
    said: dict[str, str] = field(default_factory=dict)
    submit_ms: list[float] = field(default_factory=list)
    refused: int = 0
    drained_s: float = 0.0
    replayed: set[str] = field(default_factory=set)
    events: Counter[str] = field(default_factory=Counter)


class Soak:
    """Two workers of each kind, a Redis with an append-only file, and the faults."""

    def __init__(self, minutes: float, rate: float, folder: Path, *, hostile: bool) -> None:
        self.seconds = minutes * 60
        self.hostile = hostile
        self.rate = rate
        self.log = SoakLog()
        self._folder = folder
        self._valkey = Valkey("--appendonly", "yes", "--appendfsync", "everysec")
        self._providers = ProviderThread(extraction_s=0.3)
        self._forked = ForkedWorkers()
        self._workers: list[tuple[int, str, Path]] = []
        self._random = random.Random(4711)
        self._redis_is_there = True

    @contextmanager
    def open(self) -> Iterator[None]:
        """Start everything, and stop it at the end."""
        with self._valkey, self._providers, self._forked:
            self._environ = {
                "AFTERWORD_REDIS_URL": self._valkey.url,
                "AFTERWORD_MEMORY": "hosted",
                "AFTERWORD_DATA_DIR": str(self._folder),
                "AFTERWORD_LEASE_S": "3",
                "AFTERWORD_HINT_GRACE_S": "2",
                "AFTERWORD_REPAIR_S": "5",
                "AFTERWORD_PENDING_S": "5",
                "AFTERWORD_WRITE_TIMEOUT_S": "10",
                "AFTERWORD_MAX_ATTEMPTS": "10",
                "AFTERWORD_STREAM_RETENTION_S": str(self.seconds + 3600),  # the report reads all
                "ANTHROPIC_API_KEY": "test-key",
                "ANTHROPIC_BASE_URL": self._providers.claude.url,
                "MEM0_API_KEY": KEY,
                "MEM0_HOST": self._providers.mem0.url,
            }
            self._providers.claude.whim = self._choose_answer
            self.settings = Settings.load(self._environ)
            self.attacks = Attacks(self.settings, self._valkey, self._providers)
            if self.hostile:
                self.attacks.begin(self._environ, [f"user-{number}" for number in range(USERS)])
            for queue in ("replies", "replies", "memories", "memories"):
                self._start(queue)
            yield

    async def run(self) -> DeliveryReport:
        """Let it all happen, wait until all is settled, and report what was delivered."""
        async with AsyncProducer(self.settings) as producer:
            async with asyncio.TaskGroup() as group:
                ways = self.attacks.ways() if self.hostile else ()
                faults = [group.create_task(fault()) for fault in self._faults()]
                faults += [group.create_task(way) for way in ways]
                await self._load(producer)
                for fault in faults:
                    fault.cancel()
            ended = time.monotonic()
            await self._settled()  # a turn may be rejected after the load has ended
            await self._replay()
            await self._settled()
            self.log.drained_s = time.monotonic() - ended
            return await self._delivery_report()

    def _faults(self) -> Sequence[Callable[[], Coroutine[None, None, None]]]:
        return (
            lambda: self._every(_KILL_EVERY_S, self._kill_worker),
            lambda: self._every(_STOP_EVERY_S, self._stop_worker),
            lambda: self._once_per_span(0.4, self._kill_redis),
            lambda: self._once_per_span(0.5, self._stop_mem0),
            lambda: self._once_per_span(0.8, self._replay),
            lambda: self._once(0.7, self._erase),
        )

    async def _load(self, producer: AsyncProducer) -> None:
        """Submit at a fixed rate, whether or not earlier jobs were answered."""
        begin, number = time.monotonic(), 0
        async with asyncio.TaskGroup() as group:
            while (now := time.monotonic() - begin) < self.seconds:
                while number < now * self.rate:
                    group.create_task(self._submit(producer, number))
                    number += 1
                await asyncio.sleep(0.5 / self.rate)

    async def _submit(self, producer: AsyncProducer, number: int) -> None:
        """Submit one message, again with the same idempotency key until it is accepted."""
        if number % 200 == 0:
            reject = mem0_answers.Mem0Answer(verb="add", status=400)
            self._providers.do(lambda: self._providers.mem0.will_answer(reject))
        user = self._speaker(number)
        message = f"I like the number {number}, {CANARY} of {user}."
        while True:
            begin = time.monotonic()
            try:
                job = await producer.submit(
                    user_id=user,
                    message=message,
                    conversation_id=f"talk-{user}" if number % 3 == 0 else None,
                    idempotency_key=f"key-{number}",
                )
            except AfterwordError as error:
                self.log.refused += 1
                self.attacks.refused(user, error)
                await asyncio.sleep(0.2)
                continue
            took = time.monotonic() - begin
            self.log.submit_ms.append(took * 1000)
            self.attacks.submitted(user, took, redis_is_there=self._redis_is_there)
            self.log.jobs[job.id] = (job, user)
            self.log.said[message] = job.id
            return

    def _choose_answer(self) -> ClaudeAnswer | None:
        """Choose a faulty answer for 5 % of the requests, canaries of gates included."""
        wrong = self._random.random() < _WRONG_SHARE
        return self._random.choice(_WRONG_ANSWERS) if wrong else None

    def _speaker(self, number: int) -> str:
        if number % 50 == 0 and number / self.rate < self.seconds * 0.6:
            return ERASED[number // 50 % len(ERASED)]
        return f"user-{number % USERS}"

    async def _every(self, seconds: float, act: Callable[[], Awaitable[None]]) -> None:
        while True:
            await asyncio.sleep(seconds)
            await act()

    async def _once_per_span(self, share: float, act: Callable[[], Awaitable[None]]) -> None:
        """Act once in every five minutes, or once in a shorter run."""
        span = min(self.seconds, _SPAN_S)
        await asyncio.sleep(span * share)
        while True:
            await asyncio.gather(act(), asyncio.sleep(span))

    async def _once(self, share: float, act: Callable[[], Awaitable[None]]) -> None:
        await asyncio.sleep(self.seconds * share)
        await act()

    async def _kill_worker(self) -> None:
        pid, queue, _ = self._workers.pop(0)
        self._note("workers killed")
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        self._start(queue)

    async def _stop_worker(self) -> None:
        pid, _, _ = self._workers[-1]
        self._note("workers stopped for 3 s")
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
            await asyncio.sleep(_STOPPED_S)
            os.kill(pid, signal.SIGCONT)

    async def _kill_redis(self) -> None:
        self._note("Redis killed")
        self._redis_is_there = False
        await asyncio.to_thread(self._valkey.restart)
        await asyncio.sleep(_BACK_S)
        self._redis_is_there = True

    async def _stop_mem0(self) -> None:
        mem0 = self._providers.mem0
        there = mem0.answer
        self._providers.do(lambda: setattr(mem0, "answer", _away))
        seconds = min(60.0, self.seconds / 5)
        self._note(f"mem0 unavailable for {seconds:.0f} s")
        await asyncio.sleep(seconds)
        self._providers.do(lambda: setattr(mem0, "answer", there))

    async def _erase(self) -> None:
        async with Ledger(self.settings, patience_s=30) as ledger:
            for user in ERASED:
                await ledger.erasures.begin(self._lane(user), "soak")
                self._note("users erased")

    async def _replay(self) -> None:
        async with Ledger(self.settings, patience_s=30) as ledger:
            async for letter in ledger.dead_letters.select(
                DeadLetterFilter(kind=DeadLetterKind.MEMORY)
            ):
                await ledger.dead_letters.replay(letter.ref, f"soak-{letter.replays}")
                self.log.replayed.add(letter.id)
                self._note("dead letters replayed")

    def _lane(self, user: str) -> str:
        return lane_id(memory_key("default", user), 0)

    def _note(self, what: str) -> None:
        self.log.events[what] += 1

    def _start(self, queue: str) -> None:
        number = len(list(self._folder.glob("*.log")))
        log = self._folder / f"{number}.log"
        pid = self._forked.start(
            self._environ, log,
            "-Q", queue, "-n", f"{queue}{number}@soak", "--loglevel", "INFO",
        )  # fmt: skip
        log.touch()
        self._workers.append((pid, queue, log))

    async def _settled(self) -> None:
        try:
            await self._wait_until_settled()
        except (AssertionError, TimeoutError):
            print(await self._explanation())
            raise

    async def _explanation(self) -> str:
        """Return why jobs are not settled, as far as it can be seen from outside."""
        jobs = list(self.log.jobs.values())
        settled = await _each(_is_settled, [job for job, _ in jobs])
        ended = zip(jobs, settled, strict=True)
        with self._valkey.client() as redis:
            return await asyncio.to_thread(
                explanation,
                self._environ,
                redis,
                Keys(self.settings.namespace, 0),
                unsettled=[f"{job.id} of {user}" for (job, user), over in ended if not over],
                script=self._providers.do(lambda: self._providers.mem0.left),
                logs=[log for _, _, log in self._workers],
            )

    async def _wait_until_settled(self) -> None:
        async with asyncio.timeout(_DRAIN_S):
            await _each(_ended, [job for job, _ in self.log.jobs.values()])
            async with Ledger(self.settings, patience_s=30) as ledger:
                for user in ERASED:
                    await until(partial(self._is_erased, ledger, user), "erased", _DRAIN_S)
            with self._valkey.client() as redis:
                repairs = Keys(self.settings.namespace, 0).duplicate_checks
                await until(lambda: not redis.zcard(repairs), "repaired", _DRAIN_S)

    async def _is_erased(self, ledger: Ledger, user: str) -> bool:
        receipt = await ledger.erasures.receipt(self._lane(user))
        return receipt is not None and receipt.state is ErasureState.ERASED

    async def _delivery_report(self) -> DeliveryReport:
        """Count the jobs of all users but the erased ones, of whom nothing may be left."""
        kept = [(job, user) for job, user in self.log.jobs.values() if user not in ERASED]
        ended = sorted(await _each(_outcome, kept), key=itemgetter(0))
        outcomes = [outcome for _, outcome in ended]
        stored = {one.job_id for one in outcomes if one.turn is TurnState.STORED}
        found = self._providers.do(lambda: list(self._providers.mem0.rows))
        rows = [row for row in found if not row["user_id"].startswith(f"{TENANT}/")]
        owners = {memory_key("default", user) for user in ERASED}
        assert not [row for row in rows if row["user_id"] in owners], "memories of erased users"
        self._assert_erased_users_are_gone()
        # By text: facts of several turns in one add carry the id of the first turn.
        turns = [self.log.said.get(row["memory"], row["id"]) for row in rows]
        known = [turn for turn in turns if turn in stored or turn not in self.log.jobs]
        delivered = delivery_report(outcomes, known)
        # A replayed turn is stored late on purpose; its timestamp gives its place.
        return replace(delivered, out_of_order=delivered.out_of_order - self.log.replayed)

    def _assert_erased_users_are_gone(self) -> None:
        marks = [f"{CANARY} of {user}" for user in ERASED]
        with self._valkey.client() as redis:
            for key in redis.scan_iter(f"{Keys(self.settings.namespace, 0).root}*"):
                text = repr(redis.dump(key))
                assert not [mark for mark in marks if mark in text], "content of erased users"
        for log in self._folder.glob("*.log"):
            assert CANARY not in log.read_text(errors="replace"), "content in a log"


def _away(_: Request) -> Iterator[Step]:
    yield whole(503, {"content-type": "application/json"}, b"{}")


async def _each(act: Callable[[Any], Awaitable[Any]], items: list[Any]) -> list[Any]:
    """Act on each item, a limited number at a time; return the results."""
    groups = [items[at : at + _AT_ONCE] for at in range(0, len(items), _AT_ONCE)]
    return [one for group in groups for one in await asyncio.gather(*map(act, group))]


async def _ended(job: AsyncJob) -> None:
    await until(partial(_is_settled, job), f"{job.id} has ended", _DRAIN_S)


async def _outcome(whose: tuple[AsyncJob, str]) -> tuple[datetime, JobOutcome]:
    """Return when the ledger accepted a job, which gives its order, and its outcome."""
    found = await until(partial(_read_outcome, whose), f"{whose[0].id} was read", _DRAIN_S)
    assert found is not None
    return found


async def _read_outcome(whose: tuple[AsyncJob, str]) -> tuple[datetime, JobOutcome] | None:
    job, user = whose
    try:
        status = await job.status()
        events = [event async for event in job.stream()]
    except LedgerUnavailable:  # asked again: a report is not about how long one read takes
        return None
    return status.created_at, JobOutcome(job.id, user, status.state, status.turn, events)


async def _is_settled(job: AsyncJob) -> bool:
    try:
        status = await job.status()
    except LedgerUnavailable:  # asked again: a drain is not about how long one read takes
        return False
    return status.state.terminal and status.turn.settled


def report(soak: Soak, found: DeliveryReport) -> str:
    """Return what happened and what was delivered, as Markdown."""
    log = soak.log
    submit = statistics.quantiles(log.submit_ms, n=100)
    all_of_it = sorted((log.events + soak.attacks.done).items())
    happened = ", ".join(f"{count} x {what}" for what, count in all_of_it)
    counts = {name: len(getattr(found, name)) for name in ("accepted", *FAULT_KINDS)}
    if soak.hostile:
        counts |= {name: len(book) for name, book in soak.attacks.books.items()}
    rows = "\n".join(f"| {name.replace('_', ' ')} | {count} |" for name, count in counts.items())
    return f"""\
# A soak of {soak.seconds / 60:g} minutes

Two workers of each kind, {USERS} users, Redis with an append-only file, stand-ins of the providers.
Load: {soak.rate:g} jobs/s. Faults: {_WRONG_SHARE:.0%} of Claude's answers faulty, {happened}.

Submit took {submit[49]:.1f} ms (p50), {submit[98]:.1f} ms (p99); {log.refused} were refused and
sent again. Every job was settled {log.drained_s:.0f} s after the load ended.

| turns | |
|---|---|
{rows}"""


def main(arguments: Sequence[str]) -> None:
    """Run, print and write the report; exit with 1 if a job is not accounted for."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.soak",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--minutes", type=float, default=5, metavar="N", help="length (default: %(default)s)"
    )
    parser.add_argument(
        "--rate", type=float, default=20, metavar="N", help="jobs per second (default: %(default)s)"
    )
    parser.add_argument("--hostile", action="store_true", help="attack it as well")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("docs/benchmarks"),
        metavar="FOLDER",
        help="folder of the report (default: %(default)s)",
    )
    options = parser.parse_args(arguments)
    os.environ |= {"MEM0_TELEMETRY": "False"}
    with tempfile.TemporaryDirectory(prefix="afterword-soak-") as folder:
        os.environ["MEM0_DIR"] = folder
        soak = Soak(options.minutes, options.rate, Path(folder), hostile=options.hostile)
        with soak.open():
            found = asyncio.run(soak.run())
            text = report(soak, found)
    print(text)
    kind = "soak-hostile" if options.hostile else "soak"
    (options.out / f"{kind}-{options.minutes:g}.md").write_text(text + "\n")
    wrong = found.wrong | {name: book for name, book in soak.attacks.books.items() if book}
    if wrong:
        shown = {name: sorted(ids)[:_SHOWN] for name, ids in wrong.items()}
        print(json.dumps(shown, indent=2))
        sys.exit(1)


if __name__ == "__main__":
    main(sys.argv[1:])
