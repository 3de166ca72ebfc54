"""Two builds on one ledger: the first release and this one take steps in random order."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from afterword.shared.errors import LeaseLost
from afterword.shared.ledger.ledger import Ledger
from afterword.shared.ledger.records import Claim, EraseClaim, ErasureState, LaneClaim
from afterword.shared.lifecycle import TurnState
from afterword.shared.settings import Settings
from tests.kit.ledger.builder import (
    LedgerInspector,
    chat_request,
    lane_of,
    reply_to,
    submit_request,
)
from tests.kit.ledger.builder import claim_job as claim_it
from tests.kit.ledger.older_build import OlderBuild, Refused

pytestmark = pytest.mark.redis

V1 = Path(__file__).with_name("corpus") / "v1.zip"
USERS = ("ann", "bob")
STEPS, AT_ONCE = 120, 4


@pytest.fixture
def older(settings: Settings, tmp_path: Path) -> Iterator[OlderBuild]:
    with OlderBuild(
        V1,
        tmp_path,
        redis_url=settings.redis_url,
        namespace=settings.namespace,
        durability="none",
        memory="embedded",
    ) as running:
        yield running


def reply_of(job_id: str, user_id: str, conversation_id: str | None = None) -> dict[str, object]:
    """Return a reply in the form that both builds write."""
    claim = Claim(job_id, "1", 1, 0, chat_request(user_id=user_id).body(), "", True, 0, 0, 0, 0)
    reply = reply_to(claim).model_dump(mode="json")
    return reply | {"conversation_id": conversation_id}


class Walk:
    """Random steps, each by one of the two builds."""

    def __init__(
        self, ledger: Ledger, older: OlderBuild, inspector: LedgerInspector, seed: int
    ) -> None:
        self.ledger, self.older, self.inspector = ledger, older, inspector
        self.random = random.Random(seed)
        self.jobs: dict[str, str] = {}
        self.claims: dict[str, Claim] = {}
        self.theirs: dict[str, str] = {}
        self.refused = 0
        self.tokens = (f"token-{seed}-{number}" for number in itertools.count())

    async def step(self) -> None:
        names = ("submit", "claim", "claim", "claim", "end", "end", "write", "lapse", "sweep")
        await getattr(self, self.random.choice(names))()

    def mine(self) -> bool:
        return self.random.random() < 0.5

    def job(self) -> str:
        """Pick one of the newest jobs, so that both builds compete for the same ones."""
        return self.random.choice([*self.jobs][-AT_ONCE:])

    async def submit(self) -> None:
        user = self.random.choice(USERS)
        if self.mine():
            request = chat_request(user_id=user)
            found = await submit_request(
                self.ledger.jobs, self.ledger.jobs.new_id(request), request
            )
            self.jobs[found.job_id] = user
        else:
            self.jobs[self.older.do("submit", {"user_id": user, "message": "hello"})] = user

    async def claim(self) -> None:
        job_id = self.job()
        if not self.mine():
            if fence := self.older.do("claim", job_id, next(self.tokens)):
                self.theirs[job_id] = fence
            return
        found = await self.ledger.jobs.claim(job_id, next(self.tokens))
        if found is not None:
            self.claims[job_id] = found

    async def end(self) -> None:
        """End a job as its holder, or as a former one, which is refused."""
        job_id, how = self.job(), self.random.choice(("finish", "finish", "finish", "snooze"))
        if self.random.random() < 0.1:
            await self._cancel(job_id)
        elif self.mine() and job_id in self.claims:
            await self._end_mine(self.claims[job_id], how)
        elif job_id in self.theirs:
            self._end_theirs(job_id, how)

    async def _cancel(self, job_id: str) -> None:
        if self.mine():
            await self.ledger.jobs.cancel(job_id)
        else:
            self.older.do("cancel", job_id)

    async def _end_mine(self, held: Claim, how: str) -> None:
        try:
            if how == "finish":
                await self.ledger.jobs.finish(held, reply_to(held))
            else:
                await self.ledger.jobs.snooze(held, 1, counted=False)
            del self.claims[held.job_id]
        except LeaseLost:
            assert self.inspector.job(held.job_id)["fence"] != held.fence or self._is_over(
                held.job_id
            )

    def _is_over(self, job_id: str) -> bool:
        return self.inspector.job(job_id)["state"] != "running"

    def _end_theirs(self, job_id: str, how: str) -> None:
        more = reply_of(job_id, self.jobs[job_id]) if how == "finish" else 1
        before = self.inspector.job(job_id)
        done = "succeeded" if how == "finish" else "queued"
        if before["fence"] == self.theirs[job_id] and before["state"] in ("running", done):
            self.older.do(how, job_id, more)
            return
        with pytest.raises(Refused, match="LeaseLost"):
            self.older.do(how, job_id, more)
        assert self.inspector.job(job_id) == before
        self.refused += 1

    async def write(self) -> None:
        """Store the turns of a lane in the order of the messages."""
        lane = lane_of(self.random.choice(USERS))
        expected = self._writable(lane)
        if self.mine():
            assert await self._write_mine(lane) == expected
        else:
            assert self._write_theirs(lane) == expected[: self._known_to_the_older(expected)]

    def _writable(self, lane: str) -> list[str]:
        states = ((name, self.inspector.job(name)["turn"]) for name in self.inspector.lane(lane))
        written = itertools.takewhile(lambda one: one[1] in ("pending", "writing"), states)
        return [name for name, _ in written]

    def _known_to_the_older(self, names: list[str]) -> int:
        """Return how many come before a turn that this build has kept without a reply."""
        versions = (self.inspector.job(name)["version"] for name in names)
        return sum(1 for _ in itertools.takewhile("1".__eq__, versions))

    async def _write_mine(self, lane: str) -> list[str]:
        found = await self.ledger.turns.claim_lane(lane, next(self.tokens), max_turns=20)
        if found is None:
            return []
        assert isinstance(found, LaneClaim)
        for turn in found.turns:
            await self.ledger.turns.begin(found, turn.id)
            await self.ledger.turns.settle(found, turn.id, TurnState.STORED, memory_ids=["m"])
        await self.ledger.turns.release_lane(found)
        return [turn.id for turn in found.turns]

    def _write_theirs(self, lane: str) -> list[str]:
        turns: list[str] = self.older.do("take", lane, next(self.tokens))
        for turn in turns:
            self.older.do("begin", lane, turn)
            self.older.do("settle", lane, turn, "stored")
        if turns:
            self.older.do("release", lane)
        return turns

    async def lapse(self) -> None:
        job_id = self.job()
        self.inspector.make_due(job_id)
        await self.sweep()
        self.claims.pop(job_id, None)

    async def settle_all(self) -> None:
        """Answer and store what is left, each by one of the builds; the older is too late then."""
        for job_id in [*self.jobs]:
            self.inspector.make_due(job_id)
            await self.sweep()
            if (held := await self.ledger.jobs.claim(job_id, next(self.tokens))) is not None:
                await self.ledger.jobs.finish(held, reply_to(held))
        for lane in map(lane_of, USERS):
            self.inspector.make_due(lane)
            written = self._write_theirs(lane)
            while written and self._writable(lane):
                written = await self._write_mine(lane)
            while self._writable(lane):
                await self._write_mine(lane)
        for job_id in self.theirs:
            self._end_theirs(job_id, "finish")

    async def sweep(self) -> None:
        if self.mine():
            await self.ledger.maintenance.sweep()
        else:
            self.older.do("sweep")

    async def check(self) -> None:
        """Each open job is in one place, tallies are right, and a job ends once."""
        assert [gap async for gap in self.ledger.maintenance.find_inconsistencies()] == []
        expected: Counter[str] = Counter()
        for job_id in self.jobs:
            record = self.inspector.job(job_id)
            expected[f"job:{record['state']}:default"] += 1
            expected[f"turn:{record['turn']}:default"] += 1
            is_open = record["state"] in ("queued", "running")
            assert len(self.inspector.places(job_id)) == int(is_open)
            kinds = [event["type"] for event in self.inspector.events(job_id)]
            ends = [kind for kind in kinds if kind in ("final", "failed")]
            assert len(ends) == int(not is_open)
        assert self.inspector.counts() == dict(expected)


@pytest.mark.parametrize("seed", range(3))
async def test_two_builds_keep_one_ledger_consistent(
    ledger: Ledger, older: OlderBuild, inspector: LedgerInspector, seed: int
) -> None:
    walk = Walk(ledger, older, inspector, seed)
    await walk.submit()
    for _ in range(STEPS):
        await walk.step()
        await walk.check()
    await walk.settle_all()
    await walk.check()
    assert walk.refused > 0
    over = Counter(inspector.job(job_id)["state"] for job_id in walk.jobs)
    assert not {"queued", "running"} & set(over)
    turns = Counter(inspector.job(job_id)["turn"] for job_id in walk.jobs)
    kept = turns["stored"] - over["succeeded"]
    assert 0 <= kept == over["cancelled"] - turns["none"], (
        "the older drops them, this build does not"
    )


async def test_records_of_the_first_release_are_read_and_processed(
    ledger: Ledger, older: OlderBuild, inspector: LedgerInspector
) -> None:
    asked = {"user_id": "ann", "message": "hello", "conversation_id": "c", "idempotency_key": "k"}
    job_id = older.do("submit", asked)
    assert older.do("claim", job_id, "older")
    older.do("delta", job_id, 1, "half")
    request = chat_request(conversation_id="c", idempotency_key="k")
    again = await submit_request(ledger.jobs, ledger.jobs.new_id(request), request)
    assert (again.job_id, again.new) == (job_id, False)

    inspector.make_due(job_id)
    await ledger.maintenance.sweep()
    held = await claim_it(ledger, job_id)
    with pytest.raises(Refused, match="LeaseLost"):
        older.do("finish", job_id, reply_of(job_id, "ann", "c"))
    await ledger.jobs.finish(held, reply_to(held))

    events = await ledger.queries.events(job_id, None)
    assert [event.type for event in events] == ["started", "delta", "restart", "final"]
    assert older.do("take", lane_of(), "older") == [job_id]


@pytest.mark.parametrize("text", ["Hello", ""])
async def test_the_first_release_reads_a_stream_that_says_what_was_recalled(
    ledger: Ledger, older: OlderBuild, text: str
) -> None:
    job_id = older.do("submit", {"user_id": "ann", "message": "hello"})
    held = await claim_it(ledger, job_id)
    await ledger.jobs.finish(held, reply_to(held, text), last=(1, text))

    assert older.do("events", job_id) == ["started", *["delta"] * bool(text), "final"]


async def test_records_of_the_first_release_are_erased(
    ledger: Ledger, older: OlderBuild, inspector: LedgerInspector
) -> None:
    done = older.do("submit", {"user_id": "ann", "message": "canary", "conversation_id": "c"})
    older.do("claim", done, "older")
    older.do("finish", done, reply_of(done, "ann", "c") | {"text": "canary"})
    running = older.do("submit", {"user_id": "ann", "message": "canary", "idempotency_key": "k"})
    older.do("claim", running, "older")
    older.do("take", lane_of(), "older")
    await ledger.erasures.begin(lane_of(), "an operator")

    with pytest.raises(Refused, match="LeaseLost"):
        older.do("begin", lane_of(), done)
    mine = await ledger.turns.claim_lane(lane_of(), "eraser", max_turns=20)
    assert isinstance(mine, EraseClaim)
    await ledger.erasures.remove_records(mine)
    await ledger.erasures.advance(mine, ErasureState.ERASED)

    with pytest.raises(Refused, match="LeaseLost"):
        older.do("finish", running, reply_of(running, "ann"))
    assert [inspector.job(name)["turn"] for name in (done, running)] == ["erased", "none"]
    for name in (done, running):
        assert not {"body", "reply"} & set(inspector.job(name))
    assert not list(inspector.redis.scan_iter(inspector.keys.conversation("*")))


async def test_the_first_release_leaves_a_request_that_it_would_refuse(
    ledger: Ledger, older: OlderBuild, inspector: LedgerInspector
) -> None:
    request = chat_request(remember=False, timezone="Europe/Berlin")
    job_id = ledger.jobs.new_id(request)
    await submit_request(ledger.jobs, job_id, request)

    assert older.do("claim", job_id, "older") is None
    inspector.outlive(job_id)
    older.do("sweep")

    assert inspector.job(job_id)["state"] == "queued", "it is held, not failed and not expired"
    inspector.redis.hset(inspector.keys.job(job_id), "deadline", 10**13)
    assert (await claim_it(ledger, job_id)).body == request.body()
