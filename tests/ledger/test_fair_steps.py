"""Jobs of several tenants take random steps through hints, losses, caps and sweeps."""

from __future__ import annotations

import asyncio
import itertools
import uuid
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from afterword.shared.ledger.ledger import Ledger
from afterword.shared.names import lane_id, memory_key
from afterword.shared.settings import Settings
from tests.kit.ledger.builder import LedgerInspector, chat_request, reply_to

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable
    from typing import Any

    from afterword.shared.ledger.records import Claim
    from tests.kit.servers.valkey import Valkey

TENANTS = ("acme", "beta", "zeta")
USERS = ("ann", "bob")
AGENDAS = {"normal": "replies.3", "low": "replies.6"}

#: Which of some jobs a step is about. How many there are depends on time, so it is drawn without
#: looking at them: hypothesis must draw the same again for the same steps.
PICKS = st.integers(0, 99)


def one_of(jobs: Iterable[str], pick: int) -> str:
    """Return the job that was picked, by the order in which they came."""
    known = [*jobs]
    return known[pick % len(known)]


class Shares(RuleBasedStateMachine):
    """Random steps of producers, workers, sweeps and accidents; each claim is for a popped hint."""

    url: str

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.running: dict[str, Claim] = {}
        self.ended: Counter[str] = Counter()
        self.submitted: dict[str, str] = {}
        self.takes = itertools.count()
        self.lost = False

    @initialize(of_tenant=st.sampled_from((0, 1, 3)), of_user=st.sampled_from((0, 1, 2)))
    def open(self, of_tenant: int, of_user: int) -> None:
        self.caps = (of_tenant, of_user)
        settings = Settings(
            redis_url=self.url,
            namespace=f"m-{uuid.uuid4().hex[:12]}",
            durability="none",
            memory="off",
            max_attempts=1000,
            hint_grace_s=0.001,
            max_running_per_tenant=of_tenant,
            max_running_per_user=of_user,
        )
        self.ledger = Ledger(settings, patience_s=5.0)
        self.inspector = LedgerInspector(settings)

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(coroutine)

    def teardown(self) -> None:
        if self.submitted:
            self.drain()
        if hasattr(self, "ledger"):
            self.run(self.ledger.aclose())
            self.inspector.close()
        self.loop.close()

    @rule(
        tenant=st.sampled_from(TENANTS),
        user=st.sampled_from(USERS),
        priority=st.sampled_from(("normal", "normal", "low")),
        talk=st.sampled_from((None, None, "c")),
        count=st.integers(1, 4),
    )
    def submit(self, tenant: str, user: str, priority: str, talk: str | None, count: int) -> None:
        one = chat_request(tenant=tenant, user_id=user, priority=priority, conversation_id=talk)
        asked = [(self.ledger.jobs.new_id(one), one) for _ in range(count)]
        self.run(self.ledger.jobs.submit_many(asked))
        self.submitted |= dict.fromkeys((job_id for job_id, _ in asked), tenant)

    @rule(agenda=st.sampled_from((*AGENDAS.values(), "replies.3")), ahead=st.booleans())
    def take(self, agenda: str, ahead: bool) -> None:
        self._take(agenda, ahead=ahead)

    def _take(self, agenda: str, *, ahead: bool = False) -> Claim | None:
        if not self.inspector.hinted(agenda):
            return None
        pop = self.inspector.pop_newest_hint if ahead else self.inspector.pop_hint
        hinted, token = pop(agenda), f"token-{next(self.takes)}"
        claims = [self.run(self.ledger.jobs.claim(hinted, token, ahead=ahead)) for _ in range(2)]
        if claims[0] is None:
            return None
        assert [one and (one.job_id, one.fence) for one in claims] == [
            (claims[0].job_id, claims[0].fence)
        ] * 2, "repeated with the same token"
        assert self.inspector.job(claims[0].job_id)["agenda"] == agenda
        claim: Claim = claims[0]
        self.running[claim.job_id] = claim
        return claim

    @rule(pick=PICKS, how=st.sampled_from(("finish", "finish", "fail", "snooze", "cancel")))
    def end(self, pick: int, how: str) -> None:
        if not self.running:
            return
        job_id = one_of(self.running, pick)
        claim, jobs = self.running.pop(job_id), self.ledger.jobs
        if how == "finish":
            self.run(jobs.finish(claim, reply_to(claim)))
        elif how == "fail":
            self.run(jobs.fail(claim, "rejected"))
        elif how == "snooze":
            self.run(jobs.snooze(claim, 0, counted=False))
        else:
            self.run(jobs.cancel(job_id))

    @rule(pick=PICKS)
    def cancel(self, pick: int) -> None:
        if self.submitted:
            job_id = one_of(self.submitted, pick)
            self.run(self.ledger.jobs.cancel(job_id))
            self.running.pop(job_id, None)

    @rule(pick=PICKS)
    def die(self, pick: int) -> None:
        """A worker is killed: its lease runs out."""
        if self.running:
            job_id = one_of(self.running, pick)
            self.inspector.make_due(job_id)
            self.sweep()
            assert self.inspector.job(job_id)["state"] == "queued"
            del self.running[job_id]

    @rule(agenda=st.sampled_from([*AGENDAS.values()]))
    def lose_a_hint(self, agenda: str) -> None:
        if self.inspector.hinted(agenda):
            self.inspector.pop_hint(agenda)
            self.lost = True

    @rule(agenda=st.sampled_from([*AGENDAS.values()]))
    def forget_shares(self, agenda: str) -> None:
        """A version that knows no shares has submitted what is queued."""
        for key in self.inspector.redis.scan_iter(f"{self.inspector.keys.root}:share-queue*"):
            self.inspector.redis.delete(key)

    @rule()
    def sweep(self) -> None:
        self.run(self.ledger.maintenance.sweep())

    @invariant()
    def each_open_job_is_in_one_place(self) -> None:
        if not self.submitted:
            return
        records = self.inspector.look([*self.submitted])
        for job_id in self.submitted:
            state, places = records.jobs[job_id]["state"], records.places.get(job_id, [])
            assert len(places) == int(state in ("queued", "running")), (state, places)
            assert (state == "running") == (job_id in self.running)

    @invariant()
    def nobody_runs_more_than_they_may(self) -> None:
        if not self.submitted:
            return
        of_tenant, of_user = self.caps
        tenants = Counter(self.submitted[job_id] for job_id in self.running)
        lanes = Counter(claim.lane for claim in self.running.values())
        assert not of_tenant or max(tenants.values(), default=0) <= of_tenant
        assert not of_user or max(lanes.values(), default=0) <= of_user

    @invariant()
    def whoever_is_parked_is_looked_at_again(self) -> None:
        if not self.submitted:
            return
        redis, keys = self.inspector.redis, self.inspector.keys
        owners = [f":{tenant}" for tenant in TENANTS]
        owners += [lane_id(memory_key(tenant, user), 0) for tenant in TENANTS for user in USERS]
        parked: set[str] = set()
        for owner in owners:
            found = redis.zrange(keys.capped(owner), 0, -1)
            assert not found or redis.zscore(keys.at_cap, owner) is not None
            parked.update(found)
        for job_id in self.submitted:
            job = self.inspector.job(job_id)
            waits = [place for place, _ in self.inspector.places(job_id)] == ["waiting"]
            if job["state"] == "queued" and waits and "aside" not in job:
                assert job_id in parked

    def drain(self) -> None:
        """With hints and sweeps alone, everything ends."""
        for _ in range(40 * len(self.submitted)):
            for agenda in AGENDAS.values():
                while self._take(agenda) is not None:
                    pass
            for job_id, claim in [*self.running.items()]:
                self.run(self.ledger.jobs.finish(claim, reply_to(claim)))
                del self.running[job_id]
            if not self.inspector.redis.zcard(self.inspector.keys.open):
                break
            if not any(map(self.inspector.hinted, AGENDAS.values())):
                self.inspector.pass_time(1)
                self.run(self.ledger.maintenance.sweep())
        assert not self.inspector.redis.zcard(self.inspector.keys.open)
        assert not self.inspector.redis.exists(self.inspector.keys.at_cap)
        assert self.inspector.open_counts() == {}
        self.run(self.ledger.maintenance.sweep())
        assert self.inspector.redis.keys(f"{self.inspector.keys.root}:share-queue:*") == []


@pytest.mark.redis
@pytest.mark.slow  # sixty walks of forty steps: about half a minute of CPU
@pytest.mark.timeout(1200)
def test_tenants_share_whatever_happens(valkey: Valkey) -> None:
    Shares.url = valkey.url
    run_state_machine_as_test(
        Shares,
        settings=hypothesis_settings(
            max_examples=60,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
