"""The context of one `Memory.add` on its thread: the turn, and errors that mem0 would swallow.

mem0 catches errors of its model, embedder and store, and returns success with part of the turn or
nothing. The steps of an add record their first error here, and `add_context` raises it at the end.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from afterword.workers.ports import Turn


@dataclass
class AddContext:
    """The turn that this thread is storing, and the first error of a step.

    `has_facts` is whether facts were extracted from it.
    """

    owner: str
    turn: Turn
    has_facts: bool = False
    failure: Exception | None = None


_current: ContextVar[AddContext | None] = ContextVar("add_context", default=None)


@contextmanager
def add_context(owner: str, turn: Turn) -> Iterator[AddContext]:
    """Store one turn on this thread; raise the first error of its steps, even if mem0 caught it."""
    context = AddContext(owner, turn)
    token = _current.set(context)
    try:
        yield context
    except Exception as error:  # noqa: BLE001 - may be mem0's replacement for the recorded error
        raise context.failure or error from None
    finally:
        _current.reset(token)
    if context.failure is not None:
        raise context.failure


def current_add() -> AddContext:
    """Return the context of this thread. There must be one."""
    context = _current.get()
    assert context is not None, "mem0 must add inside add_context()"
    return context


@contextmanager
def add_step() -> Iterator[None]:
    """Run one step and record its error. After an error, all further steps raise that error.

    If a batch fails, mem0 tries its rows one by one and keeps those that succeed: part of a turn.
    Outside of an add, this only passes errors on.
    """
    context = _current.get()
    if context is not None and context.failure is not None:
        raise context.failure
    try:
        yield
    except Exception as error:
        if context is not None:
            context.failure = error
        raise
