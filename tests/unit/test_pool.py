"""The pool keeps its slots and its word, whatever happens in between."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from celery import Celery
from celery.exceptions import TimeLimitExceeded, WorkerShutdown
from kombu.asynchronous import Hub, set_event_loop

from afterword.shared.errors import Misconfigured
from afterword.workers.celery_runtime.loop import RUNTIME
from afterword.workers.celery_runtime.pool import TaskPool, pool_class
from afterword.workers.celery_runtime.tracer import NotACoroutineFunction
from tests.kit.waiting import wait_until

Start = Callable[..., TaskPool]


class Asked:
    """Stands for Celery's request: hands a job to the pool, and notes what it is told of it."""

    def __init__(self, pool: TaskPool, name: str, *args: object, **limits: float) -> None:
        self.told: list[Any] = []
        request = {"args": list(args), "kwargs": {}}
        self.job = pool.apply_async(
            None,
            (name, name, request, b"", "application/json", "utf-8"),
            accept_callback=lambda number, _at: self.told.append(("accepted", number)),
            callback=self.told.append,
            timeout_callback=lambda soft, limit: self.told.append(("limit", soft, limit)),
            **limits,
        )

    @property
    def accepted(self) -> bool:
        return bool(self.told) and self.told[0][0] == "accepted"

    @property
    def failure(self) -> Any:
        failed, failure, _runtime = self.told[-1]
        assert failed
        return failure.exception.exc


@asynccontextmanager
async def gate() -> AsyncIterator[asyncio.Event]:
    yield asyncio.Event()


@pytest.fixture
def app() -> Celery:
    app = Celery("test", set_as_current=False, fixups=[])

    @app.task(name="hold", shared=False)
    async def hold() -> None:
        await RUNTIME.get().wait()

    @app.task(name="open", shared=False)
    async def open_() -> None:
        RUNTIME.get().set()

    @app.task(name="noop", shared=False)
    async def noop() -> str:
        return threading.current_thread().name

    @app.task(name="block", shared=False)
    async def block(go: threading.Event) -> None:
        go.wait()

    @app.task(name="stubborn", shared=False)
    async def stubborn(begun: threading.Event) -> None:
        begun.set()
        while not RUNTIME.get().is_set():
            try:
                await RUNTIME.get().wait()
            except asyncio.CancelledError:
                continue

    return app


@pytest.fixture
def hub() -> Iterator[Hub]:
    hub = set_event_loop(Hub())
    assert hub is not None
    yield hub
    hub.close()
    set_event_loop(None)


@pytest.fixture
def start(app: Celery, hub: Hub) -> Iterator[Start]:
    pools = []

    def start(limit: int = 1, lifespan: Any = gate, **options: Any) -> TaskPool:
        pool = pool_class(lifespan, grace_s=0.0)(limit, app=app, **options)
        pools.append(pool)
        pool.start()
        return pool

    yield start
    for pool in pools:
        pool.stop()


def settle(pool: TaskPool, fact: Callable[[], object], what: str) -> None:
    """Make the calls handed to the hub until something is true."""

    def is_true() -> object:
        pool._handoff.drain()
        return fact()

    wait_until(is_true, what)


def test_a_job_runs_on_the_loop_s_thread_and_its_end_is_told(start: Start) -> None:
    asked = Asked(pool := start(), "noop")
    settle(pool, lambda: len(asked.told) == 2, "the end is told")
    accepted, (failed, result, runtime) = asked.told
    assert (accepted, failed, result) == (("accepted", 1), False, None)
    assert runtime >= 0


def test_what_has_no_slot_waits_unaccepted_and_starts_in_order(start: Start) -> None:
    pool = start(limit=2)
    held, opening = Asked(pool, "hold"), Asked(pool, "hold")
    waiting, last = Asked(pool, "open"), Asked(pool, "noop")
    assert (held.accepted, opening.accepted, waiting.told, last.told) == (True, True, [], [])
    assert (pool.info["running"], pool.info["waiting"]) == (2, 2)
    held.job.terminate(None)
    settle(pool, lambda: len(last.told) == 2, "the last has ended")
    assert len(waiting.told) == 2


def test_growing_starts_what_waits(start: Start) -> None:
    pool = start(limit=1)
    Asked(pool, "hold")
    waiting = Asked(pool, "noop")
    pool.grow(1)
    assert waiting.accepted


def test_shrinking_lets_jobs_run_and_admits_fewer(start: Start) -> None:
    pool = start(limit=2)
    Asked(pool, "hold")
    pool.shrink(1)
    assert (Asked(pool, "noop").told, pool.num_processes) == ([], 1)
    with pytest.raises(ValueError, match="one slot"):
        pool.shrink(1)


def test_a_job_that_waits_and_is_revoked_is_accepted_and_never_runs(start: Start) -> None:
    # Only what was accepted does Celery announce as revoked, and acknowledge.
    pool = start()
    held = Asked(pool, "hold")
    waiting = Asked(pool, "open")
    waiting.job.terminate("TERM")
    waiting.job.terminate("TERM")
    assert waiting.told == [("accepted", 2)]
    assert (pool.info["running"], pool.info["waiting"]) == (1, 0)
    assert len(held.told) == 1


def test_a_terminated_job_is_cancelled_and_heard_of_no_more(start: Start) -> None:
    pool = start()
    held = Asked(pool, "hold")
    pool.terminate_job(held.told[0][1], 15)
    held.job.terminate(15)
    settle(pool, lambda: pool.info["running"] == 0, "the slot is free")
    assert len(held.told) == 1
    pool.terminate_job(held.told[0][1], 15)


def test_a_job_that_is_cancelled_before_it_begins_frees_its_slot(start: Start) -> None:
    pool = start(limit=2)
    go = threading.Event()
    Asked(pool, "block", go)
    asked = Asked(pool, "noop")
    asked.job.terminate(None)
    go.set()  # the start and the end of the second job reach the loop in one turn of it
    settle(pool, lambda: pool.info["running"] == 0, "both slots are free")
    assert len(asked.told) == 1


def test_limits_are_told_and_end_the_job_once(start: Start) -> None:
    pool = start(timeout=0.05)
    held = Asked(pool, "hold")
    settle(pool, lambda: pool.info["running"] == 0, "the slot is free")
    assert held.told[1:] == [("limit", False, 0.05)]


def test_a_job_s_own_limit_comes_before_the_pool_s(start: Start) -> None:
    pool = start(soft_timeout=100.0)
    held = Asked(pool, "hold", soft_timeout=0.05)
    settle(pool, lambda: pool.info["running"] == 0, "the slot is free")
    assert held.told[1] == ("limit", True, 0.05)
    assert type(held.failure).__name__ == "SoftTimeLimitExceeded"


def test_a_limit_after_a_revocation_is_not_told(start: Start) -> None:
    pool = start()
    stubborn = Asked(pool, "stubborn", begun := threading.Event(), timeout=0.2)
    assert begun.wait(5)
    stubborn.job.terminate(None)
    settle(pool, lambda: isinstance(stubborn.job.cause, TimeLimitExceeded), "the limit is reached")
    pool._handoff.drain()
    assert len(stubborn.told) == 1
    pool.grow(1)
    Asked(pool, "open")
    settle(pool, lambda: pool.info["running"] == 0, "all have ended")


def test_a_job_the_tracer_cannot_run_fails_and_frees_its_slot(start: Start) -> None:
    pool = start()
    asked = Asked(pool, "noop", "one argument too many")
    settle(pool, lambda: len(asked.told) == 2, "the end is told")
    assert isinstance(asked.failure, TypeError)
    asked = Asked(pool, "celery.backend_cleanup")
    settle(pool, lambda: len(asked.told) == 2, "the end is told")
    assert isinstance(asked.failure, NotACoroutineFunction)
    asked = Asked(pool, "unknown")
    settle(pool, lambda: len(asked.told) == 2, "the end is told")
    assert pool.info["running"] == 0


def test_what_waits_does_not_start_while_the_pool_stops(start: Start) -> None:
    pool = start()
    Asked(pool, "hold")
    waiting = Asked(pool, "noop")
    pool.stop()
    assert waiting.told == []


def test_stopping_may_come_while_stopping(start: Start) -> None:
    pool = start()
    held = Asked(pool, "hold")
    pool._handoff.post(pool.stop)  # as a second signal does
    pool.stop()
    pool.terminate()
    assert not pool._running
    assert Asked(pool, "noop").told == []
    assert len(held.told) == 1


def test_a_pool_needs_celery_s_event_loop(app: Celery) -> None:
    with pytest.raises(WorkerShutdown):
        TaskPool(1, app=app).start()


@pytest.mark.parametrize("error", [Misconfigured("AFTERWORD_X", "no"), RuntimeError("broken")])
def test_a_lifespan_that_does_not_open_keeps_the_pool_from_starting(
    start: Start, error: Exception
) -> None:
    @asynccontextmanager
    async def broken() -> AsyncIterator[None]:
        raise error
        yield

    with pytest.raises(WorkerShutdown if isinstance(error, Misconfigured) else RuntimeError):
        start(lifespan=broken)
