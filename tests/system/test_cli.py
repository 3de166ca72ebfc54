"""The command line against real workers: what it prints, and its exit codes."""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Iterator

import pytest

from afterword.producer import Event, Job, JobState, Producer, Reply, TurnState
from afterword.producer.cli.checks.finding import CHECKS
from tests.kit.claude_api.scripted_answers import ClaudeAnswer
from tests.kit.waiting import wait_until
from tests.kit.workers.fleet import CANARY, MEMORY_FAULT_APP, Fleet
from tests.kit.workers.memory_faults import calls_are_rejected

pytestmark = [pytest.mark.system, pytest.mark.redis, pytest.mark.slow]

NOWHERE = "redis://127.0.0.1:1/0"
TEXT = f"Two {CANARY} birds."


@pytest.fixture(scope="module")
def crew() -> Iterator[Fleet]:
    with Fleet() as fleet:
        started = fleet.launch("responses", "--concurrency", "3", app=None)
        fleet.start("memories", app=MEMORY_FAULT_APP)
        started.ready()
        yield fleet


@pytest.fixture
def fleet(crew: Fleet) -> Fleet:
    """Give the fleet with nothing left over from other tests."""
    crew.claude.forget()
    return crew


@pytest.fixture
def producer(fleet: Fleet) -> Iterator[Producer]:
    with Producer(fleet.settings) as producer:
        yield producer


@pytest.fixture
def dead(fleet: Fleet, producer: Producer) -> Job:
    """Give a turn that could not be stored."""
    with calls_are_rejected(fleet.data_dir, "add"):
        job = producer.submit(user_id="dora", message=f"I feed my {CANARY}.")
        wait_until(lambda: job.status().turn is TurnState.DEAD, "the turn is buried", 20)
    return job


# --- submit


def test_submit_prints_an_id_that_status_knows(fleet: Fleet) -> None:
    job_id = fleet.afterword("submit", "hello", "--user", "ann").stdout.strip()
    again = json.loads(fleet.afterword("status", job_id, "--json").stdout)
    assert again["job_id"] == job_id
    assert again["state"] in set(JobState)
    assert f"job_id: {job_id}" in fleet.afterword("status", job_id).stdout


def test_submit_can_wait_for_the_reply(fleet: Fleet) -> None:
    fleet.claude.will_answer(ClaudeAnswer(text=TEXT, times=2))
    asked = ("submit", f"hello {CANARY}", "--user", "ann", "--wait", "20")
    assert fleet.afterword(*asked).stdout == f"{TEXT}\n"
    whole = fleet.afterword(*asked, "--json", "--tenant", "t", "--conversation", "c").stdout
    reply = Reply.model_validate_json(whole)
    assert (reply.text, reply.user_id, reply.conversation_id) == (TEXT, "ann", "c")


def test_submit_reads_its_message_and_streams_the_reply(fleet: Fleet) -> None:
    fleet.claude.will_answer(ClaudeAnswer(text=TEXT))
    said = f"line one\nline two {CANARY}"
    asked = ("submit", "-", "--user", "ann", "--tenant", "s", "--stream", "--system", "Be brief.")
    assert fleet.afterword(*asked, said=said).stdout == f"{TEXT}\n"
    body = fleet.claude.requests()[-1]["body"]
    assert said in str(body["messages"][-1]["content"]).replace("\\n", "\n")
    assert "Be brief." in str(body["system"])


def test_submit_streams_events_as_json(fleet: Fleet) -> None:
    fleet.claude.will_answer(ClaudeAnswer(text=TEXT), ClaudeAnswer(status=400))
    asked = ("submit", "hello", "--user", "ann", "--stream", "--json")
    lines = fleet.afterword(*asked).stdout.splitlines()
    events = [Event.model_validate_json(line) for line in lines]
    assert {event.type for event in events} == {"started", "recalled", "delta", "final"}
    assert "".join(event.text or "" for event in events) == TEXT
    assert events[-1].reply is not None
    assert events[-1].reply.text == TEXT
    failed = fleet.afterword(*asked, code=1)
    assert json.loads(failed.stdout.splitlines()[-1])["type"] == "failed"


def test_submit_refuses_a_limit_that_a_stream_would_not_keep(fleet: Fleet) -> None:
    asked = ("submit", "hello", "--user", "ann", "--stream", "--wait", "1")
    assert "leave out --wait" in fleet.afterword(*asked, code=2).stderr


def test_submit_says_why_there_is_no_reply(fleet: Fleet) -> None:
    fleet.claude.will_answer(ClaudeAnswer(status=400, times=2))
    for way in (["--wait", "20"], ["--stream"]):
        failed = fleet.afterword("submit", "hello", "--user", "ann", *way, code=1)
        assert re.fullmatch(r"afterword: job j00_\w+ failed: \w+\n", failed.stderr)


def test_submit_with_the_same_key_is_the_same_job(fleet: Fleet) -> None:
    asked = ("submit", "--user", "ann", "--idempotency-key", "k", "--json")
    first, second = (json.loads(fleet.afterword(*asked, "hello").stdout) for _ in range(2))
    assert first == second
    assert "idempotency_key" in fleet.afterword(*asked, "other", code=1).stderr


BAD = {
    "MESSAGE": ["  "],
    "--user": ["hello", "--user", " ann"],
    "--tenant": ["hello", "--tenant", "a\tb"],
    "--system": ["hello", "--system", ""],
    "--metadata": ["hello", "--metadata", "[1]"],
    "--expires-in": ["hello", "--expires-in", "nan"],
    "--max-tokens": ["hello", "--max-tokens", "0"],
    "--priority": ["hello", "--priority", "urgent"],
    "--wait": ["hello", "--wait", "-1"],
}


@pytest.mark.parametrize("field", BAD)
def test_bad_input_names_the_field(fleet: Fleet, field: str) -> None:
    refused = fleet.afterword("submit", "--user", "ann", *BAD[field], code=2)
    assert field in refused.stderr
    assert "Traceback" not in refused.stderr
    assert not refused.stdout


@pytest.mark.parametrize("said", ["", "a\0b", "x" * 70_000], ids=["empty", "NUL", "too long"])
def test_bad_text_from_a_pipe_is_refused(fleet: Fleet, said: str) -> None:
    refused = fleet.afterword("submit", "-", "--user", "ann", said=said, code=2)
    assert refused.stderr.startswith("afterword: MESSAGE: must not ")


# --- what is wrong with the environment


@pytest.mark.parametrize("command", ["submit hello --user ann", "status", "worker responses"])
def test_an_unknown_setting_is_refused(fleet: Fleet, command: str) -> None:
    refused = fleet.afterword(*command.split(), code=2, AFTERWORD_RECAL_TOP_K="3")
    assert "AFTERWORD_RECAL_TOP_K" in refused.stderr
    assert "AFTERWORD_RECALL_TOP_K?" in refused.stderr


@pytest.mark.parametrize("command", ["submit hello --user ann", "dead list"])
def test_an_unreachable_redis_is_one_line_in_time(fleet: Fleet, command: str) -> None:
    limit = {"AFTERWORD_REDIS_URL": NOWHERE, "AFTERWORD_SUBMIT_TIMEOUT_S": "0.5"}
    began = time.monotonic()
    failed = fleet.afterword(*command.split(), code=1, **limit)
    assert time.monotonic() - began < fleet.settings.submit_timeout_s, (
        "it keeps the time it is told"
    )
    assert failed.stderr.startswith("afterword: AFTERWORD_REDIS_URL: ")
    assert failed.stderr.count("\n") == 1


# --- status


def test_status_counts_queues_workers_jobs_and_dead_letters(
    fleet: Fleet, producer: Producer, dead: Job
) -> None:
    found = json.loads(fleet.afterword("status", "--json").stdout)
    assert {worker["queue"] for worker in found["workers"]} == {"replies", "memories"}
    assert found["queues"]["replies"].keys() >= {"ready", "delayed", "running", "oldest_ready_s"}
    assert found["jobs"]["succeeded"] >= 1
    assert found["dead_letters"]["turns"] == found["turns"]["dead"] >= 1
    shown = fleet.afterword("status").stdout
    assert re.search(r"^replies +\d+ +\d+ +\d+", shown, re.MULTILINE)
    assert f"dead letters: {found['dead_letters']['turns']} turns" in shown


# --- doctor


def test_doctor_finds_everything_well(fleet: Fleet) -> None:
    fleet.afterword("dead", "discard", "--all", "--apply")
    found = json.loads(fleet.afterword("doctor", "--strict", "--json").stdout)
    assert {one["check"] for one in found} == CHECKS.keys() - {"broker"}


def test_doctor_warns_and_fails_line_by_line(fleet: Fleet) -> None:
    environ = {"AFTERWORD_FALLBACK_MODELS": "claude-sonnet-4-5", "AFTERWORD_NAMESPACE": "other"}
    shown = fleet.afterword("doctor", code=1, **environ).stdout
    lines = re.findall(r"^(warn|FAIL)  (.+?): .+\n      -> (.+)$", shown, re.MULTILINE)
    assert {(level, check) for level, check, _ in lines} == {
        ("warn", "claude"),
        ("FAIL", "response workers"),
        ("FAIL", "memory workers"),
    }


def test_doctor_ends_although_a_check_hangs(fleet: Fleet) -> None:
    with socket.create_server(("127.0.0.1", 0)) as nobody_accepts:
        url = f"http://127.0.0.1:{nobody_accepts.getsockname()[1]}"
        shown = fleet.afterword("doctor", code=1, ANTHROPIC_BASE_URL=url).stdout
    assert "FAIL  claude: gave no answer within" in shown
    assert "ok    memory: " in shown


# --- chat


def asked(fleet: Fleet) -> list[str]:
    """Return the last message of each request to Claude."""
    contents = [one["body"]["messages"][-1]["content"] for one in fleet.claude.requests()]
    return [one if isinstance(one, str) else one[-1]["text"] for one in contents]


def test_commands_of_a_pipe_are_run_and_what_only_looks_like_one_is_said(fleet: Fleet) -> None:
    lines = ["I keep nine birds.", "/memories", "/HELP", "/forget", "/user nils", "/memories"]
    shown = fleet.afterword("chat", "--user", "rita", said="\n".join([*lines, "/quit"])).stdout
    assert len(asked(fleet)) == 1, "only the first line was a message"
    assert "[What is remembered of rita" in shown, "it waits until it is stored"
    assert "  - I keep nine birds." in shown
    assert "Ctrl-C stops a reply" in shown
    assert "[Nothing was erased. Run: afterword forget rita --apply]" in shown
    assert "[There is no memory of nils yet]" in shown


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("/etc/hosts is wrong", "/etc/hosts is wrong"),
        ("/memories of Paris", "/memories of Paris"),
        ("/user is a folder", "/user is a folder"),
        ("// a comment", "// a comment"),
        ("//memories", "/memories"),
    ],
)
def test_a_line_of_a_pipe_that_is_no_command_is_a_message(
    fleet: Fleet, line: str, said: str
) -> None:
    fleet.afterword("chat", "--user", "otto", said=f"{line}\n")
    assert asked(fleet)[0].rpartition("\n")[2].removeprefix("Message: ") == said


def test_a_user_who_cannot_be_ends_a_pipe(fleet: Fleet) -> None:
    """What follows would be said by somebody else."""
    name = "x" * 1000
    ended = fleet.afterword("chat", "--user", "rita", said=f"/user {name}\nI am X.\n", code=2)
    assert "must have at most 128 characters" in ended.stderr
    assert asked(fleet) == []


def test_chat_says_what_is_retrieved_said_and_remembered(fleet: Fleet) -> None:
    shown = fleet.afterword(
        "chat", "--user", "cleo", said="I keep two birds.\nHow many birds?\nok\nquit\n"
    ).stdout
    notes = [line for line in shown.splitlines() if re.match(r"\[(Mem|Noth)", line)]
    assert notes.count("[Memories updated]") == 1  # after whichever message or at the end
    notes.remove("[Memories updated]")
    assert notes == [
        "[Memory queued]",
        "[Nothing to remember: only a question]",
        "[Nothing to remember: only a pleasantry]",
    ]
    assert shown.count("[Retrieved ") == 3

    later = fleet.afterword("chat", "--user", "cleo", said="How many birds?\nquit\n").stdout
    assert "You: How many birds?\n[Retrieved 1 memory]\n  - I keep two birds.\nAgent: " in later
