"""The pool: slots, acceptance, limits, revocation and stopping, without a worker around it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any, NoReturn

import pytest
from celery import Celery
from celery.exceptions import TimeLimitExceeded, WorkerShutdown
from celery.worker import WorkController
from kombu import Queue
from kombu.asynchronous import Hub, set_event_loop

from afterword.shared.errors import Misconfigured
from afterword.shared.names import REPLIES
from afterword.shared.settings import Settings
from afterword.workers.celery_runtime.heartbeat import CONSUMER_HEARTBEAT
from afterword.workers.celery_runtime.host import worker_app
from afterword.workers.celery_runtime.loop import RUNTIME
from afterword.workers.celery_runtime.pool import MAX_SLOTS, TaskPool, pool_class
from afterword.workers.celery_runtime.tracer import NotACoroutineFunction
from tests.kit.waiting import wait_until

Start = Callable[..., TaskPool]


class FakeRequest:
    """Does what Celery's `Request` does: gives a job to the pool and records the callbacks."""

    def __init__(self, pool: TaskPool, name: str, *args: object, **limits: float) -> None:
        self.callbacks: list[Any] = []
        request = {"args": list(args), "kwargs": {}}
        self.job = pool.apply_async(
            None,
            (name, name, request, b"", "application/json", "utf-8"),
            accept_callback=lambda number, _at: self.callbacks.append(("accepted", number)),
            callback=self.callbacks.append,
            timeout_callback=lambda soft, limit: self.callbacks.append(("limit", soft, limit)),
            **limits,
        )

    @property
    def accepted(self) -> bool:
        return bool(self.callbacks) and self.callbacks[0][0] == "accepted"

    @property
    def failure(self) -> Any:
        failed, failure, _runtime = self.callbacks[-1]
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


def test_a_job_runs_on_the_loop_thread_and_its_outcome_is_reported(start: Start) -> None:
    request = FakeRequest(pool := start(), "noop")
    settle(pool, lambda: len(request.callbacks) == 2, "the outcome is reported")
    accepted, (failed, result, runtime) = request.callbacks
    assert (accepted, failed, result) == (("accepted", 1), False, None)
    assert runtime >= 0


def test_jobs_without_a_slot_wait_unaccepted_and_start_in_order(start: Start) -> None:
    pool = start(limit=2)
    held, opening = FakeRequest(pool, "hold"), FakeRequest(pool, "hold")
    waiting, last = FakeRequest(pool, "open"), FakeRequest(pool, "noop")
    assert (held.accepted, opening.accepted, waiting.callbacks, last.callbacks) == (
        True,
        True,
        [],
        [],
    )
    assert (pool.info["running"], pool.info["waiting"]) == (2, 2)
    held.job.terminate(None)
    settle(pool, lambda: len(last.callbacks) == 2, "the last has ended")
    assert len(waiting.callbacks) == 2


def test_growing_the_pool_starts_waiting_jobs(start: Start) -> None:
    pool = start(limit=1)
    FakeRequest(pool, "hold")
    waiting = FakeRequest(pool, "noop")
    pool.grow(1)
    assert waiting.accepted


def test_shrinking_the_pool_lets_running_jobs_finish(start: Start) -> None:
    pool = start(limit=2)
    FakeRequest(pool, "hold")
    pool.shrink(1)
    assert (FakeRequest(pool, "noop").callbacks, pool.num_processes) == ([], 1)
    with pytest.raises(ValueError, match="one slot"):
        pool.shrink(1)


def test_a_waiting_job_that_is_revoked_is_accepted_and_never_runs(start: Start) -> None:
    # Celery announces and acknowledges a revoked job only once it was accepted.
    pool = start()
    held = FakeRequest(pool, "hold")
    waiting = FakeRequest(pool, "open")
    waiting.job.terminate("TERM")
    waiting.job.terminate("TERM")
    assert waiting.callbacks == [("accepted", 2)]
    assert (pool.info["running"], pool.info["waiting"]) == (1, 0)
    assert len(held.callbacks) == 1


def test_a_terminated_job_is_cancelled_and_not_reported_again(start: Start) -> None:
    pool = start()
    held = FakeRequest(pool, "hold")
    pool.terminate_job(held.callbacks[0][1], 15)
    held.job.terminate(15)
    settle(pool, lambda: pool.info["running"] == 0, "the slot is free")
    assert len(held.callbacks) == 1
    pool.terminate_job(held.callbacks[0][1], 15)


def test_a_job_that_is_cancelled_before_it_begins_frees_its_slot(start: Start) -> None:
    pool = start(limit=2)
    go = threading.Event()
    FakeRequest(pool, "block", go)
    request = FakeRequest(pool, "noop")
    request.job.terminate(None)
    go.set()  # the second job is started and cancelled in one iteration of the loop
    settle(pool, lambda: pool.info["running"] == 0, "both slots are free")
    assert len(request.callbacks) == 1


def test_a_time_limit_is_reported_and_ends_the_job_once(start: Start) -> None:
    pool = start(timeout=0.05)
    held = FakeRequest(pool, "hold")
    settle(pool, lambda: pool.info["running"] == 0, "the slot is free")
    assert held.callbacks[1:] == [("limit", False, 0.05)]


def test_the_limit_of_a_job_overrides_the_limit_of_the_pool(start: Start) -> None:
    pool = start(soft_timeout=100.0)
    held = FakeRequest(pool, "hold", soft_timeout=0.05)
    settle(pool, lambda: pool.info["running"] == 0, "the slot is free")
    assert held.callbacks[1] == ("limit", True, 0.05)
    assert type(held.failure).__name__ == "SoftTimeLimitExceeded"


def test_a_limit_after_a_revocation_is_not_reported(start: Start) -> None:
    pool = start()
    stubborn = FakeRequest(pool, "stubborn", begun := threading.Event(), timeout=0.2)
    assert begun.wait(5)
    stubborn.job.terminate(None)
    settle(pool, lambda: isinstance(stubborn.job.cause, TimeLimitExceeded), "the limit is reached")
    pool._handoff.drain()
    assert len(stubborn.callbacks) == 1
    pool.grow(1)
    FakeRequest(pool, "open")
    settle(pool, lambda: pool.info["running"] == 0, "all have ended")


def test_a_job_the_tracer_cannot_run_fails_and_frees_its_slot(start: Start) -> None:
    pool = start()
    request = FakeRequest(pool, "noop", "one argument too many")
    settle(pool, lambda: len(request.callbacks) == 2, "the outcome is reported")
    assert isinstance(request.failure, TypeError)
    request = FakeRequest(pool, "celery.backend_cleanup")
    settle(pool, lambda: len(request.callbacks) == 2, "the outcome is reported")
    assert isinstance(request.failure, NotACoroutineFunction)
    request = FakeRequest(pool, "unknown")
    settle(pool, lambda: len(request.callbacks) == 2, "the outcome is reported")
    assert pool.info["running"] == 0


def test_waiting_jobs_do_not_start_while_the_pool_stops(start: Start) -> None:
    pool = start()
    FakeRequest(pool, "hold")
    waiting = FakeRequest(pool, "noop")
    pool.stop()
    assert waiting.callbacks == []


def test_a_second_stop_during_a_stop_is_harmless(start: Start) -> None:
    pool = start()
    held = FakeRequest(pool, "hold")
    pool._handoff.post(pool.stop)  # as a second signal does
    pool.stop()
    pool.terminate()
    assert not pool._running
    assert FakeRequest(pool, "noop").callbacks == []
    assert len(held.callbacks) == 1


@pytest.mark.finding(34)
def test_a_worker_that_was_told_to_leave_its_queues_owes_no_heartbeat(
    start: Start, app: Celery
) -> None:
    app.conf.update(task_queues=[Queue(REPLIES)])
    pool = start()
    CONSUMER_HEARTBEAT.expect()
    CONSUMER_HEARTBEAT.missed()
    pool._watch()
    assert CONSUMER_HEARTBEAT.missed(), "it has a queue, and was not heard of"

    app.amqp.queues.deselect([REPLIES])  # as `celery control cancel_consumer` does

    pool._watch()
    assert not CONSUMER_HEARTBEAT.missed()


def test_the_pool_grows_to_no_more_slots_than_it_can_feed(start: Start) -> None:
    pool = start()
    with pytest.raises(ValueError, match="at most"):
        pool.grow(MAX_SLOTS)


@pytest.mark.finding(4)
@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize("name", ["solo", "threads", "prefork"])
def test_workers_refuse_every_other_pool(name: str) -> None:
    def never(_: Settings) -> NoReturn:
        raise AssertionError("nothing is opened")

    workers = worker_app(Settings(redis_url="redis://127.0.0.1:1"), never)
    with pytest.raises(SystemExit, match="cannot start: only the workers' own pool runs jobs"):
        WorkController(app=workers, pool_cls=name)


def test_the_pool_needs_the_event_loop_of_celery(app: Celery) -> None:
    with pytest.raises(WorkerShutdown):
        TaskPool(1, app=app).start()


@pytest.mark.parametrize("error", [Misconfigured("AFTERWORD_X", "no"), RuntimeError("broken")])
def test_the_pool_does_not_start_if_its_lifespan_cannot_open(
    start: Start, error: Exception
) -> None:
    @asynccontextmanager
    async def broken() -> AsyncIterator[None]:
        for _ in ():
            yield
        raise error

    with pytest.raises(WorkerShutdown if isinstance(error, Misconfigured) else RuntimeError):
        start(lifespan=broken)
