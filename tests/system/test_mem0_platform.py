"""Real workers on mem0's platform: turns are recalled, and stored once under all failures."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from afterword.producer import Job, Producer, Reply, TurnState
from afterword.shared.names import lane_id, memory_key
from tests.kit.claude_api.wire_format import told
from tests.kit.ledger.builder import LedgerInspector
from tests.kit.mem0_api.process import Mem0Process
from tests.kit.mem0_api.scripted_answers import Mem0Answer
from tests.kit.mem0_api.server import KEY
from tests.kit.servers.scripted_http_server import Cue
from tests.kit.waiting import wait_until
from tests.kit.workers.fleet import CANARY, Fleet, WorkerProcess

pytestmark = [pytest.mark.system, pytest.mark.redis, pytest.mark.slow]

QUESTION = "What is a comfortable room temperature, in Celsius?"


class Town:
    """A fleet on the platform, a producer, and what the tests check in both."""

    def __init__(self, fleet: Fleet, mem0: Mem0Process, producer: Producer) -> None:
        self.fleet = fleet
        self.mem0 = mem0
        self.producer = producer

    def say(self, user: str, message: str) -> tuple[Job, Reply]:
        """Submit a message and wait for the reply."""
        job = self.producer.submit(user_id=user, message=message)
        return job, job.wait(timeout=60)

    def settled(self, job: Job) -> TurnState:
        """Wait until a turn has ended, and return how."""
        wait_until(lambda: job.status().turn.settled, "the turn is settled", 40)
        return job.status().turn

    def last_prompt(self) -> str:
        """Return the text of Claude's last request."""
        return "\n".join(told(self.fleet.claude.requests()[-1]["body"]))

    def writer(self) -> WorkerProcess:
        """Return the one memory worker that runs."""
        [writer] = [one for one in self.fleet.workers if one.kind == "memories" and one.runs]
        return writer

    def waits_for(self, verb: str, count: int = 1) -> None:
        """Wait until an answer to this kind of request is being held back."""
        wait_until(lambda: self.mem0.held == count, f"a held {verb}", 30)

    def stored_once(self, job: Job) -> None:
        """Fail unless a turn is stored, as one memory."""
        assert self.settled(job) is TurnState.STORED
        assert len(self.mem0.rows(job.id)) == 1


@pytest.fixture(scope="module")
def town() -> Iterator[Town]:
    with (
        Mem0Process() as mem0,
        Fleet(
            AFTERWORD_MEMORY="hosted",
            AFTERWORD_VISIBLE_S="0.5",
            AFTERWORD_PENDING_S="3",
            AFTERWORD_LEASE_S="20",
            MEM0_API_KEY=KEY,
            MEM0_HOST=mem0.url,
        ) as fleet,
        Producer(fleet.settings) as producer,
    ):
        fleet.start("responses", "memories")
        yield Town(fleet, mem0, producer)


@pytest.fixture
def inspector(town: Town) -> Iterator[LedgerInspector]:
    opened = LedgerInspector(town.fleet.settings)
    yield opened
    opened.redis.close()


@pytest.fixture(autouse=True)
def _calm(town: Town) -> Iterator[None]:
    yield
    town.mem0.order(calm=True, release=None, failing=0, half=False, works_s=0.05)


def lane_of(user: str) -> str:
    return lane_id(memory_key("default", user), 0)


def test_a_memory_is_recalled_after_mem0_has_processed_it(town: Town) -> None:
    job, _ = town.say("ann", "I prefer Celsius.")
    town.stored_once(job)
    assert town.mem0.seen("event"), "an add is only accepted, and asked after then"
    question, reply = town.say("ann", QUESTION)
    assert reply.memory == "fresh"
    assert [memory.text for memory in reply.memories] == ["I prefer Celsius."]
    assert "I prefer Celsius." in town.last_prompt()
    assert town.settled(question) is TurnState.SKIPPED
    assert question.status().turn_code == "question_only"
    assert not town.mem0.seen("ping"), "nothing blocks a start"


@pytest.mark.parametrize("half", [False, True], ids=["nothing", "half"])
def test_an_event_that_failed_is_looked_for_and_stored_once(town: Town, half: bool) -> None:
    town.mem0.order(failing=1, half=half)
    job, _ = town.say(f"bob-{half}", f"I like tea, {CANARY}.")
    town.stored_once(job)
    assert len(town.mem0.adds(job.id)) == (1 if half else 2)
    assert town.mem0.seen("get_all")[-1]["body"]["filters"]["AND"][1]["metadata"] == {
        "turn_id": job.id
    }


def test_turns_that_wait_while_one_is_stored_go_into_few_adds(town: Town) -> None:
    texts = [f"I have read {n} books, {CANARY}." for n in range(8)]
    town.mem0.will_answer(Mem0Answer(verb="add", cue=Cue.HOLD, done=True))
    said = [town.say("kim", texts[0])[0]]
    town.waits_for("add")
    said += [town.say("kim", text)[0] for text in texts[1:]]
    town.mem0.release()
    assert {town.settled(job) for job in said} == {TurnState.STORED}
    rows = [row["memory"] for row in town.mem0.order()["rows"]]
    assert [text for text in rows if text in texts] == texts, "each once, in their order"
    assert sum(len(town.mem0.adds(job.id)) for job in said) <= len(said) / 2


def test_an_event_that_mem0_forgot_is_looked_for(town: Town) -> None:
    town.mem0.will_answer(Mem0Answer(verb="event", status=404))
    job, _ = town.say("cat", f"I like milk, {CANARY}.")
    town.stored_once(job)
    assert len(town.mem0.adds(job.id)) == 1


@pytest.mark.finding(24)
def test_an_event_that_never_ends_is_waited_for_until_mem0_forgets_it(town: Town) -> None:
    town.mem0.order(works_s=3600)
    job, _ = town.say("dan", f"I like hills, {CANARY}.")
    wait_until(lambda: job.status().turn_code == "pending_too_long", "mem0 counts as out", 40)
    assert len(town.mem0.adds(job.id)) == 1
    town.mem0.order(works_s=0.05, forget_events=True)
    town.stored_once(job)
    assert len(town.mem0.adds(job.id)) == 2


@pytest.mark.parametrize(
    "play",
    [
        Mem0Answer(verb="add", status=504, done=True),
        Mem0Answer(verb="add", cue=Cue.CLOSE, done=True),
    ],
    ids=["504", "cut"],
)
def test_an_add_whose_answer_was_lost_is_found(town: Town, play: Mem0Answer) -> None:
    town.mem0.will_answer(play)
    job, _ = town.say(f"eve-{play.status}", f"I like rain, {CANARY}.")
    town.stored_once(job)
    assert len(town.mem0.adds(job.id)) == 1


def test_a_writer_killed_after_mem0_accepted_leaves_an_event_to_follow(
    town: Town, inspector: LedgerInspector
) -> None:
    town.mem0.will_answer(Mem0Answer(verb="event", cue=Cue.HOLD, done=True))
    job, _ = town.say("fay", f"I like snow, {CANARY}.")
    town.waits_for("event")
    town.writer().kill()
    inspector.make_due(lane_of("fay"))
    town.fleet.start("memories")
    town.stored_once(job)
    assert len(town.mem0.adds(job.id)) == 1


def test_replies_go_on_while_mem0_is_down_and_the_lane_drains_later(
    town: Town, inspector: LedgerInspector
) -> None:
    town.mem0.will_answer(Mem0Answer(status=503, times=None))
    texts = [f"I like the number {n}, {CANARY}." for n in range(3)]
    said = [town.say("gil", text) for text in texts]
    assert {reply.memory for _, reply in said} == {"degraded"}
    assert {job.status().turn for job, _ in said} <= {TurnState.PENDING, TurnState.WRITING}
    wait_until(lambda: inspector.places(lane_of("gil")) != [], "the lane waits")
    town.mem0.calm()
    assert [town.settled(job) for job, _ in said] == [TurnState.STORED] * 3
    kept = [row["memory"] for row in town.mem0.order()["rows"]]
    assert [text for text in kept if text in texts] == texts, "each once, in their order"
    assert [job.status().attempts for job, _ in said] == [1, 1, 1]


def test_a_memory_of_another_user_never_reaches_claude(town: Town) -> None:
    foreign = f"Zed hides gold under the stairs, {CANARY}."
    row = {"id": "z", "memory": foreign, "user_id": memory_key("default", "zed"), "score": 1.0}
    job, _ = town.say("hal", "I prefer Kelvin.")
    town.stored_once(job)
    town.mem0.plant(memory_key("default", "hal"), row | {"metadata": None})
    _, reply = town.say("hal", "Which scale do I prefer, Kelvin?")
    assert [memory.text for memory in reply.memories] == ["I prefer Kelvin."]
    assert not [one for one in town.fleet.claude.requests() if "stairs" in str(one["body"])]
    log = "".join(one.log for one in town.fleet.workers).splitlines()
    alarms = [line for line in log if "1 memory of another user; dropped [job_id=j00_" in line]
    assert alarms
    assert all("ERROR" in line for line in alarms)


def test_a_duplicate_of_a_paused_writer_is_removed(town: Town, inspector: LedgerInspector) -> None:
    town.mem0.will_answer(
        Mem0Answer(verb="add", status=504), Mem0Answer(verb="get_all", cue=Cue.HOLD, done=True)
    )
    job, _ = town.say("ida", f"I like figs, {CANARY}.")
    town.waits_for("get_all")
    sleeper = town.writer()
    sleeper.send(signal.SIGSTOP)
    town.mem0.release()
    town.fleet.start("memories")
    inspector.make_due(lane_of("ida"))
    town.stored_once(job)
    sleeper.send(signal.SIGCONT)
    wait_until(lambda: len(town.mem0.rows(job.id)) == 2, "it is stored twice", 20)
    inspector.make_repairs_due()
    wait_until(lambda: len(town.mem0.rows(job.id)) == 1, "it is stored once again", 20)
    [kept] = town.mem0.rows(job.id)
    assert inspector.job(job.id)["memory_ids"] == f'["{kept["id"]}"]'
    wait_until(lambda: inspector.repairs() == [], "nothing is left to repair")
    assert "lane lost" in sleeper.log
    sleeper.stop()
