"""Jobs and turns take random steps, in the real scripts and in a model beside them."""

from __future__ import annotations

import asyncio
import itertools
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    invariant,
    rule,
    run_state_machine_as_test,
)

from afterword.shared.errors import ConversationBusy, Fault, IllegalStep, LeaseLost
from afterword.shared.ledger.dead_letter_records import DeadLetterKind, DeadLetterRef, ReplayOutcome
from afterword.shared.ledger.ledger import Ledger
from afterword.shared.ledger.order_records import OrderKind
from afterword.shared.ledger.orders import Whom
from afterword.shared.ledger.records import EraseClaim, ErasureState
from afterword.shared.lifecycle import JobState, TurnState
from afterword.shared.names import lane_id, memory_key, user_of
from afterword.shared.settings import Settings
from tests.kit.ledger.builder import (
    LedgerInspector,
    Records,
    chat_request,
    reply_to,
    submit_request,
)
from tests.kit.ledger.transitions import JobStep, TurnStep, check_job_step, check_turn_step

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from typing import Any

    from afterword.shared.ledger.records import Claim, Inconsistency, LaneClaim
    from tests.kit.servers.valkey import Valkey

USERS = ("ann", "bob")
TALKS = (None, "c", "d")
MAX_ATTEMPTS = 3
PAUSES = (OrderKind.PAUSE_REPLIES, OrderKind.PAUSE_MEMORIES)
WHOM = (Whom(), Whom("default"), Whom("default", "ann"))


@dataclass
class Life:
    """What the model knows of one job and its turn."""

    lane: str
    number: int
    talk: str | None = None
    state: JobState = JobState.QUEUED
    turn: TurnState = TurnState.AWAITED
    attempts: int = 0
    claim: Claim | None = None
    stale: list[Claim] = field(default_factory=list)
    finals: int = 0
    told: bool = False
    erased: bool = False

    def go(self, step: JobStep, to: JobState) -> None:
        """Take a step of the job, if it is one of those allowed."""
        check_job_step(step, self.state, to)
        self.state = to
        if to in (JobState.FAILED, JobState.EXPIRED):
            self.go_turn(TurnStep.DROP, TurnState.NONE)

    def stop(self) -> None:
        """Cancel the job: what was said is kept, in the conversation and for memory."""
        self.go(JobStep.CANCEL, JobState.CANCELLED)
        self.go_turn(TurnStep.KEEP, TurnState.PENDING)
        self.told = True

    def go_turn(self, step: TurnStep, to: TurnState) -> None:
        """Take a step of the turn, if it is one of those allowed."""
        check_turn_step(step, self.turn, to)
        self.turn = to

    @property
    def in_lane(self) -> bool:
        return self.turn in (TurnState.AWAITED, TurnState.PENDING, TurnState.WRITING)


class Lives(RuleBasedStateMachine):
    """Random steps, some by holders of a lost lease."""

    url: str
    jobs = Bundle("jobs")

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        settings = Settings(
            redis_url=self.url,
            namespace=f"m-{uuid.uuid4().hex[:12]}",
            durability="none",
            memory="embedded",
            max_attempts=MAX_ATTEMPTS,
            hint_grace_s=0.001,
        )
        self.ledger = Ledger(settings, patience_s=5.0)
        self.inspector = LedgerInspector(settings)
        self.lives: dict[str, Life] = {}
        self.lanes: dict[str, LaneClaim] = {}
        self.stale_lanes: list[LaneClaim] = []
        self.begun: dict[str, str] = {}
        self.batches: dict[str, list[str]] = {}
        self.erasing: dict[str, list[str]] = {}
        self.paused: set[tuple[OrderKind, Whom]] = set()

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(coroutine)

    def teardown(self) -> None:
        self.run(self.ledger.aclose())
        self.inspector.close()
        self.loop.close()

    # -- a job's life

    @rule(
        target=jobs,
        user=st.sampled_from(USERS),
        priority=st.sampled_from(("high", "low")),
        talk=st.sampled_from(TALKS),
    )
    def submit(self, user: str, priority: str, talk: str | None) -> str:
        return self._submit(user, priority, talk)

    @rule(target=jobs, user=st.sampled_from(USERS), talk=st.sampled_from(TALKS[1:]))
    def interrupt(self, user: str, talk: str) -> str:
        ended = self._open_in(lane_id(memory_key("default", user), 0), talk)
        job_id = self._submit(user, "high", talk, when_busy="interrupt")
        for name in ended:
            self.lives[name].stop()
            assert self.inspector.job(name)["code"] == "interrupted"
        return job_id

    @rule(target=jobs, user=st.sampled_from(USERS), talk=st.sampled_from(TALKS[1:]))
    def merge(self, user: str, talk: str) -> str:
        """A message joins the newest open job of its conversation: nothing of a reply is out."""
        *_, newest = self._open_in(lane_id(memory_key("default", user), 0), talk) or [""]
        if not newest or self.inspector.job(newest)["agenda"] != "replies.3":  # another priority
            return self._submit(user, "normal", talk, when_busy="merge")
        request = chat_request(user_id=user, conversation_id=talk, when_busy="merge")
        job_id = self.ledger.jobs.new_id(request)
        for _ in range(2):
            result = self.run(submit_request(self.ledger.jobs, job_id, request))
            assert (result.job_id, result.new) == (newest, False)
        life = self.lives[newest]
        if life.state is JobState.RUNNING:
            life.go(JobStep.SNOOZE, JobState.QUEUED)
            life.attempts -= 1
        return newest

    @rule(user=st.sampled_from(USERS), talk=st.sampled_from(TALKS[1:]))
    def refused_if_busy(self, user: str, talk: str) -> None:
        if not self._open_in(lane_id(memory_key("default", user), 0), talk):
            return
        request = chat_request(user_id=user, conversation_id=talk, when_busy="reject")
        with pytest.raises(ConversationBusy):
            self.run(submit_request(self.ledger.jobs, self.ledger.jobs.new_id(request), request))

    def _open_in(self, lane: str, talk: str | None) -> list[str]:
        """Return the open jobs of a conversation, in the order of their submission."""
        return [
            name
            for name, life in self.lives.items()
            if talk and (life.lane, life.talk) == (lane, talk) and not life.state.terminal
        ]

    def _behind(self, job_id: str) -> bool:
        life = self.lives[job_id]
        return job_id in self._open_in(life.lane, life.talk)[1:]

    def _submit(
        self, user: str, priority: str = "high", talk: str | None = None, **fields: Any
    ) -> str:
        request = chat_request(user_id=user, priority=priority, conversation_id=talk, **fields)
        job_id = self.ledger.jobs.new_id(request)
        first = self.run(submit_request(self.ledger.jobs, job_id, request))
        again = self.run(submit_request(self.ledger.jobs, job_id, request))
        assert first.new
        assert not again.new
        lane = lane_id(memory_key("default", user), 0)
        self.lives[job_id] = Life(lane, number=len(self.lives), talk=talk)
        return job_id

    @rule(target=jobs, user=st.sampled_from(USERS))
    def running(self, user: str) -> str:
        """Submit and claim in one step: most other steps need a running job."""
        return self._running(user)

    def _running(self, user: str) -> str:
        job_id = self._submit(user)
        self.claim(job_id)
        return job_id

    @rule(target=jobs, user=st.sampled_from(USERS))
    def answered(self, user: str) -> str:
        return self._answered(user)

    def _answered(self, user: str) -> str:
        job_id = self._running(user)
        self.finish(job_id)
        return job_id

    @rule(target=jobs, user=st.sampled_from(USERS))
    def overtaken(self, user: str) -> str:
        job_id = self._running(user)
        self.lapse(job_id)
        self.claim(job_id)
        return job_id

    @rule(target=jobs, user=st.sampled_from(USERS))
    def buried(self, user: str) -> str:
        job_id = self._answered(user)
        lane = self.lives[job_id].lane
        self.lose_lane(user)
        self.take_lane(user, most=20)
        while self.lives[job_id].turn is TurnState.PENDING and lane in self.lanes:
            if job_id not in self._writable(lane):
                break
            self.write_batch(user, 1, "dead")
        self.let_go(user)
        return job_id

    @rule(user=st.sampled_from(USERS))
    def abandoned(self, user: str) -> None:
        """A writer begins a turn and loses the lane before it reports the outcome."""
        self.take_lane(user, most=4)
        lane = lane_id(memory_key("default", user), 0)
        claim = self.lanes.get(lane)
        if claim is None or not (names := self._writable(lane)):
            return
        self._begin(claim, self._batch(names, 2))
        self.lose_lane(user)
        self.take_lane(user, most=4)

    @rule(job_id=jobs)
    def claim(self, job_id: str) -> None:
        life = self.lives[job_id]
        leased = ("leased" in [place for place, _ in self.inspector.places(job_id)]) and (
            not self._lapsed(job_id)
        )
        claim = self.run(self.ledger.jobs.claim(job_id, uuid.uuid4().hex))
        taken = life.state is JobState.RUNNING and leased
        behind = self._behind(job_id)  # and so never started
        if life.state.terminal or taken or behind:
            assert claim is None
        elif life.attempts >= MAX_ATTEMPTS:
            assert claim is None
            life.go(JobStep.CLAIM, JobState.FAILED)
        elif life.state is JobState.QUEUED and self._stopped(OrderKind.PAUSE_REPLIES, life.lane):
            assert claim is None
            assert [place for place, _ in self.inspector.places(job_id)] == ["waiting"]
        else:
            self._taken_on(life, claim)

    def _taken_on(self, life: Life, claim: Claim | None) -> None:
        assert claim is not None
        life.go(JobStep.CLAIM, JobState.RUNNING)
        life.attempts += 1
        assert claim.attempt == life.attempts
        if life.claim is not None:
            life.stale.append(life.claim)
            assert int(claim.fence) > int(life.claim.fence)
        life.claim = claim
        answered = [
            name
            for name, other in self.lives.items()
            if life.talk and (other.lane, other.talk) == (life.lane, life.talk) and other.told
        ]
        erasing = life.lane in self.erasing
        assert claim.erasing is erasing
        assert [turn.id for turn in claim.history] == ([] if erasing else answered[-20:])
        older = [
            name
            for name, other in self.lives.items()
            if other.lane == life.lane
            and other.number < life.number
            and other.turn in (TurnState.PENDING, TurnState.WRITING)
            and name not in self.erasing.get(life.lane, ())
        ]
        assert [turn.id for turn in claim.overlay] == older[-20:]

    def _lapsed(self, job_id: str) -> bool:
        return any(
            self.inspector.redis.zscore(self.inspector.keys.place(place, agenda), job_id) == 0
            for place, agenda in self.inspector.places(job_id)
        )

    @rule(job_id=jobs)
    def finish(self, job_id: str) -> None:
        life = self.lives[job_id]
        if life.claim is None:
            return
        step = self.ledger.jobs.finish(life.claim, reply_to(life.claim))
        if life.state is JobState.RUNNING:
            self.run(step)
            life.go(JobStep.FINISH, JobState.SUCCEEDED)
            life.go_turn(TurnStep.FINISH, TurnState.PENDING)
            life.finals += 1
            life.told = True
        elif life.state is JobState.SUCCEEDED:
            self.run(step)
        else:
            self._refused(step)

    @rule(job_id=jobs)
    def refused_refusal(self, job_id: str) -> None:
        """A reply that is not to be remembered ends the turn as skipped."""
        life = self.lives[job_id]
        if life.claim is None or life.state is not JobState.RUNNING:
            return
        self.run(
            self.ledger.jobs.finish(life.claim, reply_to(life.claim, not_remembered="refusal"))
        )
        life.go(JobStep.FINISH, JobState.SUCCEEDED)
        life.go_turn(TurnStep.FINISH, TurnState.SKIPPED)
        life.finals += 1
        life.told = True

    @rule(job_id=jobs, counted=st.booleans(), later=st.booleans())
    def give_back(self, job_id: str, counted: bool, later: bool) -> None:
        life = self.lives[job_id]
        if life.claim is None:
            return
        step = self.ledger.jobs.snooze(life.claim, 60 if later else 0, counted=counted, code="x")
        if life.state is JobState.RUNNING:
            self.run(step)
            life.go(JobStep.RETRY if counted else JobStep.SNOOZE, JobState.QUEUED)
            life.attempts -= not counted
        elif life.state is JobState.QUEUED:
            self.run(step)
        else:
            self._refused(step)

    @rule(job_id=jobs)
    def fail(self, job_id: str) -> None:
        life = self.lives[job_id]
        if life.claim is None:
            return
        step = self.ledger.jobs.fail(life.claim, "broken")
        if life.state is JobState.RUNNING:
            self.run(step)
            life.go(JobStep.FAIL, JobState.FAILED)
        elif life.state is JobState.FAILED and self._failed_by(job_id, life):
            self.run(step)
        else:
            self._refused(step)

    def _failed_by(self, job_id: str, life: Life) -> bool:
        return life.claim is not None and self.inspector.job(job_id)["fence"] == life.claim.fence

    @rule(job_id=jobs)
    def cancel(self, job_id: str) -> None:
        life = self.lives[job_id]
        word = self.run(self.ledger.jobs.cancel(job_id))
        if life.state is JobState.CANCELLED:
            assert word == "cancelled"
        elif life.state.terminal:
            assert word == "ended"
        else:
            assert word == "cancelled"
            life.stop()

    @rule(job_id=jobs)
    def zombie(self, job_id: str) -> None:
        """An attempt that has lost its lease can change nothing."""
        life = self.lives[job_id]
        for claim in life.stale:
            self._refused(self.ledger.jobs.append_delta(claim, 1, "late"))
            self._refused(self.ledger.jobs.finish(claim, reply_to(claim)))
            self._refused(self.ledger.jobs.fail(claim, "late"))
            self._refused(self.ledger.jobs.snooze(claim, 0, counted=True))
            lost = self.run(self.ledger.jobs.renew_leases([(claim.job_id, claim.fence)]))
            assert lost == [claim.job_id]

    @rule(job_id=jobs)
    def lapse(self, job_id: str) -> None:
        """A lease or a pause expires."""
        self.inspector.make_due(job_id)

    @rule(job_id=jobs)
    def outlive(self, job_id: str) -> None:
        """A job passes its deadline."""
        life = self.lives[job_id]
        self.inspector.outlive(job_id)
        self.sweep()
        if not life.state.terminal:
            raise AssertionError("a job outlived its deadline")

    @rule()
    def purge(self) -> None:
        """All hints are lost."""
        self.inspector.drop_hints()

    @rule()
    def sweep(self) -> None:
        expiring = self.inspector.redis.zrangebyscore(self.inspector.keys.open, "-inf", 1)
        lapsed = [
            name
            for name, life in self.lives.items()
            if life.state is JobState.RUNNING and self._lapsed(name) and name not in expiring
        ]
        lost_lanes = [lane for lane in self.lanes if self._lapsed(lane)]
        self.run(self.ledger.maintenance.sweep())
        for name in expiring:
            self.lives[name].go(JobStep.EXPIRE, JobState.EXPIRED)
        for name in lapsed:
            self.lives[name].state = JobState.QUEUED
        for lane in lost_lanes:
            self.stale_lanes.append(self.lanes.pop(lane))

    # -- a turn's life

    @rule(user=st.sampled_from(USERS), most=st.integers(1, 4))
    def take_lane(self, user: str, most: int) -> None:
        lane = lane_id(memory_key("default", user), 0)
        held = lane in self.lanes and not self._lapsed(lane)
        claim = self.run(self.ledger.turns.claim_lane(lane, uuid.uuid4().hex, max_turns=most))
        if held:
            assert claim is None
            return
        if lane in self.lanes:
            self.stale_lanes.append(self.lanes.pop(lane))
        if lane in self.erasing:
            self._erase(claim)
            return
        if self._stopped(OrderKind.PAUSE_MEMORIES, lane):
            assert claim is None
            return
        expected = self._given(self._writable(lane)[:most])
        assert [turn.id for turn in claim.turns] == expected if claim else not expected
        if claim:
            self.lanes[lane] = claim
            begun = {turn.id: [*turn.batch] for turn in claim.turns if turn.batch}
            assert begun == {name: self.batches[name] for name in expected if name in self.batches}

    def _given(self, names: list[str]) -> list[str]:
        """Return these turns, those of a batch side by side and all of them."""
        given: list[str] = []
        for name in names:
            if name not in given:
                given += self.batches.get(name, [name])
        return given

    def _batch(self, names: list[str], count: int) -> list[str]:
        """Return the turns that go with the first: those it was begun with, or those now behind."""
        known = {name for batch in self.batches.values() for name in batch}
        fresh = itertools.takewhile(lambda name: name not in known, names[1:count])
        return self.batches.setdefault(names[0], [names[0], *fresh])

    def _writable(self, lane: str) -> list[str]:
        """Return the turns at the lane's head that an unfinished job does not hold back."""
        names: list[str] = []
        for name in self._lane(lane):
            if self.lives[name].turn is TurnState.AWAITED:
                break
            names.append(name)
        return names

    def _lane(self, lane: str) -> list[str]:
        inside = [name for name, life in self.lives.items() if life.lane == lane and life.in_lane]
        return sorted(inside, key=lambda name: self.lives[name].number)

    @rule(
        user=st.sampled_from(USERS),
        count=st.integers(1, 3),
        end=st.sampled_from(("stored", "nothing", "dead", "later", "at once", "apart")),
    )
    def write_batch(self, user: str, count: int, end: str) -> None:
        lane = lane_id(memory_key("default", user), 0)
        claim = self.lanes.get(lane)
        if claim is None or not (names := self._writable(lane)):
            return
        batch = self._batch(names, count)
        self._begin(claim, batch)
        if end == "dead" and len(batch) == 1:
            self._bury(claim, batch[0])
        elif end in ("dead", "apart"):
            self._take_apart(claim, batch)
        elif end in ("later", "at once"):
            self._postpone(claim, batch, counted=end == "later")
        else:
            self._settle(claim, batch, TurnState(end))

    def _begin(self, claim: LaneClaim, batch: list[str]) -> None:
        for _ in range(2):
            unknown = self.run(self.ledger.turns.begin(claim, *batch))
            assert unknown == (self.begun.get(batch[0], claim.fence) != claim.fence)
        with pytest.raises(IllegalStep):
            self.run(self.ledger.turns.begin(claim, *batch, "another"))
        self.begun.setdefault(batch[0], claim.fence)
        self._go_all(batch, TurnStep.BEGIN, TurnState.WRITING)

    def _go_all(self, batch: list[str], step: TurnStep, to: TurnState) -> None:
        for name in batch:
            self.lives[name].go_turn(step, to)

    def _bury(self, claim: LaneClaim, name: str) -> None:
        for _ in range(2):
            self.run(self.ledger.turns.bury(claim, name, "rejected", Fault.REQUEST, "test"))
        self.lives[name].go_turn(TurnStep.BURY, TurnState.DEAD)

    def _postpone(self, claim: LaneClaim, batch: list[str], *, counted: bool) -> None:
        for _ in range(2):
            self.run(
                self.ledger.turns.postpone(
                    claim, batch[0], 60, counted=counted, code="x", unknown_outcome=False
                )
            )
        self._put_back(claim, batch, TurnStep.RETRY if counted else TurnStep.SNOOZE)

    def _take_apart(self, claim: LaneClaim, batch: list[str]) -> None:
        for _ in range(2):
            self.run(
                self.ledger.turns.split_batch(claim, batch[0], 60, code="x", unknown_outcome=False)
            )
        self._put_back(claim, batch, TurnStep.RETRY)
        self.batches |= {name: [name] for name in batch}

    def _put_back(self, claim: LaneClaim, batch: list[str], step: TurnStep) -> None:
        self._go_all(batch, step, TurnState.PENDING)
        self.begun.pop(batch[0])
        self.stale_lanes.append(self.lanes.pop(claim.lane))

    def _settle(self, claim: LaneClaim, batch: list[str], end: TurnState) -> None:
        for _ in range(2):
            self.run(self.ledger.turns.settle(claim, batch[0], end, memory_ids=["m"]))
        self._go_all(batch, TurnStep.SETTLE, end)

    @rule(user=st.sampled_from(USERS))
    def let_go(self, user: str) -> None:
        claim = self.lanes.pop(lane_id(memory_key("default", user), 0), None)
        if claim is not None:
            self.run(self.ledger.turns.release_lane(claim))
            self.stale_lanes.append(claim)

    @rule(user=st.sampled_from(USERS))
    def lose_lane(self, user: str) -> None:
        """A writer lets its lease expire."""
        self.inspector.make_due(lane_id(memory_key("default", user), 0))

    @rule()
    def zombie_writer(self) -> None:
        for claim in self.stale_lanes:
            self._refused(self.ledger.turns.begin(claim, claim.turns[0].id))
            self._refused(self.ledger.turns.release_lane(claim))
            assert self.run(self.ledger.jobs.renew_leases([(claim.lane, claim.fence)])) == [
                claim.lane
            ]

    @rule(job_id=jobs)
    def replay(self, job_id: str) -> None:
        life = self.lives[job_id]
        if life.turn is TurnState.DEAD:
            letter, press = self._chosen(job_id), uuid.uuid4().hex
            if life.lane in self.erasing:
                assert (
                    self.run(self.ledger.dead_letters.replay(letter, press)) is ReplayOutcome.ERASED
                )
                return
            for _ in range(2):
                assert (
                    self.run(self.ledger.dead_letters.replay(letter, press))
                    is ReplayOutcome.WAITING
                )
            assert (
                self.run(self.ledger.dead_letters.replay(letter, "other")) is ReplayOutcome.REFUSED
            )
            life.go_turn(TurnStep.REPLAY, TurnState.PENDING)
        else:
            outcome = self.run(self.ledger.dead_letters.replay(self._chosen(job_id), "late"))
            assert outcome in (ReplayOutcome.REFUSED, ReplayOutcome.ERASED)

    @rule(job_id=jobs)
    def bury_by_hand(self, job_id: str) -> None:
        """An operator buries a turn that waits, alone, while nobody holds its lane."""
        life = self.lives[job_id]
        alone = all(job_id not in batch or len(batch) == 1 for batch in self.batches.values())
        held = self.inspector.redis.hexists(self.inspector.keys.fences, life.lane)
        if life.turn is TurnState.PENDING and alone and not held and life.lane not in self.erasing:
            for _ in range(2):
                self.run(self.ledger.dead_letters.bury(job_id))
            life.go_turn(TurnStep.BURY, TurnState.DEAD)
        elif life.turn is not TurnState.DEAD:
            with pytest.raises(IllegalStep):
                self.run(self.ledger.dead_letters.bury(job_id))

    @rule(job_id=jobs)
    def discard(self, job_id: str) -> None:
        life = self.lives[job_id]
        if life.turn is TurnState.DEAD:
            assert self.run(self.ledger.dead_letters.discard(self._chosen(job_id)))
            life.go_turn(TurnStep.DISCARD, TurnState.SKIPPED)

    def _chosen(self, job_id: str) -> DeadLetterRef:
        return DeadLetterRef(
            job_id, DeadLetterKind.MEMORY, int(self.inspector.job(job_id).get("replays", 0))
        )

    @rule(user=st.sampled_from(USERS))
    def ask_to_erase(self, user: str) -> None:
        """Request an erasure: writers are fenced, and later turns are kept."""
        lane = lane_id(memory_key("default", user), 0)
        self.run(self.ledger.erasures.begin(lane, "test"))
        if lane in self.erasing:
            return
        self.erasing[lane] = [name for name, life in self.lives.items() if life.lane == lane]
        if lane in self.lanes:
            self.stale_lanes.append(self.lanes.pop(lane))
        self.zombie_writer()

    @rule(user=st.sampled_from(USERS))
    def carry_out(self, user: str) -> None:
        """Erase to the end, if it was asked for."""
        while lane_id(memory_key("default", user), 0) in self.erasing:
            self.take_lane(user, most=1)

    def _erase(self, claim: LaneClaim | EraseClaim | None) -> None:
        assert isinstance(claim, EraseClaim)
        self.run(self.ledger.erasures.remove_records(claim))
        for name in self.erasing[claim.lane]:
            self._forget(name)
        for life in self.lives.values():
            life.told = life.told and life.lane != claim.lane
        done = claim.state is ErasureState.FORGOTTEN
        state = ErasureState.ERASED if done else ErasureState.FORGOTTEN
        for _ in range(2):
            self.run(self.ledger.erasures.advance(claim, state))
        if done:
            del self.erasing[claim.lane]

    def _forget(self, name: str) -> None:
        life = self.lives[name]
        if not life.state.terminal:
            life.go(JobStep.CANCEL, JobState.CANCELLED)
            life.go_turn(TurnStep.DROP, TurnState.NONE)
        if life.turn is not TurnState.NONE:
            life.go_turn(TurnStep.ERASE, TurnState.ERASED)
        if life.claim is not None:
            life.stale.append(life.claim)
        life.claim, life.talk, life.finals, life.erased = None, None, 0, True
        self.begun.pop(name, None)
        self.batches.pop(name, None)

    # -- an operator's orders

    @rule(kind=st.sampled_from(PAUSES), whom=st.sampled_from(WHOM))
    def pause(self, kind: OrderKind, whom: Whom) -> None:
        self.run(self.ledger.orders.give(kind, whom, {"by": "test"}))
        self.paused.add((kind, whom))

    @rule(kind=st.sampled_from(PAUSES), whom=st.sampled_from(WHOM))
    def resume(self, kind: OrderKind, whom: Whom) -> None:
        """Lift a pause: sweeps wake whatever waited for its end."""
        lifted = self.run(self.ledger.orders.lift(kind, whom))
        assert lifted == ((kind, whom) in self.paused)
        self.paused.discard((kind, whom))
        for _ in range(20):
            if not self.inspector.redis.exists(self.inspector.keys.ended_orders):
                break
            self.sweep()
        assert not self.inspector.redis.exists(self.inspector.keys.ended_orders)
        for name, life in self.lives.items():
            woken = life.state is JobState.QUEUED and not self._behind(name)
            if woken and not self._stopped(OrderKind.PAUSE_REPLIES, life.lane):
                assert not self._is_parked(name)

    def _is_parked(self, name: str) -> bool:
        """Return whether a job waits until an order ends."""
        keys, agenda = self.inspector.keys, self.inspector.job(name)["agenda"]
        at = self.inspector.redis.zscore(keys.place("waiting", agenda), name)
        parked = self.inspector.redis.scan_iter(keys.parked("*"))
        member = f"{agenda} {name}"
        return at is not None and any(
            self.inspector.redis.zscore(key, member) == at for key in parked
        )

    def _stopped(self, kind: OrderKind, lane: str) -> bool:
        """Return whether a pause concerns a user."""
        tenant, user = user_of(lane)
        return any(
            (kind, whom) in self.paused for whom in (Whom(), Whom(tenant), Whom(tenant, user))
        )

    # -- what must always hold

    @invariant()
    def records_agree(self) -> None:
        """Records and model agree, read at one moment."""
        records = self.inspector.look([*self.lives])
        self._nothing_erased_comes_back(records)
        self._states_agree(records)
        self._nothing_is_forgotten(records)
        self._conversations_keep_their_order(records)
        self._lanes_agree(records)
        self._one_final(records)

    def _nothing_erased_comes_back(self, records: Records) -> None:
        kept = {"version", "state", "turn", "tenant", "created", "ended", "deadline", "attempts"}
        for name, life in self.lives.items():
            if life.erased:
                assert set(records.jobs[name]) <= kept | {"code", "agenda"}

    def _states_agree(self, records: Records) -> None:
        for name, life in self.lives.items():
            record = records.jobs[name]
            assert record["state"] == life.state, name
            assert record["turn"] == life.turn, name
            assert int(record["attempts"]) == life.attempts

    def _nothing_is_forgotten(self, records: Records) -> None:
        """Each open job is in exactly one place where a sweep finds it (I1, I8)."""
        for name, life in self.lives.items():
            places = records.places.get(name, [])
            if life.state is JobState.QUEUED:
                assert places in (["hinted"], ["waiting"])
            elif life.state is JobState.RUNNING:
                assert places == ["leased"]
            else:
                assert places == []

    def _conversations_keep_their_order(self, records: Records) -> None:
        """Only the oldest open job of a conversation runs, and it is not set aside."""
        for user, talk in itertools.product(USERS, TALKS[1:]):
            names = self._open_in(lane_id(memory_key("default", user), 0), talk)
            for name in names[1:]:
                assert self.lives[name].state is JobState.QUEUED
                assert records.places.get(name) == ["waiting"]
            if names:
                assert "aside" not in records.jobs[names[0]]

    def _lanes_agree(self, records: Records) -> None:
        for user in USERS:
            lane = lane_id(memory_key("default", user), 0)
            assert self.inspector.lane(lane) == self._lane(lane)
            places = records.places.get(lane, [])
            assert len(places) <= 1
            if self._writable(lane):
                assert places, "a lane with work that nobody will ever look at"

    @invariant()
    def the_reconciler_finds_nothing(self) -> None:
        assert self.run(self._gaps()) == []

    async def _gaps(self) -> list[Inconsistency]:
        return [gap async for gap in self.ledger.maintenance.find_inconsistencies()]

    @invariant()
    def tallies_agree(self) -> None:
        expected: dict[str, int] = {}
        for life in self.lives.values():
            for name in (f"job:{life.state}:default", f"turn:{life.turn}:default"):
                expected[name] = expected.get(name, 0) + 1
        assert self.inspector.counts() == expected
        assert self.inspector.open_counts() == self.inspector.expected_open_counts()

    def _one_final(self, records: Records) -> None:
        """A job has at most one final event, and none after it (I2)."""
        for name, life in self.lives.items():
            kinds = records.events[name]
            assert kinds.count("final") == life.finals
            ends = [kind for kind in kinds if kind in ("final", "failed")]
            assert len(ends) == int(life.state.terminal and not life.erased)
            if ends:
                assert kinds[-1] == ends[0]

    def _refused(self, step: Coroutine[Any, Any, Any]) -> None:
        with pytest.raises(LeaseLost):
            self.run(step)


@pytest.mark.redis
@pytest.mark.slow  # a hundred walks of fifty steps: about half a minute of CPU
@pytest.mark.timeout(1200)
def test_scripts_and_model_agree(valkey: Valkey) -> None:
    Lives.url = valkey.url
    run_state_machine_as_test(
        Lives,
        settings=hypothesis_settings(
            max_examples=100,
            stateful_step_count=50,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
