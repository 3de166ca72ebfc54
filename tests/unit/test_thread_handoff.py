"""Calls are handed from one thread to another: all, in order, with few wake-ups."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial
from queue import SimpleQueue
from typing import Any

import pytest

from afterword.workers.celery_runtime.thread_handoff import ThreadHandoff, WakeThrottle
from tests.kit.waiting import until, wait_until

Drain = Callable[[], None]

INTERVAL_S = 0.05


def test_calls_are_made_in_order_for_one_wake_up() -> None:
    woken: list[Drain] = []
    made: list[int] = []
    handoff = ThreadHandoff(woken.append)
    for number in range(3):
        handoff.post(partial(made.append, number))
    [drain] = woken
    drain()
    assert made == [0, 1, 2]
    handoff.post(partial(made.append, 3))
    assert len(woken) == 2


def test_a_call_may_drain_what_comes_after_it() -> None:
    # As a signal handler does that interrupts a drain.
    made: list[int] = []
    handoff = ThreadHandoff(lambda _drain: None)
    for step in (partial(made.append, 0), handoff.drain, partial(made.append, 1)):
        handoff.post(step)
    handoff.drain()
    assert made == [0, 1]


def test_a_call_that_fails_is_logged_and_the_next_one_is_made(
    caplog: pytest.LogCaptureFixture,
) -> None:
    made: list[int] = []
    handoff = ThreadHandoff(lambda _drain: None)
    handoff.post(lambda: 1 / 0)
    handoff.post(partial(made.append, 1))
    handoff.drain()
    assert made == [1]
    assert "ZeroDivisionError" in caplog.text


def test_a_drain_can_wait_for_the_first_call() -> None:
    made: list[int] = []
    handoff = ThreadHandoff(lambda _drain: None)
    thread = threading.Timer(0.05, handoff.post, [partial(made.append, 1)])
    thread.start()
    handoff.drain(5.0)
    thread.join()
    assert made == [1]


def test_a_call_that_comes_while_the_last_one_is_taken_wakes_again() -> None:
    woken: list[Drain] = []
    handoff = ThreadHandoff(woken.append)

    class TakenMeanwhile(SimpleQueue[Callable[[], object]]):
        def put(self, item: Callable[[], object], *_: Any) -> None:
            handoff.drain()  # the other thread, at the worst moment
            super().put(item)

    handoff._calls = TakenMeanwhile()
    handoff.post(int)
    handoff.post(int)
    assert len(woken) == 2


def test_no_wake_up_is_lost_between_two_threads() -> None:
    count = 20_000
    made: list[int] = []
    woken = threading.Semaphore(0)
    handoff = ThreadHandoff(lambda _drain: woken.release())

    def call_all() -> None:
        for number in range(count):
            handoff.post(partial(made.append, number))

    thread = threading.Thread(target=call_all)
    thread.start()

    def drained() -> bool:
        # Drains once per wake-up only, so a lost wake-up would leave calls behind.
        if woken.acquire(timeout=1.0):
            handoff.drain()
        return len(made) == count

    wait_until(drained, "all calls are made", 30.0)
    thread.join()
    assert made == list(range(count))


async def test_the_first_wake_up_is_immediate_and_the_next_one_is_delayed() -> None:
    began = time.monotonic()  # before the throttle looks at the clock
    woken: list[float] = []

    def wake(_function: Callable[[], None]) -> None:
        woken.append(time.monotonic())

    throttle = WakeThrottle(wake, INTERVAL_S)
    throttle(lambda: None)
    assert len(woken) == 1
    throttle(lambda: None)
    assert len(woken) == 1
    await until(lambda: len(woken) == 2, "it is woken again")
    assert woken[1] - began >= INTERVAL_S


async def test_the_throttle_passes_every_function_on() -> None:
    made: list[str] = []
    throttle = WakeThrottle(lambda function: function(), INTERVAL_S)
    throttle(lambda: made.append("at once"))
    throttle(lambda: made.append("later"))
    await until(lambda: made == ["at once", "later"], "both are called")
