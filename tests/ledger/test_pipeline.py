"""The pipeline: one shared connection, and a reply or a typed error whatever Redis does."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING

import pytest
from redis.exceptions import ResponseError

from afterword.shared.errors import LedgerUnavailable, Misconfigured, QueueFull
from afterword.shared.ledger.ledger import Ledger
from afterword.shared.settings import Settings
from afterword.shared.transport.pipeline import Pipeline
from afterword.shared.transport.scripts import ScriptCall, script
from tests.kit.ledger.builder import (
    LedgerInspector,
    chat_request,
    is_broken,
    reply_to,
    submit_job,
    submit_request,
)
from tests.kit.servers.faulty_proxy import FaultyProxy
from tests.kit.servers.valkey import Valkey
from tests.kit.waiting import until

if TYPE_CHECKING:
    from pathlib import Path

OVERVIEW = ScriptCall("maintenance/overview", "afterword:{00}", ("", 1, 1, 10))

pytestmark = [pytest.mark.redis, pytest.mark.faults]

PATIENCE_S = 0.5

#: What a busy machine may take besides; without a limit it would be for ever.
SLACK_S = 10.0


@pytest.fixture(scope="module")
def own() -> Iterator[Valkey]:
    """Give a Valkey that these tests may kill, stop and reconfigure."""
    with Valkey("--appendonly", "yes", "--appendfsync", "always") as server:
        yield server


@pytest.fixture
def settings(own: Valkey, namespace: str) -> Settings:
    return Settings(redis_url=own.socket_url, namespace=namespace, memory="embedded")


@pytest.fixture
async def pipeline(own: Valkey) -> AsyncIterator[Pipeline]:
    opened = Pipeline(own.socket_url, patience_s=5.0)
    yield opened
    await opened.aclose()


def clients(server: Valkey) -> list[dict[str, str]]:
    """Return the connections to a server, except the one that asks."""
    with server.client() as asking_one:
        me = asking_one.client_id()
        return [one for one in asking_one.client_list() if int(one["id"]) != me]


async def test_a_thousand_calls_at_once_share_one_connection(
    pipeline: Pipeline, own: Valkey
) -> None:
    before = {one["id"] for one in clients(own)}

    answers = await asyncio.gather(*(pipeline.send_command("ECHO", str(n)) for n in range(1000)))

    assert answers == [str(n) for n in range(1000)]
    assert len({one["id"] for one in clients(own)} - before) == 1


async def test_an_error_reaches_only_its_caller(pipeline: Pipeline) -> None:
    answers = await asyncio.gather(
        pipeline.send_command("ECHO", "one"),
        pipeline.send_command("ECHO", "too", "many"),
        pipeline.send_command("ECHO", "two"),
        return_exceptions=True,
    )

    assert (answers[0], answers[2]) == ("one", "two")
    assert isinstance(answers[1], ResponseError)


async def test_a_cancelled_call_disturbs_no_other(pipeline: Pipeline) -> None:
    async def gives_up() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await pipeline.send_command("ECHO", "x")

    calls = [one for _ in range(10) for one in (gives_up(), pipeline.send_command("ECHO", "y"))]

    assert [one for one in await asyncio.gather(*calls) if one] == ["y"] * 10


async def test_accepted_jobs_and_the_pipeline_survive_a_crash_of_redis(
    ledger: Ledger, own: Valkey
) -> None:
    job_id = await submit_job(ledger)

    await asyncio.to_thread(own.restart)

    assert (await ledger.queries.status(job_id)).job_id == job_id
    await submit_job(ledger)


async def test_a_call_that_waits_while_redis_restarts_is_answered(
    settings: Settings, own: Valkey
) -> None:
    async with Ledger(settings, patience_s=10.0) as ledger:
        await submit_job(ledger)
        own.kill()
        waiting = asyncio.create_task(submit_job(ledger, "while it is away"))
        await until(lambda: is_broken(ledger._pipelines[0]._reconnector), "it was tried")
        await asyncio.to_thread(own.start)

        assert await waiting


async def test_a_redis_that_is_away_is_reported_within_the_patience(
    settings: Settings, tmp_path: Path
) -> None:
    nowhere = settings.model_copy(update={"redis_url": f"unix://{tmp_path}/none.sock"})
    async with Ledger(nowhere, patience_s=PATIENCE_S) as ledger:
        started = time.monotonic()
        with pytest.raises(LedgerUnavailable, match=r"0\.5 s"):
            await submit_job(ledger)

    assert time.monotonic() - started < PATIENCE_S + SLACK_S


async def test_submit_answers_in_time_while_redis_stands_still(
    settings: Settings, own: Valkey, inspector: LedgerInspector
) -> None:
    async with Ledger(settings, patience_s=settings.submit_timeout_s) as ledger:
        await submit_job(ledger)
        os.kill(own.pid, signal.SIGSTOP)
        try:
            started = time.monotonic()
            answers = await asyncio.gather(
                *(submit_job(ledger) for _ in range(20)), return_exceptions=True
            )
            took = time.monotonic() - started
        finally:
            os.kill(own.pid, signal.SIGCONT)

        assert {type(one) for one in answers} == {LedgerUnavailable}
        assert took < settings.submit_timeout_s + SLACK_S
        await submit_job(ledger)


async def test_closing_the_pipeline_ends_commands_that_wait_for_a_stopped_redis(
    own: Valkey,
) -> None:
    pipeline = Pipeline(own.socket_url, patience_s=60.0)
    await pipeline.send_command("PING")
    os.kill(own.pid, signal.SIGSTOP)
    try:
        calls = [asyncio.create_task(pipeline.send_command("PING")) for _ in range(3)]
        steps = pipeline.run_scripts([OVERVIEW] * 3)
        calls.append(asyncio.create_task(steps))
        await until(lambda: pipeline._in_flight and not pipeline._waiting, "they are under way")
        await pipeline.aclose()
        ended, waiting = await asyncio.wait(calls, timeout=5.0)
    finally:
        os.kill(own.pid, signal.SIGCONT)

    assert not waiting
    assert all(call.cancelled() for call in ended)


async def test_a_full_redis_refuses_new_jobs_and_lets_the_open_ones_end(
    settings: Settings, own: Valkey, inspector: LedgerInspector
) -> None:
    async with Ledger(settings, patience_s=5.0) as ledger:
        ended, given_back = (
            await submit_job(ledger, user_id="ann"),
            await submit_job(ledger, user_id="bob"),
        )
        with own.client() as client:
            client.script_flush()
            client.config_set("maxmemory", "1")
            try:
                with pytest.raises(QueueFull, match="maxmemory"):
                    await submit_job(ledger, user_id="eve")
                for job_id in (ended, given_back):
                    held = await ledger.jobs.claim(job_id, "token")
                    assert held is not None
                    await ledger.jobs.append_delta(held, 1, "Hel")
                    if job_id == given_back:
                        await ledger.jobs.snooze(held, 0, counted=False)
                    else:
                        await ledger.jobs.finish(held, reply_to(held))
                await ledger.jobs.cancel(given_back)
                await ledger.maintenance.sweep()
            finally:
                client.config_set("maxmemory", "0")
        await submit_job(ledger, user_id="eve")

    counts = inspector.counts()
    assert (counts["job:succeeded:default"], counts["job:cancelled:default"]) == (1, 1)
    assert counts["turn:pending:default"] == 2


async def test_scripts_that_redis_forgot_are_sent_again(ledger: Ledger, own: Valkey) -> None:
    await submit_job(ledger)
    with own.client() as client:
        client.script_flush()

    await submit_job(ledger)

    with own.client() as client:
        assert client.script_exists(script("job/submit").sha) == [True]


async def test_a_wrong_password_is_a_wrong_setting_at_once(settings: Settings, own: Valkey) -> None:
    with own.client() as client:
        client.acl_setuser("knocker", enabled=True, passwords=["+right"], commands=["+@all"])
    wrong = own.url.replace("redis://", "redis://knocker:wrong-secret@")
    async with Ledger(settings.model_copy(update={"redis_url": wrong}), patience_s=5.0) as ledger:
        with pytest.raises(Misconfigured) as refused:
            await ledger.check()

    assert refused.value.setting == "AFTERWORD_REDIS_URL"
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    "word",
    ["BUSY Redis is busy", "MISCONF Redis is configured", "LOADING it"],
)
async def test_a_temporary_error_is_waited_out(pipeline: Pipeline, own: Valkey, word: str) -> None:
    """Redis reports the trouble itself: a script returns the error until a key exists."""
    root = f"passing-{word.partition(' ')[0]}"
    text = (
        "if redis.call('INCR', KEYS[1]) > 2 then return 'done' end "
        f"return redis.error_reply('{word}')"
    )

    answer = await pipeline.send_command("EVAL", text, 1, root)

    assert answer == "done"


@pytest.fixture
async def line(own: Valkey) -> AsyncIterator[FaultyProxy]:
    async with FaultyProxy(own.port) as opened:
        yield opened


async def test_a_submit_whose_answer_is_lost_is_one_job(
    settings: Settings, line: FaultyProxy, inspector: LedgerInspector
) -> None:
    bad_line = settings.model_copy(update={"redis_url": line.url})
    async with Ledger(bad_line, patience_s=5.0) as ledger:
        await submit_job(ledger, "warm up", user_id="bob")
        line.lose_answer_to(b"EVALSHA")
        request = chat_request()
        job_id = ledger.jobs.new_id(request)

        accepted = await submit_request(ledger.jobs, job_id, request)

    assert line.lost_answers == 1
    assert accepted.job_id == job_id
    assert inspector.hinted("replies.3").count(job_id) == 1
    assert inspector.counts() == {"job:queued:default": 2, "turn:awaited:default": 2}


async def test_steps_whose_answers_are_lost_are_taken_once(
    settings: Settings, line: FaultyProxy, inspector: LedgerInspector
) -> None:
    """Every step of a job and its turn, with the first answer to each lost."""
    bad_line = settings.model_copy(update={"redis_url": line.url})
    async with Ledger(bad_line, patience_s=5.0) as ledger:
        job_id = await submit_job(ledger)
        line.lose_answer_to(b"EVAL")
        held = await ledger.jobs.claim(job_id, "token")
        assert held is not None
        assert held.attempt == 1
        for number, text in ((1, "Hel"), (2, "lo")):
            line.lose_answer_to(b"EVAL")
            await ledger.jobs.append_delta(held, number, text)
        line.lose_answer_to(b"EVAL")
        await ledger.jobs.snooze(held, 0, counted=False)
        again = await ledger.jobs.claim(job_id, "other")

    assert line.lost_answers == 4
    assert again is not None
    assert (again.attempt, again.snoozes) == (1, 1)
    texts = [row["text"] for row in inspector.events(job_id) if row["type"] == "delta"]
    assert texts == ["Hel", "lo"]


async def test_many_calls_over_a_line_that_is_cut_are_all_answered(
    own: Valkey, line: FaultyProxy
) -> None:
    pipeline = Pipeline(line.url, patience_s=5.0)
    calls = [asyncio.create_task(pipeline.send_command("ECHO", str(n))) for n in range(1000)]
    await until(lambda: line.connections, "the line is used")
    line.cut()

    assert await asyncio.gather(*calls) == [str(n) for n in range(1000)]
    await pipeline.aclose()
