"""What a test can do to the memory of running workers, told through files in their data folder."""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from afterword.shared.errors import Rejected, Unavailable


@contextmanager
def calls_hang(folder: Path, verb: str) -> Iterator[Callable[[], bool]]:
    """Let every call of that verb hang while the context is open.

    Yields a function that says whether a call hangs already: a turn that is being written may be
    some way before it, and a worker that is stopped there ends as if mem0 were well.
    """
    reached = folder / f"{verb}.reached"
    with (folder / f"{verb}.held").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        reached.unlink(missing_ok=True)
        yield reached.exists


def calls_are_rejected(folder: Path, verb: str) -> AbstractContextManager[None]:
    """Let every call of that verb be refused while the context is open."""
    return _while_there_is(folder / f"{verb}.rejected")


def calls_find_nobody(folder: Path, verb: str) -> AbstractContextManager[None]:
    """Let every call of that verb find nobody while the context is open."""
    return _while_there_is(folder / f"{verb}.down")


def answers_are_lost(folder: Path, verb: str) -> AbstractContextManager[None]:
    """Let every call of that verb be carried out and end as if nobody knew, while this is open."""
    return _while_there_is(folder / f"{verb}.lost")


@contextmanager
def _while_there_is(flaw: Path) -> Iterator[None]:
    flaw.touch()
    try:
        yield
    finally:
        flaw.unlink()


def lose(folder: Path, verb: str) -> None:
    """Lose the answer of a call of that verb, if a test wants that."""
    if (folder / f"{verb}.lost").exists():
        raise Unavailable("lost_by_test", unknown_outcome=True)


def suffer(folder: Path, verb: str) -> None:
    """Suffer what a test has in store for that verb: block this thread, or raise."""
    hold = folder / f"{verb}.held"
    if hold.exists():
        with hold.open() as file:
            (folder / f"{verb}.reached").touch()
            fcntl.flock(file, fcntl.LOCK_SH)
    if (folder / f"{verb}.rejected").exists():
        raise Rejected("rejected_by_test")
    if (folder / f"{verb}.down").exists():
        raise Unavailable("down_by_test")
