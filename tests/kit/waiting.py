"""Waiting for facts: the only place in the tests where time passes."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar, overload

T = TypeVar("T")

_EVERY_S = 0.01

#: Other tests run at the same time, so everything takes longer than on an idle machine: six times
#: as long was seen with four of them on two cores. Only a test that fails waits for so long.
_BUSY = 6


def wait_until(
    predicate: Callable[[], T],
    description: str,
    timeout: float = 10.0,
    every_s: float = _EVERY_S,
) -> T:
    """Return the first true value of `predicate`; fail the test if none comes.

    `timeout` is how many seconds it may take on an idle machine. Ask rarely, with `every_s`, for
    what takes a process to find out.
    """
    deadline = time.monotonic() + timeout * _BUSY
    while not (value := predicate()):
        _check(deadline, description, timeout)
        time.sleep(every_s)  # noqa: TID251 - others wait here, so that they need not sleep
    return value


@overload
async def until(
    predicate: Callable[[], Awaitable[T]], description: str, timeout: float = 10.0
) -> T: ...
@overload
async def until(predicate: Callable[[], T], description: str, timeout: float = 10.0) -> T: ...
async def until(
    predicate: Callable[[], T | Awaitable[T]], description: str, timeout: float = 10.0
) -> T:
    """Do the same on the event loop; the predicate may be a coroutine function."""
    deadline = time.monotonic() + timeout * _BUSY
    while not (value := await _settled(predicate())):
        _check(deadline, description, timeout)
        await asyncio.sleep(_EVERY_S)  # noqa: TID251 - as above
    return value


async def _settled(value: T | Awaitable[T]) -> T:
    return await value if inspect.isawaitable(value) else value


def _check(deadline: float, description: str, timeout: float) -> None:
    if time.monotonic() > deadline:
        raise AssertionError(f"not within {timeout * _BUSY:g} s: {description}")
