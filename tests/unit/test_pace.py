"""A thread is woken at once, and then in a pace."""

from __future__ import annotations

import time
from collections.abc import Callable

from afterword.workers.celery_runtime.wake_throttle import WakeThrottle
from tests.standins.waiting import until

EVERY_S = 0.05


async def test_the_first_wake_up_is_at_once_and_the_next_one_not_before_its_time() -> None:
    woken: list[float] = []

    def wake(_function: Callable[[], None]) -> None:
        woken.append(time.monotonic())

    pace = WakeThrottle(wake, EVERY_S)
    pace(lambda: None)
    assert len(woken) == 1
    pace(lambda: None)
    assert len(woken) == 1
    await until(lambda: len(woken) == 2, "it is woken again")
    assert woken[1] - woken[0] >= EVERY_S


async def test_what_is_to_be_called_is_handed_on() -> None:
    made: list[str] = []
    pace = WakeThrottle(lambda function: function(), EVERY_S)
    pace(lambda: made.append("at once"))
    pace(lambda: made.append("later"))
    await until(lambda: made == ["at once", "later"], "both are called")
