"""Redis full, killed, cut off, silent, stopped, torn: what workers and submitters do then."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from redis import Redis
from redis.exceptions import RedisError

from afterword.producer import LedgerUnavailable, Producer, QueueFull
from afterword.shared.ledger.ledger import Ledger
from afterword.shared.settings import Settings
from tests.kit.fault_runs.crash_run import SharedServers, shared_servers
from tests.kit.fault_runs.load_run import PATIENCE_S, LoadRun, SubmitLoad
from tests.kit.ledger.builder import LedgerInspector
from tests.kit.servers.faulty_proxy import FaultyProxy
from tests.kit.servers.valkey import Valkey
from tests.kit.waiting import wait_until

pytestmark = [
    pytest.mark.faults,
    pytest.mark.system,
    pytest.mark.redis,
    pytest.mark.slow,
]

#: All cuts and jobs, or as many as fit into a minute and a half.
WHOLE = os.environ.get("FAULTS") == "whole"
JOBS = 400 if WHOLE else 60
CUTS = 200 if WHOLE else 20

#: Consumption goes on so soon after a fault, whichever it is.
BACK_S = 10.0


@pytest.fixture(scope="module")
def on(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SharedServers]:
    with shared_servers(tmp_path_factory.mktemp("redis")) as made:
        yield made


@pytest.fixture
def valkey() -> Iterator[Valkey]:
    with Valkey("--appendonly", "yes") as server:
        yield server


@pytest.fixture
def run(on: SharedServers, valkey: Valkey) -> Iterator[LoadRun]:
    with LoadRun(on, valkey) as made:
        made.start(2)
        yield made


def check(run: LoadRun) -> None:
    """Fail unless every job was delivered once and no log holds content."""
    wrong = run.settle().wrong
    assert not wrong, wrong
    assert "canary" not in run.logs()


# --- full


def test_a_full_redis_refuses_what_is_new_and_ends_what_is_open(run: LoadRun) -> None:
    redis = run.valkey.client()
    for _ in range(JOBS):
        run.submit()
    redis.config_set("maxmemory", "1mb")
    with Producer(run.settings) as asking, pytest.raises(QueueFull, match="maxmemory"):
        asking.submit(user_id="new", message="one too many")

    wait_until(lambda: not run.inspector.open_ends(), "all drains", PATIENCE_S)

    assert int(redis.info("memory")["used_memory"]) > 1 << 20
    redis.config_set("maxmemory", "0")
    print(f"after the memory is back: {run.answered_after_s():.2f} s")
    check(run)


def test_a_worker_starts_on_a_full_redis(on: SharedServers, valkey: Valkey) -> None:
    with LoadRun(on, valkey) as run:
        run.submit()
        valkey.client().config_set("maxmemory", "1mb")
        run.start(1)
        check(run)


# --- killed, cut off, silent


def test_a_redis_that_is_killed_three_times_loses_and_doubles_nothing(run: LoadRun) -> None:
    took = []
    with SubmitLoad(run, JOBS):
        for _ in range(3):
            run.answered_after_s()
            run.valkey.restart()
            took.append(run.answered_after_s())
    print("after a kill:", [f"{one:.2f} s" for one in took])
    assert max(took) < BACK_S
    check(run)


@pytest.mark.parametrize("fault", ["cut", "fall_silent"])
async def test_workers_come_back_after_their_line_broke(
    on: SharedServers, valkey: Valkey, fault: str
) -> None:
    loop = asyncio.get_running_loop()
    async with FaultyProxy(valkey.port) as line:

        def broken() -> list[float]:
            with LoadRun(on, valkey, line=line.url) as run:
                run.start(2)
                return _after_each(run, lambda: loop.call_soon_threadsafe(getattr(line, fault)))

        took = await asyncio.to_thread(broken)
    print(f"after {fault}:", [f"{one:.2f} s" for one in took])
    assert max(took) < BACK_S


def _after_each(run: LoadRun, act: Callable[[], object], times: int = 2) -> list[float]:
    """Return how long the first reply took after each time that something happened."""
    took = []
    with SubmitLoad(run, JOBS):
        for _ in range(times):
            run.answered_after_s()
            act()
            took.append(run.answered_after_s())
    check(run)
    return took


# --- refusing for a while


def _forgets_scripts(run: LoadRun) -> None:
    for _ in range(20):
        run.valkey.client().script_flush()
        run.submit()


def _read_only(run: LoadRun) -> None:
    redis = run.valkey.client()
    redis.replicaof("127.0.0.1", "1")
    _refuses(run)
    redis.replicaof("NO", "ONE")


def _misconfigured(run: LoadRun) -> None:
    """Fail a snapshot, after which Redis refuses to write."""
    redis = run.valkey.client()
    (run.valkey.folder / "dump.rdb" / "in the way").mkdir(parents=True)
    redis.config_set("save", "3600 1")
    redis.bgsave()
    _refuses(run)
    redis.config_set("save", "")


def _busy(run: LoadRun) -> None:
    redis = run.valkey.client()
    redis.config_set("busy-reply-threshold", "50")
    for_ever = threading.Thread(target=_run_for_ever, args=(run.valkey.client(),))
    for_ever.start()
    _refuses(run)
    redis.script_kill()
    for_ever.join()


def _run_for_ever(redis: Redis) -> None:
    with suppress(RedisError):  # it is killed
        redis.eval("while true do end", 0)


def _loading(run: LoadRun) -> None:
    """Start with a log that takes a while to load; Redis answers meanwhile, but with that only."""
    slowly = ("--key-load-delay", "300", "--loading-process-events-interval-bytes", "1024")
    run.valkey.restart(*slowly)


def _stopped(run: LoadRun) -> None:
    os.kill(run.valkey.pid, signal.SIGSTOP)
    _refuses(run)
    os.kill(run.valkey.pid, signal.SIGCONT)


def _refuses(run: LoadRun) -> None:
    before = len(run.refused)

    def knock() -> None:
        while len(run.refused) == before:
            run.submit()

    run.submitting.append(threading.Thread(target=knock, daemon=True))
    run.submitting[-1].start()  # the refused one is sent until accepted
    wait_until(lambda: len(run.refused) > before, "a job was refused", PATIENCE_S)


@pytest.mark.parametrize(
    "fault", [_forgets_scripts, _read_only, _misconfigured, _busy, _loading, _stopped]
)
def test_a_command_that_redis_refuses_for_a_while_is_repeated(
    run: LoadRun, fault: Callable[[LoadRun], None]
) -> None:
    took = _after_each(run, lambda: fault(run), times=1)
    print(f"after {fault.__name__}: {took[0]:.2f} s")
    assert max(took) < BACK_S


@pytest.mark.parametrize("key", ["k", None])
def test_a_stopped_redis_is_told_of_in_time_with_what_to_do(
    valkey: Valkey, key: str | None
) -> None:
    settings = Settings(redis_url=valkey.url, memory="off", submit_timeout_s=0.5)
    with Producer(settings) as producer:
        producer.submit(user_id="ann", message="hello")
        os.kill(valkey.pid, signal.SIGSTOP)
        started = time.monotonic()
        with pytest.raises(LedgerUnavailable, match=r"same idempotency key.*second job"):
            producer.submit(user_id="ann", message="hello again", idempotency_key=key)
        took = time.monotonic() - started
        os.kill(valkey.pid, signal.SIGCONT)
    assert took < BACK_S, "otherwise for ever: the line is open, and nothing comes"


# --- torn


def test_a_log_that_was_cut_anywhere_holds_whole_steps_only(run: LoadRun, tmp_path: Path) -> None:
    with SubmitLoad(run, JOBS):
        pass
    run.valkey.kill()
    for number in range(CUTS):
        folder = tmp_path / str(number)
        shutil.copytree(run.valkey.folder / "appendonlydir", folder)
        log = max(folder.glob("*.incr.aof"))
        at = random.Random(number).randrange(log.stat().st_size)
        os.truncate(log, at)
        assert not _half_done(run.settings, folder), f"cut {log.name} at byte {at}"


def _half_done(settings: Settings, log: Path) -> list[object]:
    """Return what is wrong in the ledger that a Redis makes of a log."""
    server = Valkey("--appendonly", "yes")
    shutil.copytree(log, server.folder / "appendonlydir")
    with server:
        torn = settings.model_copy(update={"redis_url": server.url})
        return [*asyncio.run(_gaps(torn)), *_miscounted(LedgerInspector(torn))]


async def _gaps(settings: Settings) -> list[object]:
    async with Ledger(settings, patience_s=10) as ledger:
        return [gap async for gap in ledger.maintenance.find_inconsistencies()]


def _miscounted(inspector: LedgerInspector) -> list[object]:
    """Return how the counts differ from a recount."""
    recount: Counter[str] = Counter()
    for key in inspector.redis.scan_iter(inspector.keys.job("*")):
        state, turn, tenant = inspector.redis.hmget(key, "state", "turn", "tenant")
        recount.update([f"job:{state}:{tenant}", f"turn:{turn}:{tenant}"])
    counts = inspector.counts()
    return [] if counts == recount else [counts, recount]
