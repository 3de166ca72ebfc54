"""The compose file's services, run as it says: they find each other, scale, and stop in time."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest
from redis import AuthenticationError, Redis

from afterword.producer import Job, Producer
from afterword.shared.settings import Settings
from tests.kit.claude_api.process import ClaudeProcess
from tests.kit.claude_api.scripted_answers import ClaudeAnswer
from tests.kit.compose_services import ComposeServices, Process
from tests.kit.mem0_api.process import Mem0Process
from tests.kit.mem0_api.server import KEY
from tests.kit.waiting import wait_until

pytestmark = [pytest.mark.system, pytest.mark.redis, pytest.mark.slow]

PASSWORD = "b4d0e1"

#: The queues of two response workers and a memory worker.
FLEET = ["memories", "replies", "replies"]

Site = tuple[ComposeServices, ClaudeProcess]


@pytest.fixture
def site() -> Iterator[Site]:
    with (
        ClaudeProcess() as claude,
        Mem0Process() as mem0,
        ComposeServices(
            REDIS_PASSWORD=PASSWORD,
            AFTERWORD_MEMORY="hosted",
            ANTHROPIC_API_KEY="test-key",
            ANTHROPIC_BASE_URL=claude.url,
            MEM0_API_KEY=KEY,
            MEM0_HOST=mem0.url,
        ) as composed,
    ):
        yield composed, claude


def up(composed: ComposeServices, name: str, *, scale: int = 1) -> list[Process]:
    started = composed.up(name, scale=scale)
    composed.wait_healthy(name)
    return started


def stored(job: Job) -> None:
    wait_until(lambda: job.status().turn.settled, "the turn is settled", 90)
    assert job.status().turn == "stored"


def ask(producer: Producer, message: str) -> Job:
    return producer.submit(user_id="ann", message=message)


def test_a_job_outlives_every_stop(site: Site) -> None:
    composed, claude = site
    redis = up(composed, "redis")
    responses, memories = up(composed, "responses", scale=2), up(composed, "memories")
    wait_until(lambda: composed.sweeping() == FLEET, "two and one worker are there", 60, 0.2)

    with Producer(Settings.load(composed.variables("responses"))) as producer:
        first = ask(producer, "I prefer Celsius.")
        assert first.wait(timeout=60).text
        stored(first)

        # What is under way when workers are told to stop comes to its end.
        claude.will_answer(ClaudeAnswer(text="in time", hold=True))
        held = ask(producer, "I prefer tea.")
        wait_until(lambda: claude.held() == 1, "the answer is held", 60)
        for one in responses:
            one.send_signal(signal.SIGTERM)
        claude.release()
        assert composed.down("responses", *responses) == [0, 0]
        assert composed.down("memories", *memories) == [0]
        assert held.status().state == "succeeded"

        # What is not begun waits, in Redis and in its file.
        waiting = ask(producer, "I prefer trains.")
        assert composed.down("redis", *redis) == [0]
        assert not composed.healthy("redis")
        up(composed, "redis")
        responses, memories = up(composed, "responses"), up(composed, "memories")
        assert waiting.wait(timeout=90).text
        stored(held)
        stored(waiting)
        assert composed.down("responses", *responses) == [0]
        assert composed.down("memories", *memories) == [0]


def test_nobody_reads_without_the_password(site: Site) -> None:
    composed, _ = site
    up(composed, "redis")
    with pytest.raises(AuthenticationError), Redis(port=composed.port) as stranger:
        stranger.ping()
    assert not composed.healthy("responses")


def test_a_worker_that_is_stuck_is_not_healthy(site: Site) -> None:
    composed, _ = site
    up(composed, "redis")
    [worker] = up(composed, "responses")
    worker.send_signal(signal.SIGSTOP)
    wait_until(lambda: not composed.healthy("responses"), "it is seen to be stuck", 60, 0.2)
    worker.send_signal(signal.SIGCONT)
    composed.wait_healthy("responses")
    assert not composed.healthy("memories")
