"""Outages with real workers: nobody's attempt is spent, and everything goes on by itself."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator, Sequence

import pytest

from afterword.producer import Job, Producer, Reply, TurnState
from afterword.shared.clock import utc_now
from afterword.shared.errors import Fault
from afterword.shared.ledger.ledger import Ledger
from afterword.shared.ledger.records import CallOutcome, CallReport, Gate, GateState
from tests.kit.claude_api.scripted_answers import ClaudeAnswer
from tests.kit.waiting import wait_until
from tests.kit.workers.fleet import CANARY, FAST_REPAIR_APP, Fleet, WorkerProcess
from tests.kit.workers.memory_faults import calls_find_nobody

pytestmark = [pytest.mark.system, pytest.mark.redis, pytest.mark.slow]

MANY = 40
BUDGET_MS = 10_000
PREFERRED = "preferred"
STAND_IN = "stand-in"
GATE = f"claude/{PREFERRED}"
OPEN = Gate(GATE, GateState.OPEN, "", Fault.PROVIDER, utc_now(), utc_now())


class Duty:
    """A fleet of three processes and a producer; calls are counted per model."""

    def __init__(self, fleet: Fleet, producer: Producer) -> None:
        self.fleet = fleet
        self.producer = producer

    def submit(self, count: int) -> list[Job]:
        """Submit jobs of different users."""
        return [
            self.producer.submit(user_id=f"user-{number}", message=f"Hello, {CANARY}!")
            for number in range(count)
        ]

    def calls(self) -> int:
        """Return how often Claude was asked since the stand-in was last told to forget."""
        return len(self.fleet.claude.requests())

    def drained(self, jobs: list[Job]) -> list[Reply]:
        """Wait for all replies."""
        return [job.wait(timeout=60) for job in jobs]

    def gates(self) -> dict[str, Gate]:
        """Return the gates that are not open."""
        return {gate.name: gate for gate in asyncio.run(self._gates())}

    async def _gates(self) -> Sequence[Gate]:
        async with Ledger(self.fleet.settings, patience_s=5.0) as ledger:
            return await ledger.gates.not_open()

    async def shut(self, name: str, code: str) -> None:
        """Shut a gate for a second, as a worker that met an error of the operator's."""
        report = CallReport(CallOutcome.SHUT, code, Fault.OPERATOR, pause_s=1)
        async with Ledger(self.fleet.settings, patience_s=5.0) as ledger:
            await ledger.gates.report_outcome(name, "gone", report)

    def shut_s(self, name: str) -> float:
        """Return for how long a gate has been and is to be shut."""
        gate = self.gates().get(name)
        return (gate.until - gate.since).total_seconds() if gate and gate.until else 0.0

    def responders(self) -> list[WorkerProcess]:
        """Return the response workers that run."""
        return [one for one in self.fleet.workers if one.kind == "responses" and one.runs]

    def lines(self, text: str) -> list[str]:
        """Return the lines with that text in all logs."""
        return [
            line
            for worker in self.fleet.workers
            for line in worker.log.splitlines()
            if text in line
        ]


@pytest.fixture(scope="module")
def on_duty() -> Iterator[Duty]:
    # Times that also a busy machine keeps: an attempt that is not counted must not be lost to them.
    times = {"AFTERWORD_LEASE_S": "10", "AFTERWORD_RECALL_BUDGET_MS": str(BUDGET_MS)}
    with Fleet(**times, AFTERWORD_MODEL=PREFERRED) as fleet:
        fleet.start("responses", "responses", "memories", app=FAST_REPAIR_APP)
        with Producer(fleet.settings) as producer:
            yield Duty(fleet, producer)


@pytest.fixture
def duty(on_duty: Duty) -> Duty:
    """Give the fleet with all gates open and no script to play."""
    on_duty.fleet.claude.forget()
    with on_duty.fleet.valkey.client() as client:
        for key in client.scan_iter("*:gate*"):
            client.delete(key)
    return on_duty


def test_an_overloaded_claude_costs_time_and_nothing_else(duty: Duty) -> None:
    duty.fleet.claude.will_answer(ClaudeAnswer(status=529, times=None))
    jobs = duty.submit(MANY)
    wait_until(lambda: all(job.status().code for job in jobs), "all jobs wait", 40)
    met = duty.calls()
    wait_until(lambda: duty.shut_s(GATE) > 12, "it lasts", 40)
    assert duty.calls() - met <= 5, "canaries alone"
    assert met <= MANY + 8
    gate = duty.gates()[GATE]
    assert (gate.state, gate.code, gate.fault) == ("shut", "overloaded", "provider")

    duty.fleet.claude.forget()
    replies = duty.drained(jobs)
    assert {reply.attempts for reply in replies} == {1}
    assert duty.calls() == MANY, "nobody was asked twice"


def test_a_revoked_key_pauses_all_says_so_once_and_goes_on_when_mended(duty: Duty) -> None:
    duty.fleet.claude.will_answer(ClaudeAnswer(status=401, times=None))
    jobs = duty.submit(MANY)
    wait_until(lambda: all(job.status().code == "key_refused" for job in jobs), "all wait", 30)
    assert len(duty.lines(f"gate {GATE} is shut: key_refused (operator)")) == 1
    examined = duty.fleet.afterword("doctor", code=1).stdout
    assert f"FAIL  gates: {GATE} is shut since" in examined
    assert "key_refused (operator)" in duty.fleet.afterword("status").stdout
    # One of them is tried now and then.
    wait_until(lambda: {job.status().state for job in jobs} == {"queued"}, "all are queued")

    duty.fleet.claude.forget()
    assert {reply.attempts for reply in duty.drained(jobs)} == {1}


def test_another_process_is_the_canary_once_the_first_was_killed(duty: Duty) -> None:
    duty.fleet.claude.will_answer(ClaudeAnswer(status=529, times=5))
    duty.fleet.claude.will_answer(ClaudeAnswer(hold=True))
    jobs = duty.submit(MANY)
    wait_until(lambda: duty.fleet.claude.held() == 1, "the canary is asked", 30)
    for worker in duty.responders():
        worker.kill()
    duty.fleet.start("responses", "responses", app=FAST_REPAIR_APP)
    duty.fleet.claude.forget()
    assert len(duty.drained(jobs)) == MANY
    assert {job.status().attempts for job in jobs} <= {1, 2}


def test_recall_is_not_asked_once_its_gate_is_shut(duty: Duty) -> None:
    with calls_find_nobody(duty.fleet.data_dir, "search"):
        replies = duty.drained(duty.submit(MANY))
        assert {reply.memory for reply in replies} == {"degraded"}
        wait_until(lambda: "recall" in duty.gates(), "the gate is shut")
        failures = len(duty.lines("recall failed"))
        later = duty.drained(duty.submit(MANY))
        assert {reply.memory for reply in later} == {"degraded"}
        assert max(reply.timings_ms.recall for reply in later) < BUDGET_MS, "nobody waits for it"
        assert len(duty.lines("recall failed")) - failures <= 5, "canaries alone"

    def fresh() -> bool:
        [reply] = duty.drained(duty.submit(1))
        return reply.memory in ("fresh", "overlay")

    wait_until(fresh, "memory is back", 40)


@pytest.mark.finding(23)
def test_a_gate_that_was_shut_before_the_workers_started_opens_without_a_job(duty: Duty) -> None:
    for worker in duty.responders():
        worker.kill()
    asyncio.run(duty.shut(GATE, "key_refused"))
    assert f"FAIL  gates: {GATE}" in duty.fleet.afterword("doctor", code=1).stdout
    duty.fleet.start("responses", "responses", app=FAST_REPAIR_APP)
    wait_until(lambda: duty.gates().get(GATE, OPEN).state != "shut", "an idle worker asked", 40)

    wait_until(lambda: duty.lines(f"gate {GATE} opens"), "it is told")
    assert "FAIL  gates" not in duty.fleet.afterword("doctor").stdout
    [reply] = duty.drained(duty.submit(1))
    assert reply.attempts == 1


def test_turns_wait_for_mem0_and_none_is_buried(duty: Duty) -> None:
    with calls_find_nobody(duty.fleet.data_dir, "add"):
        jobs = [
            duty.producer.submit(user_id=f"user-{number}", message=f"I like {CANARY} {number}.")
            for number in range(MANY)
        ]
        duty.drained(jobs)
        wait_until(lambda: duty.lines("gate remember is shut"), "the gate is shut", 30)
    wait_until(
        lambda: {job.status().turn for job in jobs} == {TurnState.STORED}, "all is stored", 60
    )
    assert duty.fleet.afterword("dead", "list", "--json").stdout.strip() == "[]"


def test_another_model_stands_in_and_the_reply_says_so(duty: Duty) -> None:
    others = duty.responders()
    [relay] = duty.fleet.start("responses", app=FAST_REPAIR_APP, AFTERWORD_FALLBACK_MODELS=STAND_IN)
    duty.fleet.claude.will_answer(ClaudeAnswer(status=529, times=None, match=f'"{PREFERRED}"'))
    for worker in others:
        worker.send(signal.SIGSTOP)
    try:
        replies = duty.drained(duty.submit(MANY))
    finally:
        for worker in others:
            worker.send(signal.SIGCONT)
        relay.stop()

    assert {(reply.model, reply.attempts) for reply in replies} == {(STAND_IN, 1)}
    asked = [one["body"]["model"] for one in duty.fleet.claude.requests()]
    assert asked.count(STAND_IN) == MANY
