"""Dead letters at the command line, against real workers: looking, replaying, being killed."""

from __future__ import annotations

import json
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from afterword.producer import Job, JobFailed, Operator, Producer, ReplayState, Reply, TurnState
from tests.conftest import ROOT
from tests.kit.claude_api.scripted_answers import ClaudeAnswer
from tests.kit.claude_api.wire_format import told
from tests.kit.ledger.builder import LedgerInspector
from tests.kit.servers.fork_server import COMMAND
from tests.kit.waiting import wait_until
from tests.kit.workers.fleet import CANARY, MEMORY_FAULT_APP, Fleet
from tests.kit.workers.memory_faults import calls_are_rejected, calls_hang
from tests.packaging.blocks import examples

pytestmark = [pytest.mark.system, pytest.mark.redis, pytest.mark.slow]

SETTLED_S = 30
SHOWN = examples(ROOT / "docs/reference/json.md")
SLOW = ("--apply", "--canary", "0", "--rate", "0.4")


@pytest.fixture(scope="module")
def crew() -> Iterator[Fleet]:
    with Fleet() as fleet:
        fleet.start("responses", "memories", app=MEMORY_FAULT_APP)
        yield fleet


@pytest.fixture
def producer(crew: Fleet) -> Iterator[Producer]:
    with Producer(crew.settings) as producer:
        yield producer


@pytest.fixture
def fleet(crew: Fleet) -> Iterator[Fleet]:
    """Give the fleet; leave no letter to other tests."""
    crew.claude.forget()
    yield crew
    crew.afterword("dead", "discard", "--all", "--apply")


@pytest.fixture
def letters(fleet: Fleet, producer: Producer) -> list[Job]:
    """Give the turns of five users that could not be stored."""
    with calls_are_rejected(fleet.data_dir, "add"):
        jobs = [
            producer.submit(user_id=f"u{number}", message=f"I keep {number} {CANARY} birds.")
            for number in range(5)
        ]
        for job in jobs:
            becomes(job, TurnState.DEAD)
    return jobs


def becomes(job: Job, turn: TurnState) -> None:
    wait_until(lambda: job.status().turn is turn, f"the turn is {turn}", SETTLED_S)


def rows(fleet: Fleet, job: Job) -> int:
    """Return how many memories came from a turn."""
    with closing(sqlite3.connect(fleet.data_dir / "memory" / "memories.sqlite")) as sql:
        count = "SELECT count(*) FROM memories WHERE turn_id = ?"
        return int(sql.execute(count, (job.id,)).fetchone()[0])


def listed(fleet: Fleet, *filters: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(
        fleet.afterword("dead", "list", *filters, "--json").stdout
    )
    return found


def replays(fleet: Fleet, jobs: list[Job]) -> list[int]:
    """Return how often each turn was put back into its lane."""
    inspector = LedgerInspector(fleet.settings)
    try:
        return [int(inspector.job(job.id).get("replays", 0)) for job in jobs]
    finally:
        inspector.redis.close()


def begun(fleet: Fleet, looked_at: int) -> str:
    """Wait until the newest run is so far, and return it."""
    with Operator(fleet.settings) as operator:

        def run() -> str:
            newest = operator.replay_runs(1)
            far = newest and newest[0].state is ReplayState.RUNNING
            return (
                newest[0].id if far and newest[0].dead_letters - newest[0].left >= looked_at else ""
            )

        return wait_until(run, "the run is half way", SETTLED_S)


# --- looking


def test_letters_are_listed_and_exported_without_and_shown_with_their_content(
    fleet: Fleet, letters: list[Job]
) -> None:
    shown = fleet.afterword("dead", "list").stdout
    exported = fleet.afterword("dead", "export").stdout
    found = listed(fleet)
    assert {row["id"] for row in found} == {job.id for job in letters}
    assert [json.loads(line) for line in exported.splitlines()] == found
    assert CANARY not in shown + exported + json.dumps(found)
    whole = json.loads(fleet.afterword("dead", "show", found[0]["id"], "--json").stdout)
    unsaid = {"message": None, "reply": None}
    assert whole | unsaid == found[0]
    assert whole.keys() == found[0].keys() == SHOWN["Dead letter"].keys()
    assert CANARY in whole["message"]
    assert CANARY in fleet.afterword("dead", "export", "--with-content", "--limit", "1").stdout


def test_every_command_takes_the_same_filters(fleet: Fleet, letters: list[Job]) -> None:
    one = ("--user", "u3", "--kind", "memory", "--fault", "request", "--code", "REJECTED")
    assert [row["id"] for row in listed(fleet, *one)] == [letters[3].id]
    assert listed(fleet, "--user", "u") == []
    assert listed(fleet, "--tenant", "another") == []
    assert {row["fault"] for row in listed(fleet)} == {"request"}, "it is shown as it is asked for"
    plan = json.loads(fleet.afterword("dead", "replay", *one, "--json").stdout)
    assert plan.keys() == {*SHOWN["Replay run"], "plan"}
    assert (plan["state"], plan["left"], plan["filter"]["fault"]) == ("dry", 1, "request")
    assert (plan["plan"]["turns"], plan["plan"]["estimate"]["cost_usd"]) == (1, 0)
    dry = json.loads(fleet.afterword("dead", "discard", *one, "--json").stdout)
    assert dry == {"state": "dry", "dead_letters": 1, "discarded": 0, "refused": 0}
    assert len(listed(fleet)) == 5, "both were dry"


@pytest.mark.parametrize(
    ("command", "field"),
    [
        ("replay", "--all"),
        ("discard", "--all"),
        ("replay --all --rate 0", "--rate"),
        ("replay --all --canary -1", "--canary"),
        ("replay --all --stall-timeout 0", "--stall-timeout"),
        ("list --limit 0", "--limit"),
        ("list --since yesterday", "--since"),
        ("list --older-than soon", "--older-than"),
        ("list --fault nobody", "--fault"),
        ("list --user=", "--user"),
    ],
)
def test_bad_input_names_the_field(crew: Fleet, command: str, field: str) -> None:
    assert field in crew.afterword("dead", *command.split(), code=2).stderr


def test_an_unknown_id_gives_exit_code_2(crew: Fleet) -> None:
    for command in ("resume", "abort", "runs"):
        assert "r0" in crew.afterword("dead", command, "r0", code=2).stderr
    for command in ("dead show", "dead replay", "dead discard", "status"):
        for name in ("nothing", f"j00_{1:032x}"):
            assert name in crew.afterword(*command.split(), name, code=2).stderr


# --- replaying


def test_a_run_stores_each_turn_once_and_the_audit_knows_who(
    fleet: Fleet, letters: list[Job]
) -> None:
    assert "Add --apply" in fleet.afterword("dead", "replay", "--all").stdout
    assert replays(fleet, letters) == [0] * 5
    said = fleet.afterword("dead", "replay", "--all", "--apply", "--by", "olga", "--json").stdout
    run = json.loads(said)
    assert run.keys() == {*SHOWN["Replay run"], "plan"}
    assert (run["state"], run["left"], run["outcomes"]) == ("done", 0, {"stored": 5})
    runs = json.loads(fleet.afterword("dead", "runs", "--json").stdout)
    assert {**runs[0], "plan": run["plan"]} == {**run, "updated_at": runs[0]["updated_at"]}
    assert [rows(fleet, job) for job in letters] == [1] * 5
    assert listed(fleet) == []
    audit_entries = json.loads(fleet.afterword("audit", "--json").stdout)[:2]
    assert [one.keys() for one in audit_entries] == [SHOWN["Audit entry"].keys()] * 2
    assert [(one["action"], one["by"], one["run_id"]) for one in audit_entries] == [
        ("done", "olga", run["id"]),
        ("replay", "olga", run["id"]),
    ]


def test_a_replay_says_what_holds_it_up(fleet: Fleet, letters: list[Job]) -> None:
    replay = ("dead", "replay", letters[0].id)
    assert "held up by" not in fleet.afterword(*replay).stdout
    fleet.afterword("gate", "shut", "remember", "--reason", "mem0 migrates", "--apply")
    held_up = "gates: remember is shut since"
    assert f"held up by:   {held_up}" in fleet.afterword(*replay).stdout
    ran = fleet.afterword(*replay, "--apply", "--stall-timeout", "6s", code=1)
    assert f"held up by:   {held_up}" in ran.stdout
    assert ran.stderr.count(f"held up by {held_up}") == 1
    assert "  -> Open it if the reason is gone: afterword gate open remember --apply" in ran.stderr
    assert "The canary did not settle in time" in ran.stderr
    fleet.afterword("gate", "open", "remember", "--apply")
    becomes(letters[0], TurnState.STORED)


def test_a_filter_that_matches_nothing_says_so(crew: Fleet) -> None:
    for apply in ((), ("--apply",)):
        ran = crew.afterword("dead", "replay", "--user", "nobody", *apply)
        assert (ran.stdout, ran.stderr) == ("nothing to replay: no dead letter matches\n", "")


def test_a_canary_that_is_buried_again_stops_all_and_the_rest_is_untouched(
    fleet: Fleet, letters: list[Job]
) -> None:
    before = {row["id"]: row for row in listed(fleet)}
    with calls_are_rejected(fleet.data_dir, "add"):
        ran = fleet.afterword("dead", "replay", "--all", "--apply", code=1)
    assert "canary" in ran.stderr
    assert "afterword dead resume r" in ran.stderr
    assert replays(fleet, letters) == [1, 0, 0, 0, 0]
    after = {row["id"]: row for row in listed(fleet)}
    assert [after[job.id] for job in letters[1:]] == [before[job.id] for job in letters[1:]]


def test_a_killed_operator_is_resumed_and_each_turn_replayed_once(
    fleet: Fleet, letters: list[Job]
) -> None:
    killed = fleet.popen(*COMMAND, "dead", "replay", "--all", *SLOW)
    run_id = begun(fleet, looked_at=2)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    done = replays(fleet, letters)
    assert 2 <= sum(done) < 5, "it was killed in the middle"
    shown = json.loads(fleet.afterword("dead", "runs", run_id, "--json").stdout)
    assert (shown["state"], shown["dead_letters"]) == ("running", 5)

    run = json.loads(fleet.afterword("dead", "resume", run_id, "--json").stdout)
    assert (run["state"], run["outcomes"]) == ("done", {"stored": 5})
    assert replays(fleet, letters) == [1] * 5
    assert [rows(fleet, job) for job in letters] == [1] * 5


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_operator_says_how_to_go_on(
    fleet: Fleet, letters: list[Job], by: signal.Signals
) -> None:
    stopped = fleet.popen(*COMMAND, "dead", "replay", "--all", *SLOW)
    run_id = begun(fleet, looked_at=2)
    stopped.send_signal(by)
    _, errors = stopped.communicate(timeout=SETTLED_S)
    assert stopped.returncode == 130, errors
    assert f"afterword dead resume {run_id}" in errors
    shown = json.loads(fleet.afterword("dead", "runs", run_id, "--json").stdout)
    assert shown.keys() == {*SHOWN["Replay run"], "outcomes_by_id"}
    assert (shown["state"], shown["reason"]) == ("aborted", "interrupted")
    assert len(listed(fleet)) == shown["left"] > 0, "what was not replayed is a dead letter"
    resumed = fleet.afterword("dead", "resume", run_id)
    assert "done" in resumed.stdout
    assert f"run {run_id}: resumed; press Ctrl-C" in resumed.stderr
    assert replays(fleet, letters) == [1] * 5


def test_a_discarded_turn_is_never_stored(fleet: Fleet, letters: list[Job]) -> None:
    letter = letters[0]
    fleet.afterword("dead", "discard", letter.id, "--apply")
    assert letter.status().turn is TurnState.SKIPPED
    assert letter.id in fleet.afterword("dead", "replay", letter.id, "--apply", code=2).stderr
    assert rows(fleet, letter) == 0


def test_a_failed_job_is_answered_anew_once(fleet: Fleet, producer: Producer) -> None:
    fleet.claude.will_answer(ClaudeAnswer(status=400, times=2))
    job = producer.submit(user_id="fay", message=f"I am called Fay, {CANARY}.")
    with pytest.raises(JobFailed):
        job.wait(timeout=SETTLED_S)
    assert [row["kind"] for row in listed(fleet, "--user", "fay")] == ["reply"]
    inspector = LedgerInspector(fleet.settings)
    found = json.loads(
        fleet.afterword("dead", "replay", job.id, "--apply", "--json", code=1).stdout
    )
    assert found["outcomes"] == {"dead": 1}, "it was refused again"
    again = inspector.job(job.id)["replayed_as"]
    assert inspector.job(again)["replay_of"] == job.id
    inspector.redis.close()
    assert [row["id"] for row in listed(fleet, "--user", "fay")] == [again]
    fleet.afterword("dead", "replay", again, "--apply")
    assert listed(fleet, "--user", "fay") == []


# --- an older turn never overrules a newer one


def test_an_old_preference_that_is_replayed_does_not_overrule_a_newer_one(
    fleet: Fleet, producer: Producer
) -> None:
    old, new = (f"I prefer {unit} for the temperature, {CANARY}." for unit in UNITS)
    with calls_are_rejected(fleet.data_dir, "add"):
        celsius = producer.submit(user_id="ann", message=old)
        becomes(celsius, TurnState.DEAD)
    becomes(producer.submit(user_id="ann", message=new), TurnState.STORED)

    with calls_hang(fleet.data_dir, "add"):
        go = ("dead", "replay", celsius.id, "--apply", "--stall-timeout", "1s")
        assert "canary_not_settled" in fleet.afterword(*go, code=1).stdout
        reply = asked(fleet, producer, old, new)
        assert reply.memory == "overlay", "it is on its way"
    becomes(celsius, TurnState.STORED)
    question = producer.job(reply.job_id)
    wait_until(lambda: question.status().turn.settled, "the question waits no more", SETTLED_S)

    reply = asked(fleet, producer, old, new)
    assert reply.memory == "fresh"
    assert {old, new} <= {memory.text for memory in reply.memories}


def asked(fleet: Fleet, producer: Producer, *facts: str) -> Reply:
    """Ask for the preference; fail unless the prompt lists these facts in this order."""
    job = producer.submit(user_id="ann", message="Which temperature unit do I prefer?")
    reply = job.wait(timeout=SETTLED_S)
    lines = told(fleet.claude.requests()[-1]["body"])[-1].splitlines()
    places = [next(at for at, line in enumerate(lines) if fact in line) for fact in facts]
    assert places == sorted(places), "oldest first, so the newer line has the last word"
    return reply


UNITS = ("Celsius", "Fahrenheit")
