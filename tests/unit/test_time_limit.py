"""Time limits that share timers, beside `asyncio.timeout_at`, which they stand for."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from afterword.shared.time_limit import SLICE_S, TimeLimit
from tests.kit.waiting import until


def now() -> float:
    return asyncio.get_running_loop().time()


async def done() -> None:
    """Do nothing, on a turn of the loop of its own."""


async def wait_for_ever() -> None:
    await asyncio.get_running_loop().create_future()


@pytest.mark.parametrize("after_s", [-1.0, 0.0, 0.02, 0.05])
async def test_what_is_awaited_ends_when_the_time_is_up_and_not_before(after_s: float) -> None:
    when = now() + after_s
    with pytest.raises(TimeoutError), TimeLimit(when):
        await wait_for_ever()
    assert now() >= when


async def test_a_far_limit_is_reached_too() -> None:
    when = now() + 2.1
    with pytest.raises(TimeoutError), TimeLimit(when):
        await wait_for_ever()
    assert now() >= when


async def test_what_is_done_in_time_is_left_alone_later() -> None:
    when = now() + 2 * SLICE_S
    with TimeLimit(when):
        await asyncio.gather(done())
    await until(lambda: now() > when + 2 * SLICE_S, "the time is up")
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_limits_of_one_slice_are_reached_each_by_itself() -> None:
    when = now() + 0.03

    async def limited() -> str:
        try:
            with TimeLimit(when):
                await wait_for_ever()
        except TimeoutError:
            return "late"
        return "done"

    assert set(await asyncio.gather(limited(), limited())) == {"late"}


async def test_a_limit_inside_of_another_leaves_the_other_one_standing() -> None:
    async def limited_twice() -> None:
        with suppress(TimeoutError), TimeLimit(now() + 0.01):
            await wait_for_ever()
        inside.set()
        await wait_for_ever()

    inside = asyncio.Event()
    with pytest.raises(TimeoutError), TimeLimit(now() + 0.06):
        await limited_twice()
    assert inside.is_set()


async def test_a_task_that_is_cancelled_at_the_same_moment_stays_cancelled() -> None:
    entered = asyncio.Event()

    async def limited() -> None:
        with TimeLimit(now()):
            entered.set()
            await wait_for_ever()

    task = asyncio.create_task(limited())
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_an_error_passes_through() -> None:
    with pytest.raises(ZeroDivisionError), TimeLimit(now() + 1):
        raise ZeroDivisionError


def test_each_loop_of_a_thread_has_its_own_limits() -> None:
    async def late() -> None:
        with TimeLimit(now() + 0.01):
            await wait_for_ever()

    for _ in range(2):
        with pytest.raises(TimeoutError):
            asyncio.run(late())
