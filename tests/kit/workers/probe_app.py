"""A worker whose jobs are test instruments; it says what happens to them in a Redis list.

The hints come from `AFTERWORD_BROKER_URL`, the list is in `AFTERWORD_REDIS_URL`.
"""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from celery import Celery, signals
from redis import Redis as BlockingRedis
from redis.asyncio import BlockingConnectionPool, Redis

from afterword.shared.errors import Misconfigured
from afterword.shared.hints import NAME_OF
from afterword.shared.settings import Settings
from afterword.workers.celery_runtime import executor, pool
from afterword.workers.celery_runtime.hint_order import HINT_ORDER
from afterword.workers.celery_runtime.host import worker_app
from afterword.workers.celery_runtime.loop import RUNTIME
from tests.kit.workers.probe_worker import RELEASE, SEEN

SETTINGS = Settings.load()
URL = SETTINGS.redis_url or ""

#: What is wrong on purpose, as told by the test that starts the worker.
FLAW = os.environ.get("PROBE_FLAW", "")
SENDS_SIGNALS = "PROBE_SIGNALS" in os.environ

if "PROBE_HOLDS_BACK" in os.environ:
    HINT_ORDER.watch(lambda: True)

# So that no test has to wait as long as an operator would.
executor.STUCK_AFTER_S = 0.3
pool.CANCEL_TIMEOUT_S = float(os.environ.get("PROBE_CANCEL_TIMEOUT_S", pool.CANCEL_TIMEOUT_S))


class Probe:
    """Runs jobs named `<instrument>:<anything>`, and a lane by noting its name."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self.released = asyncio.Event()

    async def respond(self, job_id: str, *, ahead: bool = False) -> None:
        """Play the instrument that the job is named after, and note how it began and ended."""
        instrument: Callable[[], Awaitable[None]] = getattr(self, "_" + job_id.partition(":")[0])
        try:
            self._note_at_once(f"began {job_id}" + " ahead" * ahead)
            await instrument()
        except asyncio.CancelledError:
            await self.note(f"cancelled {job_id}")
            raise
        await self.note(f"ended {job_id}")

    async def store_turns(self, lane_id: str) -> None:
        """Note the lane."""
        await self.note(f"wrote {lane_id}")

    async def note(self, what: str) -> None:
        """Add a line to what the test reads."""
        await self._redis.rpush(SEEN, what)

    def _note_at_once(self, what: str) -> None:
        """Add a line without awaiting: the test that reads it cancels what comes after it."""
        with BlockingRedis.from_url(URL) as redis:
            redis.rpush(SEEN, what)

    async def listen(self) -> None:
        """Release the jobs that are held, once the test says so."""
        while not await self._redis.blpop([RELEASE], timeout=1):
            pass
        self.released.set()

    async def _noop(self) -> None:
        """Do nothing."""

    async def _hold(self) -> None:
        await self.released.wait()

    async def _tidy(self) -> None:
        """Hold, and take a while to clean up."""
        try:
            await self.released.wait()
        finally:
            await asyncio.sleep(0.3)  # noqa: TID251 nothing comes of it but time
            await self.note("tidied")

    async def _fail(self) -> None:
        raise ValueError("my secret")

    async def _exit(self) -> None:
        raise SystemExit(3)

    async def _block(self) -> None:
        time.sleep(2.5)  # noqa: ASYNC251, TID251 this is what must not be done

    async def _stubborn(self) -> None:
        """Ignore every cancellation."""
        while not self.released.is_set():
            try:
                await self.released.wait()
            except asyncio.CancelledError:
                continue


@asynccontextmanager
async def runtime(_: Settings) -> AsyncIterator[Probe]:
    """Open the probe, or fail to, as `FLAW` says."""
    if FLAW == "misconfigured":
        raise Misconfigured("AFTERWORD_MODEL", "does not exist")
    connections = BlockingConnectionPool.from_url(URL, max_connections=20, timeout=30)
    redis = Redis(connection_pool=connections)
    probe = Probe(redis)
    if FLAW == "slow":
        await probe.note("opening")
        await probe.released.wait()
    async with asyncio.TaskGroup() as group:
        listening = group.create_task(probe.listen())
        if FLAW == "breaks":
            group.create_task(_break(probe))
        await probe.note("opened")
        yield probe
        await probe.note("closed")
        listening.cancel()
    await connections.aclose()


async def _break(probe: Probe) -> None:
    await probe.released.wait()
    raise RuntimeError("the runtime is no more")


app = worker_app(SETTINGS, runtime)


async def _respond(job_id: str) -> None:
    probe: Probe = RUNTIME.get()
    await probe.respond(job_id)


_VARIANTS: dict[str, dict[str, Any]] = {
    "probe.soft": {"soft_time_limit": 0.3},
    "probe.hard": {"time_limit": 0.3},
    "probe.both": {"soft_time_limit": 0.2, "time_limit": 0.4},
}
NAME_OF.update(dict.fromkeys([*NAME_OF, *_VARIANTS], re.compile(".+")))  # the probe's own names
for _name, _options in _VARIANTS.items():
    _task: Any = app.task(name=_name, shared=False, **_options)
    _task(_respond)


def _theirs() -> None:
    """Be a task of another app, which Celery shares with every app of the process."""


Celery("theirs", set_as_current=False).task(name="theirs.synchronous")(_theirs)

if FLAW == "synchronous":

    @app.task(name="probe.synchronous", shared=False)
    def _synchronous() -> None:
        """Be no coroutine."""


if "PROBE_TIMER" in os.environ:

    def _tick(sender: Any, **_: Any) -> None:
        sender.timer.call_repeatedly(0.1, print, ("tick",), {"flush": True})

    signals.worker_ready.connect(_tick, weak=False)


def _note_signal(name: str) -> Callable[..., None]:
    def receive(sender: Any = None, **facts: Any) -> None:
        del facts["signal"]
        known = " ".join(f"{key}={_shown(value)}" for key, value in sorted(facts.items()))
        request = getattr(sender.request, "id", None) if name != "revoked" else ""
        with BlockingRedis.from_url(URL) as redis:
            redis.rpush(SEEN, f"signal {name} {sender.name} request={request} {known}")

    return receive


def _shown(value: object) -> object:
    plain = isinstance(value, str | list | dict | bool | type(None))
    return value if plain else type(value).__name__


if SENDS_SIGNALS:
    for _name in ("prerun", "postrun", "success", "failure", "revoked", "retry"):
        getattr(signals, f"task_{_name}").connect(_note_signal(_name), weak=False)
