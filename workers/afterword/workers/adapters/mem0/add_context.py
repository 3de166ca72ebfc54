"""One add on its way through mem0: what mem0 would swallow is kept, and raised in the end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from afterword.workers.ports import Turn


@dataclass
class AddContext:
    """The turn that this thread stores, and the first thing that went wrong with it."""

    owner: str
    turn: Turn
    failure: Exception | None = None


_current: ContextVar[AddContext | None] = ContextVar("errand", default=None)


@contextmanager
def add_context(owner: str, turn: Turn) -> Iterator[None]:
    """Store one turn on this thread; raise the first failure of its steps, whoever caught it."""
    mine = AddContext(owner, turn)
    token = _current.set(mine)
    try:
        yield
    except Exception as error:  # noqa: BLE001 - it may be mem0's word for what is noted
        raise mine.failure or error from None
    finally:
        _current.reset(token)
    if mine.failure is not None:
        raise mine.failure


def current() -> AddContext:
    """Return the errand of this thread; there must be one."""
    mine = _current.get()
    assert mine is not None, "mem0 adds only inside an errand"
    return mine


@contextmanager
def step() -> Iterator[None]:
    """Do one step of an errand, or of none: after a failure, every further step fails alike.

    Where a batch fails, mem0 goes on with its rows one by one and keeps what it gets: half a turn.
    """
    mine = _current.get()
    if mine is not None and mine.failure is not None:
        raise mine.failure
    try:
        yield
    except Exception as error:
        if mine is not None:
            mine.failure = error
        raise
