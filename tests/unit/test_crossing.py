"""Calls cross from one thread to another: all, in order, for one wake-up."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from queue import SimpleQueue
from typing import Any

import pytest

from afterword.workers.celery_runtime.thread_handoff import Crossing
from tests.standins.waiting import wait_until

Drain = Callable[[], None]


def test_calls_are_made_in_order_for_one_wake_up() -> None:
    woken: list[Drain] = []
    made: list[int] = []
    crossing = Crossing(woken.append)
    for number in range(3):
        crossing.call(partial(made.append, number))
    [drain] = woken
    drain()
    assert made == [0, 1, 2]
    crossing.call(partial(made.append, 3))
    assert len(woken) == 2


def test_a_call_may_drain_what_comes_after_it() -> None:
    # As the handler of a signal does that arrives during a drain.
    made: list[int] = []
    crossing = Crossing(lambda _drain: None)
    for step in (partial(made.append, 0), crossing.drain, partial(made.append, 1)):
        crossing.call(step)
    crossing.drain()
    assert made == [0, 1]


def test_a_call_that_fails_is_logged_and_the_next_one_is_made(
    caplog: pytest.LogCaptureFixture,
) -> None:
    made: list[int] = []
    crossing = Crossing(lambda _drain: None)
    crossing.call(lambda: 1 / 0)
    crossing.call(partial(made.append, 1))
    crossing.drain()
    assert made == [1]
    assert "ZeroDivisionError" in caplog.text


def test_a_drain_can_wait_for_the_first_call() -> None:
    made: list[int] = []
    crossing = Crossing(lambda _drain: None)
    thread = threading.Timer(0.05, crossing.call, [partial(made.append, 1)])
    thread.start()
    crossing.drain(5.0)
    thread.join()
    assert made == [1]


def test_a_call_that_comes_while_the_last_one_is_taken_wakes_again() -> None:
    woken: list[Drain] = []
    crossing = Crossing(woken.append)

    class TakenMeanwhile(SimpleQueue[Callable[[], object]]):
        def put(self, item: Callable[[], object], *_: Any) -> None:
            crossing.drain()  # the other thread, at the worst moment
            super().put(item)

    crossing._calls = TakenMeanwhile()
    crossing.call(int)
    crossing.call(int)
    assert len(woken) == 2


def test_no_wake_up_is_lost_between_two_threads() -> None:
    count = 20_000
    made: list[int] = []
    woken = threading.Semaphore(0)
    crossing = Crossing(lambda _drain: woken.release())

    def call_all() -> None:
        for number in range(count):
            crossing.call(partial(made.append, number))

    thread = threading.Thread(target=call_all)
    thread.start()

    def drained() -> bool:
        # Once per wake-up and never otherwise, so a lost one would leave calls behind.
        if woken.acquire(timeout=1.0):
            crossing.drain()
        return len(made) == count

    wait_until(drained, "all calls are made", 30.0)
    thread.join()
    assert made == list(range(count))
