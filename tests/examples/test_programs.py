"""The examples that are started from a shell."""

from __future__ import annotations

import os
import sys

import pytest

from afterword.producer import Job, Producer, TurnState
from tests.conftest import ROOT
from tests.examples.conftest import load
from tests.examples.terminal import lines, shape
from tests.kit.claude_api.scripted_answers import ClaudeAnswer
from tests.kit.servers.fork_server import COMMAND
from tests.kit.waiting import wait_until
from tests.kit.workers.fleet import CANARY, Fleet, Ran
from tests.kit.workers.memory_faults import calls_are_rejected

pytestmark = [pytest.mark.system, pytest.mark.redis, pytest.mark.slow]

SETTLED_S = 30
LOCKED = 75


def run(fleet: Fleet, name: str, *arguments: str, code: int = 0, **environ: str) -> Ran:
    program = str(ROOT / "examples" / f"{name}.py")
    own = {"TMPDIR": str(fleet.folder)}  # its lock is not that of another test run
    return fleet.run(sys.executable, program, *arguments, code=code, **own | environ)


@pytest.fixture
def dead(fleet: Fleet) -> list[Job]:
    """Give two turns that could not be stored."""
    with Producer(fleet.settings) as producer, calls_are_rejected(fleet.data_dir, "add"):
        jobs = [
            producer.submit(user_id=f"u{n}", message=f"I keep {n} {CANARY} birds.")
            for n in range(2)
        ]
        for job in jobs:
            becomes_dead(job)
        return jobs


def becomes_dead(job: Job) -> None:
    wait_until(lambda: job.status().turn is TurnState.DEAD, "the turn is dead", SETTLED_S)


def turns(fleet: Fleet, jobs: list[Job]) -> set[TurnState]:
    with Producer(fleet.settings) as producer:
        return {producer.job(job.id).status().turn for job in jobs}


def test_the_script_waits_for_one_reply_and_streams_another(fleet: Fleet) -> None:
    fleet.claude.forget()
    fleet.claude.will_answer(
        ClaudeAnswer(match="I prefer Celsius", text=f"Celsius, {CANARY}."),
        ClaudeAnswer(match="How warm", text=f"21 degrees, {CANARY}."),
    )
    lines = run(fleet, "script").stdout.splitlines()
    assert lines[0] == f"Celsius, {CANARY}."
    assert lines[1].startswith("[0 memories, ")
    assert lines[2] == f"21 degrees, {CANARY}."


def test_the_script_says_why_there_is_no_reply(fleet: Fleet) -> None:
    fleet.claude.forget()
    fleet.claude.will_answer(ClaudeAnswer(match="I prefer Celsius", status=400))
    assert "without a reply: invalid_request" in run(fleet, "script", code=1).stderr


def test_the_cron_job_changes_nothing_until_it_is_told_to(fleet: Fleet, dead: list[Job]) -> None:
    rehearsed = run(fleet, "replay_cron").stdout
    assert "2 turns of 2 users (rejected_by_test 2)" in rehearsed
    assert "nothing was changed" in rehearsed
    assert turns(fleet, dead) == {TurnState.DEAD}

    assert "done" in run(fleet, "replay_cron", "--apply").stdout
    assert turns(fleet, dead) == {TurnState.STORED}

    assert run(fleet, "replay_cron", "--apply").stdout == ""


def test_the_cron_job_tells_cron_that_letters_died_again_and_then_leaves_them_alone(
    fleet: Fleet, dead: list[Job]
) -> None:
    with calls_are_rejected(fleet.data_dir, "add"):
        assert "canary_buried" in run(fleet, "replay_cron", "--apply", code=1).stdout
    assert run(fleet, "replay_cron", "--apply", "--max-replays", "0").stdout == ""
    run(fleet, "replay_cron", "--apply")
    assert turns(fleet, dead) == {TurnState.STORED}


def test_the_cron_job_leaves_the_work_to_one_that_still_runs(fleet: Fleet) -> None:
    module = load("replay_cron")
    with module.only_one(module.LOCK):
        assert "still runs" in run(fleet, "replay_cron", code=LOCKED).stderr


def test_the_cron_job_names_a_wrong_setting(fleet: Fleet) -> None:
    ran = run(fleet, "replay_cron", code=2, AFTERWORD_SHARDS="none")
    assert "AFTERWORD_SHARDS" in ran.stderr


#: Stands in for a chat on a busy machine; it flushes in the middle of a line.
BUSY_CHAT = """
import sys
def say(text, to=sys.stdout):
    print(text, end="", file=to, flush=True)
said = input("You: ")
say("[Wai", sys.stderr)
say("ting: no response worker is running]\\nAgent: Noted.\\n")
input("You: ")
say("[Storing what you said; Ctrl-C does not wait for it]\\n[Memories updated]\\n")
"""


def test_a_picture_of_a_chat_shows_its_replies_and_not_how_long_they_took() -> None:
    recorder = load("record", ROOT / "docs/site")
    pieces = recorder.play([sys.executable, "-c", BUSY_CHAT], os.environ, ["[Waiting: for you"])
    assert lines(recorder.picture(pieces)) == [
        "You: [Waiting: for you",
        "Agent: Noted.",
        "You: quit",
        "[Memories updated]",
    ]


def test_a_chat_still_looks_as_in_the_picture_of_the_readme(fleet: Fleet) -> None:
    recorder = load("record", ROOT / "docs/site")
    command = [*COMMAND, "chat", "--user", "recorded"]
    pieces = recorder.record(command, os.environ | fleet.variables)
    shown = lines(recorder.PICTURE.read_text())
    anew = "a chat looks otherwise now: python docs/site/record.py"
    assert shape(lines(recorder.picture(pieces))) == shape(shown), anew
    assert "[Retrieved 1 memory]" in shown
