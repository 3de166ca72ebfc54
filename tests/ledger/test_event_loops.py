"""One asynchronous producer or operator on several event loops."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

import pytest

from afterword.producer import AsyncOperator, AsyncProducer
from afterword.producer.per_loop import PerLoop
from afterword.shared.closeable import AsyncCloseable
from afterword.shared.lifecycle import JobState
from afterword.shared.settings import Settings

pytestmark = pytest.mark.redis


@pytest.fixture
def producer(settings: Settings) -> AsyncProducer:
    return AsyncProducer(settings)


async def submitted(producer: AsyncProducer) -> Any:
    return await producer.submit(user_id="ann", message="Hello!")


def test_a_producer_works_on_one_loop_after_another(producer: AsyncProducer) -> None:
    job = asyncio.run(submitted(producer))

    async def elsewhere() -> None:
        assert (await job.status()).state is JobState.QUEUED
        assert (await submitted(producer)).id != job.id
        assert await job.cancel()
        assert [event.type async for event in job.stream()] == ["failed"]
        await producer.aclose()

    asyncio.run(elsewhere())


def test_a_producer_works_on_the_loops_of_several_threads_at_once(producer: AsyncProducer) -> None:
    inside, found = threading.Barrier(3), []

    async def work() -> None:
        job = await submitted(producer)
        inside.wait(10)  # all three loops are open now
        found.append((await job.status()).job_id)

    threads = [threading.Thread(target=asyncio.run, args=(work(),)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 3


def test_an_operator_works_on_one_loop_after_another(settings: Settings) -> None:
    operator = AsyncOperator(settings)

    async def look() -> list[Any]:
        return [letter async for letter in operator.dead_letters()]

    assert asyncio.run(look()) == asyncio.run(look()) == []
    asyncio.run(operator.aclose())


class _Opened(AsyncCloseable):
    """Notes the loop on which it was closed."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.closed_on: asyncio.AbstractEventLoop | None = None

    async def aclose(self) -> None:
        self.closed_on = asyncio.get_running_loop()


def _on_thread(work: Callable[[], Coroutine[Any, Any, None]]) -> threading.Thread:
    thread = threading.Thread(target=asyncio.run, args=(work(),))
    thread.start()
    return thread


def test_each_is_closed_on_its_own_loop_at_the_latest_when_that_ends() -> None:
    opened: list[_Opened] = []
    ready, done = threading.Event(), threading.Event()

    def open_one() -> _Opened:
        opened.append(_Opened())
        return opened[-1]

    each = PerLoop(open_one)

    async def ended() -> None:
        assert each.here() is each.here()

    async def stays() -> None:
        each.here()
        ready.set()
        await asyncio.to_thread(done.wait, 10)

    async def close() -> None:
        each.here()
        await each.aclose()

    asyncio.run(ended())
    thread = _on_thread(stays)
    assert ready.wait(10)
    asyncio.run(close())
    done.set()
    thread.join()

    assert len(opened) == 3
    assert [one.closed_on for one in opened] == [one.loop for one in opened]


def test_a_producer_works_on_both_sides_of_a_fork(producer: AsyncProducer) -> None:
    job = asyncio.run(submitted(producer))
    child = os.fork()
    if child == 0:  # no assertion may leave it: it would run the rest of the tests again
        with suppress(BaseException):
            state = asyncio.run(_state_of(producer, job.id))
            os._exit(7 if state is JobState.QUEUED else 1)
        os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert asyncio.run(_state_of(producer, job.id)) is JobState.QUEUED


async def _state_of(producer: AsyncProducer, job_id: str) -> JobState:
    """Return the state of a job, once another was submitted and everything is closed."""
    await submitted(producer)
    status = await producer.job(job_id).status()
    await producer.aclose()
    return status.state
