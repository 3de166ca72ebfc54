"""The memory lane: replies go on without it, and each turn reaches mem0 once all the same."""

from __future__ import annotations

import json
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from afterword.producer import Job, Producer, Reply, TurnState
from afterword.workers.replies import prompt
from tests.kit.claude_api.wire_format import told
from tests.kit.waiting import wait_until
from tests.kit.workers.fleet import CANARY, MEMORY_FAULT_APP, Fleet, WorkerProcess
from tests.kit.workers.memory_faults import calls_hang

pytestmark = [pytest.mark.system, pytest.mark.redis, pytest.mark.slow]

BUDGET_MS = 2000
FACTS = (
    f"I live in Lisbon, {CANARY}.",
    f"My dog is called Pixel, {CANARY}.",
    f"I never eat mushrooms, {CANARY}.",
)
QUESTION = "What is a comfortable room temperature?"


class Lane:
    """A fleet and a producer, and what tests look at in both."""

    def __init__(self, fleet: Fleet, producer: Producer) -> None:
        self.fleet = fleet
        self.producer = producer

    def say(self, user: str, message: str, conversation: str | None = None) -> tuple[Job, Reply]:
        """Say something and wait for the reply."""
        job = self.producer.submit(
            user_id=user, message=message, conversation_id=conversation, tenant="t"
        )
        return job, job.wait(timeout=60)

    def last_prompt(self) -> str:
        """Return the last message of the last prompt."""
        return told(self.fleet.claude.requests()[-1]["body"])[-1]

    def rows(self, job: Job) -> int:
        """Return how many memories came from a turn."""
        path = self.fleet.data_dir / "memory" / "memories.sqlite"
        with closing(sqlite3.connect(path)) as sql:
            count = "SELECT count(*) FROM memories WHERE turn_id = ?"
            return int(sql.execute(count, (job.id,)).fetchone()[0])

    def settled(self, job: Job) -> TurnState:
        """Wait until nothing is left to do about a turn, and return how it ended."""
        wait_until(lambda: job.status().turn.settled, "the turn is settled", 30)
        return job.status().turn

    def writers(self) -> list[WorkerProcess]:
        """Return the memory workers that run."""
        return [one for one in self.fleet.workers if one.kind == "memories" and one.runs]


@dataclass(frozen=True)
class Outage:
    """What happened while no memory worker ran, and after one came back."""

    jobs: list[Job]
    replies: list[Reply]
    question: Job
    reply: Reply
    prompt: str
    waiting: list[TurnState]


@pytest.fixture(scope="module")
def lane() -> Iterator[Lane]:
    with Fleet() as fleet:
        fleet.start("responses", app=MEMORY_FAULT_APP)
        with Producer(fleet.settings) as producer:
            yield Lane(fleet, producer)


@pytest.fixture
def impatient() -> Iterator[Lane]:
    """Give a fleet whose replies do not wait long for memory."""
    with Fleet(AFTERWORD_RECALL_BUDGET_MS=str(BUDGET_MS)) as fleet:
        fleet.start("responses", "memories", app=MEMORY_FAULT_APP)
        with Producer(fleet.settings) as producer:
            yield Lane(fleet, producer)


@pytest.fixture(scope="module", autouse=True)
def outage(lane: Lane) -> Outage:
    """Say what is to be remembered before there is a memory worker; then start one."""
    said = [lane.say("ann", fact) for fact in FACTS]
    question, reply = lane.say("ann", QUESTION)
    asked = lane.last_prompt()
    waiting = [job.status().turn for job, _ in said]
    lane.fleet.start("memories", app=MEMORY_FAULT_APP)
    return Outage(
        [job for job, _ in said], [reply for _, reply in said], question, reply, asked, waiting
    )


def test_without_memory_workers_the_next_prompt_holds_what_was_just_said(outage: Outage) -> None:
    assert outage.waiting == [TurnState.PENDING] * 3
    lines = outage.prompt.splitlines()
    places = [next(at for at, line in enumerate(lines) if fact in line) for fact in FACTS]
    assert places == sorted(places), "oldest first"
    assert [reply.memory for reply in outage.replies] == ["fresh", "overlay", "overlay"]
    assert (outage.reply.memory, outage.reply.memories) == ("overlay", ())


def test_the_lane_drains_when_a_memory_worker_comes_back(lane: Lane, outage: Outage) -> None:
    assert [lane.settled(job) for job in outage.jobs] == [TurnState.STORED] * 3
    assert [lane.rows(job) for job in outage.jobs] == [1, 1, 1]
    assert lane.settled(outage.question) is TurnState.SKIPPED
    assert outage.question.status().turn_code == "question_only"
    assert lane.rows(outage.question) == 0


def test_an_overlay_becomes_a_memory_once_it_is_stored(lane: Lane, outage: Outage) -> None:
    for job in (*outage.jobs, outage.question):
        lane.settled(job)
    _, reply = lane.say("ann", "What is my dog called?")
    assert reply.memory == "fresh"
    assert FACTS[1] in {memory.text for memory in reply.memories}
    assert lane.last_prompt().count(FACTS[1]) == 1


def test_a_turn_of_the_same_conversation_is_told_once(lane: Lane) -> None:
    with calls_hang(lane.fleet.data_dir, "add"):
        fact = f"My sister is Zoe, {CANARY}."
        lane.say("eve", fact, "talk")
        job, reply = lane.say("eve", "What is her name?", "talk")
        texts = told(lane.fleet.claude.requests()[-1]["body"])
        assert texts.count(fact) == 1, "in the history"
        assert fact not in texts[-1], "and not laid over it"
        assert reply.memory == "overlay"
    lane.settled(job)


def test_a_search_that_hangs_costs_a_reply_its_budget_and_no_more(impatient: Lane) -> None:
    lane = impatient
    job, _ = lane.say("dan", f"I am vegan, {CANARY}.")
    assert lane.settled(job) is TurnState.STORED

    def works() -> bool:
        return lane.say("dan", "What do I eat?")[1].memory == "fresh"

    wait_until(works, "memory works", 20)
    with calls_hang(lane.fleet.data_dir, "search"):
        _, hung = lane.say("dan", QUESTION)
        assert (hung.memory, hung.memories) == ("degraded", ())
        assert prompt.UNAVAILABLE in lane.last_prompt()
        assert hung.timings_ms.recall >= BUDGET_MS  # and the search hangs still
        # Misses soon after a success of the same worker do not count; five others shut the gate.
        later = [lane.say("dan", QUESTION)[1] for _ in range(8)]
        assert {reply.memory for reply in later} == {"degraded"}
        assert later[-1].timings_ms.recall < BUDGET_MS, "nobody waits for it any more"
    wait_until(works, "memory is back", 20)


def test_a_turn_is_stored_once_though_its_writer_was_killed_before_it_could_say_so(
    lane: Lane,
) -> None:
    with calls_hang(lane.fleet.data_dir, "find"):
        job, _ = lane.say("kim", f"I play the harp, {CANARY}.")
        wait_until(lambda: lane.rows(job) == 1, "it is written", 20)
        assert job.status().turn is TurnState.WRITING
        for writer in lane.writers():
            writer.kill()
    lane.fleet.start("memories", app=MEMORY_FAULT_APP)
    assert lane.settled(job) is TurnState.STORED
    assert lane.rows(job) == 1


def test_a_turn_is_stored_once_though_its_writer_slept_through_its_lease(lane: Lane) -> None:
    [sleeper] = lane.writers()
    with calls_hang(lane.fleet.data_dir, "add") as hangs:
        job, _ = lane.say("lee", f"I speak Welsh, {CANARY}.")
        wait_until(hangs, "it is being written", 20)
        sleeper.send(signal.SIGSTOP)
    # Not before: the turn would be this one's.
    lane.fleet.start("memories", app=MEMORY_FAULT_APP)
    assert lane.settled(job) is TurnState.STORED
    sleeper.send(signal.SIGCONT)
    wait_until(lambda: "lane lost" in sleeper.log, "the sleeper finds out", 20)
    assert (lane.rows(job), job.status().turn) == (1, TurnState.STORED)
    assert sleeper.stop() == 0


def test_a_message_is_remembered_with_the_time_at_which_it_was_said(lane: Lane) -> None:
    said = datetime(2021, 5, 8, 8, 0, tzinfo=UTC)
    job = lane.producer.submit(
        user_id="joy", message=f"My bike is red, {CANARY}.", tenant="t", at=said
    )
    assert lane.settled(job) is TurnState.STORED

    reply = lane.producer.submit(
        user_id="joy", message="Which bike do I have?", tenant="t", timezone="Asia/Tokyo"
    ).wait(timeout=60)

    assert [memory.created_at for memory in reply.memories] == [said]
    assert "<08 May 2021, turn" in lane.last_prompt()
    assert "Today is " in lane.last_prompt()


def test_past_conversations_are_imported_and_known(lane: Lane, tmp_path: Path) -> None:
    said = {"user_id": "lea", "tenant": "t", "at": "2021-05-08T08:00:00Z", "reply": "Nice."}
    texts = (f"My boat is blue, {CANARY}.", "Thanks!", "What is a boat?")
    file = tmp_path / "history.jsonl"
    file.write_text("".join(f"{json.dumps(said | {'message': text})}\n" for text in texts))

    for counts in ({"imported": 3, "known": 0}, {"imported": 0, "known": 3}):
        done = lane.fleet.afterword("import", str(file), "--json")
        assert json.loads(done.stdout) == counts | {"erased": 0}
        assert "3 turns" in done.stderr
        assert CANARY not in done.stdout + done.stderr

    def settled() -> bool:
        counts = lane.fleet.afterword("account", "--tenant", "t", "--json").stdout
        turns = json.loads(counts)["total"]["turns"]
        return not turns.get("pending", 0) and not turns.get("writing", 0)

    wait_until(settled, "all is stored", 30, every_s=0.5)
    reply = lane.producer.submit(
        user_id="lea", message="Which colour is my boat?", tenant="t"
    ).wait(timeout=60)
    assert [memory.text for memory in reply.memories] == [texts[0]], "the others say nothing"
    assert [str(memory.created_at) for memory in reply.memories] == ["2021-05-08 08:00:00+00:00"]
