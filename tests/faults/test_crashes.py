"""A job or a turn that ends its worker, again and again, ends itself; the others go on (I1, I3)."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from afterword.producer import Job, JobFailed, JobState, Producer
from afterword.shared.lifecycle import TurnState
from afterword.shared.settings import Settings
from tests.kit.claude_api.scripted_answers import ClaudeAnswer
from tests.kit.mem0_api import scripted_answers as mem0_answers
from tests.kit.mem0_api.server import KEY
from tests.kit.servers.provider_thread import ProviderThread
from tests.kit.servers.scripted_http_server import Cue
from tests.kit.servers.valkey import Valkey
from tests.kit.waiting import wait_until
from tests.kit.workers.forked_workers import ForkedWorkers

pytestmark = [pytest.mark.faults, pytest.mark.system, pytest.mark.redis, pytest.mark.slow]

STARTS = 3
POISON = "drink me"


def _environ(valkey: Valkey, providers: ProviderThread, folder: Path) -> dict[str, str]:
    """Return what a worker needs that is to be lost, and missed, soon."""
    return {
        "AFTERWORD_REDIS_URL": valkey.url,
        "AFTERWORD_DURABILITY": "none",
        "AFTERWORD_DATA_DIR": str(folder),
        "AFTERWORD_LEASE_S": "2",
        "AFTERWORD_SWEEP_S": "0.1",
        "ANTHROPIC_API_KEY": "test-key",
        "ANTHROPIC_BASE_URL": providers.claude.url,
    }


def test_a_job_that_kills_its_worker_fails_after_so_many_starts_and_good_jobs_go_on(
    tmp_path: Path,
) -> None:
    with Valkey() as valkey, ProviderThread() as providers, ForkedWorkers() as workers:
        environ = _environ(valkey, providers, tmp_path) | {
            "AFTERWORD_MEMORY": "off",
            "AFTERWORD_MAX_ATTEMPTS": str(STARTS),
        }
        providers.do(
            lambda: providers.claude.interject(ClaudeAnswer(match=POISON, hold=True, times=None))
        )

        def start(number: int) -> int:
            log = tmp_path / f"{number}.log"
            return workers.start(environ, log, "-Q", "replies", "-n", f"w{number}@crash")

        with Producer(Settings.load(environ)) as producer:
            worker = start(0)
            poison = producer.submit(user_id="eve", message=POISON)
            for number in range(1, STARTS + 1):
                wait_until(lambda: providers.claude.held == 1, f"start {number}", 20)
                assert _says(producer, f"hello {number}") == "ann"
                os.kill(worker, signal.SIGKILL)
                wait_until(lambda: providers.claude.held == 0, "its worker is gone", 20)
                worker = start(number)
            with pytest.raises(JobFailed) as caught:
                poison.wait(timeout=30)
            assert (caught.value.state, caught.value.code) == ("failed", "crashed_too_often")
            assert _starts(poison) == STARTS
            assert _says(producer, "hello again") == "ann"
            asked = [str(seen.body) for seen in providers.claude.requests]
            assert sum(POISON in body for body in asked) == STARTS


def test_a_turn_that_kills_its_writer_is_buried_after_so_many_starts_and_the_next_is_stored(
    tmp_path: Path,
) -> None:
    with Valkey() as valkey, ProviderThread() as providers, ForkedWorkers() as workers:
        environ = _environ(valkey, providers, tmp_path) | {
            "AFTERWORD_MAX_WRITE_ATTEMPTS": str(STARTS),
            "AFTERWORD_COALESCE_TURNS": "1",  # a batch would be taken apart first
            "MEM0_API_KEY": KEY,
            "MEM0_HOST": providers.mem0.url,
        }
        deadly = mem0_answers.Mem0Answer(verb="add", cue=Cue.HOLD, times=STARTS)
        providers.do(lambda: providers.mem0.will_answer(deadly))

        def start(number: int) -> int:
            log = tmp_path / f"{number}.log"
            return workers.start(environ, log, "-Q", "replies,memories", "-n", f"w{number}@crash")

        with Producer(Settings.load(environ)) as producer:
            worker = start(0)
            jobs = [producer.submit(user_id="eve", message=text) for text in (POISON, "I am Eve.")]
            for number in range(1, STARTS + 1):
                wait_until(lambda: providers.mem0.held == 1, f"start {number}", 30)
                os.kill(worker, signal.SIGKILL)
                wait_until(lambda: providers.mem0.held == 0, "its worker is gone", 20)
                worker = start(number)
            for job, end in zip(jobs, (TurnState.DEAD, TurnState.STORED), strict=True):
                wait_until(lambda: job.status().turn is end, f"a turn is {end}", 40)  # noqa: B023


def _says(producer: Producer, message: str) -> str:
    """Let Ann say something; return whom the reply is for."""
    job = producer.submit(user_id="ann", message=message)
    reply = job.wait(timeout=60)
    assert job.status().state is JobState.SUCCEEDED
    return reply.user_id


def _starts(job: Job) -> int:
    return job.status().attempts
