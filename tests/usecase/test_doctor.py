"""Each fault turns `afterword doctor` red and names its cure; its end turns it green."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from redis.client import PubSub
from redis.exceptions import RedisError

from afterword.producer.cli import doctor
from afterword.producer.cli.checks import judgement
from afterword.producer.cli.checks.finding import CHECKS, Finding, Level, ok, run_all
from afterword.shared.errors import Fault
from afterword.shared.ledger.ledger import Ledger
from afterword.shared.ledger.records import (
    CallOutcome,
    CallReport,
    TaskHealth,
    UnrecognisedMessage,
)
from afterword.shared.names import control_channel
from afterword.shared.settings import Settings
from afterword.shared.version import __version__
from afterword.workers.background.rollback_detector import Seen, SeenFile, place_of
from tests.conftest import ROOT
from tests.kit.claude_api.scripted_answers import ClaudeAnswer
from tests.kit.command_line import Printed, afterword
from tests.kit.ledger.builder import LedgerInspector, submit_and_answer, submit_job
from tests.kit.mem0_api.scripted_answers import Mem0Answer
from tests.kit.mem0_api.server import KEY
from tests.kit.servers.postgres import Postgres
from tests.kit.servers.provider_thread import ProviderThread
from tests.kit.servers.valkey import Valkey, free_port
from tests.kit.waiting import wait_until
from tests.ledger.test_dead_letters import failed

pytestmark = [pytest.mark.redis, pytest.mark.finding(25)]

HOUR_S = 3600

#: A check that takes longer hangs; on a busy machine the others take a while, too.
LIMIT_S = 20.0

#: So soon doctor gives up on a Redis that is away; on one that is there, not even if that is slow.
SOON = {"AFTERWORD_SUBMIT_TIMEOUT_S": "0.5"}


@dataclass
class Place:
    """Everything that a job needs, and doctor."""

    valkey: Valkey
    providers: ProviderThread
    env: dict[str, str]

    def doctor(self, *options: str, **env: str) -> Printed:
        """Run doctor while both kinds of workers are alive."""
        self.do(self.beat)
        return afterword("doctor", *options, env=self.env | env)

    def findings(self, **env: str) -> list[dict[str, str]]:
        """Return what doctor finds that is not as it should be."""
        found = json.loads(self.doctor("--json", **env).stdout)
        return [one for one in found if one["level"] != "ok"]

    def do(self, act: Callable[[Ledger], Awaitable[Any]]) -> Any:
        """Do something with the ledger."""

        async def done() -> Any:
            async with Ledger(Settings.load(self.env), patience_s=5) as ledger:
                return await act(ledger)

        return asyncio.run(done())

    @property
    def redis(self) -> Redis:
        """Return a client."""
        return self.valkey.client()

    @property
    def inspector(self) -> LedgerInspector:
        """Return a look at the ledger."""
        return LedgerInspector(Settings.load(self.env))

    @staticmethod
    async def beat(ledger: Ledger) -> None:
        for queue in ("replies", "memories"):
            await ledger.maintenance.record_heartbeat(queue, "host:1", [], instance="a")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Valkey, ProviderThread]]:
    with Valkey("--appendonly", "yes") as server, ProviderThread() as providers:
        env = {
            "AFTERWORD_REDIS_URL": server.url,
            "AFTERWORD_DATA_DIR": str(_data_dir(tmp_path_factory)),
        }
        afterword("doctor", env=env)  # the first one imports and builds everything
        yield server, providers


def _data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.getbasetemp() / "doctor"


@pytest.fixture(autouse=True)
def _unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "run_all", partial(run_all, limit_s=LIMIT_S))
    monkeypatch.setattr(judgement, "_SILENT_S", LIMIT_S)


@pytest.fixture
def place(
    shared: tuple[Valkey, ProviderThread], namespace: str, tmp_path_factory: pytest.TempPathFactory
) -> Place:
    server, providers = shared
    env = {
        "AFTERWORD_REDIS_URL": server.url,
        "AFTERWORD_NAMESPACE": namespace,
        "AFTERWORD_DATA_DIR": str(_data_dir(tmp_path_factory)),
        "AFTERWORD_STATE_DIR": str(_data_dir(tmp_path_factory) / "state"),
        "AFTERWORD_SUBMIT_TIMEOUT_S": str(LIMIT_S),
        "ANTHROPIC_API_KEY": "k",
        "ANTHROPIC_BASE_URL": providers.claude.url,
    }
    made = Place(server, providers, env)
    made.do(lambda ledger: ledger.check(founds=True))
    return made


@pytest.mark.parametrize("backend", ["embedded", "hosted"])
def test_a_healthy_stack_has_no_findings(place: Place, backend: str) -> None:
    env = {"AFTERWORD_MEMORY": backend}
    if backend == "hosted":
        env |= {"MEM0_API_KEY": KEY, "MEM0_HOST": place.providers.mem0.url}
    before = set(place.redis.scan_iter())

    printed = place.doctor("--strict", "--json", **env)

    found = [Finding(**one) for one in json.loads(printed.stdout)]
    assert [one for one in found if one.level != Level.OK] == []
    assert printed.code == 0
    assert [one.check for one in found] == [check for check in CHECKS if check != "broker"]
    assert {key for key in set(place.redis.scan_iter()) - before if "worker" not in key} == set()


# --- faults

Act = Callable[[Place], Any]


@dataclass(frozen=True)
class Staged:
    """A fault: which check finds it, a word of its cure, how it begins and ends."""

    check: str
    cure: str
    env: dict[str, str] = field(default_factory=dict)
    begin: Act = lambda _: None
    end: Act = lambda _: None
    level: str = "fail"


def configured(
    check: str, cure: str, env: Mapping[str, str] | None = None, **values: str
) -> Staged:
    def begin(place: Place) -> None:
        for name, value in values.items():
            place.redis.config_set(name.replace("_", "-"), value)

    normal = {
        "maxmemory": "0",
        "maxmemory_policy": "noeviction",
        "appendonly": "yes",
        "min_replicas_to_write": "0",
    }

    def end(place: Place) -> None:
        for name in values:
            place.redis.config_set(name.replace("_", "-"), normal[name])

    return Staged(check, cure, dict(env or {}), begin, end)


def sent(how: signal.Signals) -> Act:
    return lambda place: os.kill(place.valkey.pid, how)


def block(place: Place) -> None:
    place.redis.config_set("busy-reply-threshold", "50")
    threading.Thread(target=_run_for_ever, args=(place.redis,), daemon=True).start()
    wait_until(lambda: _is_blocked(place), "Redis is busy", 5)


def _run_for_ever(redis: Redis) -> None:
    with suppress(RedisError):  # it is killed
        redis.eval("while true do end", 0)


def _is_blocked(place: Place) -> bool:
    try:
        place.redis.ping()
    except RedisError:
        return True
    return False


def unblock(place: Place) -> None:
    place.redis.script_kill()
    wait_until(lambda: not _is_blocked(place), "Redis answers", 5)


def fill_queue(place: Place) -> None:
    place.do(submit_job)


def nearly_fill_queue(place: Place) -> None:
    for _ in range(4):
        fill_queue(place)


def empty_queue(place: Place) -> None:
    place.redis.delete(place.inspector.keys.open)


def fill_ordered_bytes(place: Place) -> None:
    fill_queue(place)
    afterword("limits", "default", "--most-bytes", "100", "--apply", env=place.env)


def lift_ordered_bytes(place: Place) -> None:
    afterword("limits", "default", "--lift", "--apply", env=place.env)
    empty_queue(place)


def see_a_newer_ledger(place: Place) -> None:
    _seen_here(place).save(Seen(numbers={0: 1_000_000}))


def see_this_ledger(place: Place) -> None:
    _seen_here(place).save(Seen(numbers={0: 0}))


def _seen_here(place: Place) -> SeenFile:
    settings = Settings.load(place.env)
    identity = place.do(lambda ledger: ledger.identities.check(founds=False))
    return SeenFile(settings.state_dir, identity.name, place_of(settings))


def be_replica(place: Place) -> None:
    place.redis.replicaof("127.0.0.1", str(free_port()))


ELSEWHERE: list[PubSub] = []


def listen_elsewhere(place: Place) -> None:
    """Hear commands as the workers of a fleet do that has another database."""
    ELSEWHERE.append(PubSub(place.redis.connection_pool))
    ELSEWHERE[-1].subscribe(control_channel(place.env["AFTERWORD_NAMESPACE"], "3"))
    ELSEWHERE[-1].get_message(timeout=5)


def stop_listening(_: Place) -> None:
    ELSEWHERE.pop().close()


def note_a_message(place: Place) -> None:
    found = UnrecognisedMessage("replies", "not_a_hint", 7, "0" * 64, "")
    place.do(lambda ledger: ledger.quarantine.add(found))


def forget_notes(place: Place) -> None:
    place.do(lambda ledger: ledger.quarantine.clear())


def fail_jobs(place: Place) -> None:
    async def fail_many(ledger: Ledger) -> None:
        for number in range(10):
            await failed(ledger, user_id=f"u{number}")

    place.do(fail_many)


def shut_gate(place: Place) -> None:
    report = CallReport(CallOutcome.SHUT, "key_refused", Fault.OPERATOR)
    place.do(lambda ledger: ledger.gates.report_outcome("claude/m", "t", report))


def open_gate(place: Place) -> None:
    place.inspector.end_pause("claude/m")

    async def send_canary(ledger: Ledger) -> None:
        await ledger.gates.request("claude/m", "canary", canary_s=5)
        report = CallReport(CallOutcome.WORKED)
        await ledger.gates.report_outcome("claude/m", "canary", report)

    place.do(send_canary)


def trouble_a_worker(place: Place) -> None:
    async def beat(ledger: Ledger) -> None:
        sweep = TaskHealth("sweep", "failing", 3, 0.1, None)
        await ledger.maintenance.record_heartbeat("replies", "host:2", [sweep])

    place.do(beat)


def forget_worker(place: Place) -> None:
    place.redis.zrem(place.inspector.keys.workers, "replies host:2")


def be_an_older_worker(place: Place) -> None:
    keys = place.inspector.keys
    now_s, _ = place.redis.time()
    place.redis.zadd(keys.workers, {"replies host:2": now_s * 1000})
    place.redis.hset(keys.worker_status, "replies host:2", '{"version": "0.0.1"}')


def use_memory(memory: str, address: str) -> Act:
    """Let a worker say that it uses that memory."""

    def begin(place: Place) -> None:
        be_an_older_worker(place)
        said = {"version": __version__, "memory": memory, "memory_place": address}
        place.redis.hset(place.inspector.keys.worker_status, "replies host:2", json.dumps(said))

    return begin


def let_a_job_wait(place: Place) -> None:
    fill_queue(place)
    place.inspector.pass_time(120)


def take_up(place: Place) -> None:
    place.redis.delete(*place.redis.scan_iter(f"{place.inspector.keys.root}:hinted:*"))


def let_a_turn_wait(place: Place) -> None:
    place.do(submit_and_answer)
    take_up(place)
    behind = f"{place.inspector.keys.root}:behind:default"
    for lane in place.redis.zrange(behind, 0, -1):
        place.redis.zincrby(behind, -2 * HOUR_S * 1000, str(lane))


def store_turn(place: Place) -> None:
    place.redis.delete(f"{place.inspector.keys.root}:behind:default")


def pause_memories(place: Place) -> None:
    afterword("pause", "memories", "--tenant", "acme corp", "--apply", env=place.env)


def pause_memories_and_forget(place: Place) -> None:
    """Pause them without an end, two days ago."""
    pause_memories(place)
    redis, orders = place.inspector.redis, place.inspector.keys.orders
    for name, text in redis.hgetall(orders).items():
        order = json.loads(text)
        order["since"] -= 2 * 86_400_000
        redis.hset(orders, name, json.dumps(order))


def resume_memories(place: Place) -> None:
    afterword("resume", "memories", "--tenant", "acme corp", "--apply", env=place.env)


def limit_beside_an_older_worker(place: Place) -> None:
    be_an_older_worker(place)
    afterword("limits", "acme", "--weight", "2", "--apply", env=place.env)


def lift_limits(place: Place) -> None:
    forget_worker(place)
    afterword("limits", "acme", "--lift", "--apply", env=place.env)


def says(answer: ClaudeAnswer) -> Act:
    """Let Claude answer so, when it counts tokens and when it is asked for one."""

    def begin(place: Place) -> None:
        place.providers.claude.count_answer = answer
        place.providers.claude.interject(answer)

    return begin


def says_what_is_true(place: Place) -> None:
    place.providers.claude.count_answer = None
    place.providers.claude.forget()


NOWHERE = f"127.0.0.1:{free_port()}"
FOREIGN = {"id": "m", "memory": "I like tea.", "user_id": "default/bob", "score": 0.9}
HOSTED = {"AFTERWORD_MEMORY": "hosted", "MEM0_API_KEY": KEY}

STAGED = {
    "an unknown setting": Staged("settings", "Fix", {"AFTERWORD_FOO": "1"}),
    "nothing listens": Staged(
        "redis", "AFTERWORD_REDIS_URL", SOON | {"AFTERWORD_REDIS_URL": f"redis://{NOWHERE}/0"}
    ),
    "Redis is stopped": Staged(
        "redis", "AFTERWORD_REDIS_URL", SOON, begin=sent(signal.SIGSTOP), end=sent(signal.SIGCONT)
    ),
    "a script blocks Redis": Staged("redis", "AFTERWORD_REDIS_URL", SOON, block, unblock),
    "Redis lost its replicas": configured(
        "write", "AFTERWORD_REDIS_URL", SOON, min_replicas_to_write="1"
    ),
    "another eviction policy": configured(
        "redis", "AFTERWORD_REDIS_URL", maxmemory_policy="allkeys-lru"
    ),
    "no append-only file": configured("redis", "AFTERWORD_REDIS_URL", appendonly="no"),
    "too few replicas": Staged(
        "redis", "AFTERWORD_DURABILITY", SOON | {"AFTERWORD_DURABILITY": "d3"}
    ),
    "Redis is full": configured("write", "maxmemory", maxmemory="1mb"),
    "a replica": Staged(
        "write",
        "AFTERWORD_REDIS_URL",
        SOON,
        begin=be_replica,
        end=lambda place: place.redis.replicaof("NO", "ONE"),
    ),
    "a worker with another memory": Staged(
        "same memory", "MEM0_API_KEY", {}, use_memory("hosted", "0123abcd"), forget_worker
    ),
    "a worker with other owners": Staged(
        "same memory",
        "AFTERWORD_MEMORY_OWNER",
        {},
        use_memory("embedded, owners are user ids", "0123abcd"),
        forget_worker,
    ),
    "a worker with a memory elsewhere": Staged(
        "same memory",
        "AFTERWORD_DATA_DIR",
        {},
        use_memory("embedded", "0123abcd"),
        forget_worker,
        level="warn",
    ),
    "another number of shards": Staged("layout", "AFTERWORD_SHARDS", {"AFTERWORD_SHARDS": "2"}),
    "a ledger from a backup": Staged(
        "restored", "afterword restored --apply", {}, see_a_newer_ledger, see_this_ledger
    ),
    "the same namespace in another database": Staged(
        "neighbours", "AFTERWORD_NAMESPACE", {}, listen_elsewhere, stop_listening, level="warn"
    ),
    "messages of others": Staged(
        "neighbours", "afterword quarantine list", {}, note_a_message, forget_notes, level="warn"
    ),
    "the queue is full": Staged(
        "room", "AFTERWORD_MAX_QUEUED", {"AFTERWORD_MAX_QUEUED": "1"}, fill_queue, empty_queue
    ),
    "the tenant may submit no more": Staged(
        "room",
        "AFTERWORD_MAX_OPEN_PER_TENANT",
        {"AFTERWORD_MAX_OPEN_PER_TENANT": "1"},
        fill_queue,
        empty_queue,
    ),
    "the tenant may submit no more bytes": Staged(
        "room",
        "AFTERWORD_MAX_BYTES_PER_TENANT",
        {"AFTERWORD_MAX_BYTES_PER_TENANT": "100"},
        fill_queue,
        empty_queue,
    ),
    "an order lets the tenant submit no more bytes": Staged(
        "room", "--most-bytes of afterword limits", {}, fill_ordered_bytes, lift_ordered_bytes
    ),
    "the queue is nearly full": Staged(
        "room",
        "AFTERWORD_MAX_QUEUED",
        {"AFTERWORD_MAX_QUEUED": "5"},
        nearly_fill_queue,
        empty_queue,
        level="warn",
    ),
    "a dead broker": Staged(
        "broker", "AFTERWORD_BROKER_URL", {"AFTERWORD_BROKER_URL": f"redis://{NOWHERE}/0"}
    ),
    "a periodic task fails": Staged(
        "response workers", "afterword status", {}, trouble_a_worker, forget_worker
    ),
    "a worker of another version": Staged(
        "response workers", "upgrade", {}, be_an_older_worker, forget_worker, level="warn"
    ),
    "jobs are not taken up": Staged(
        "queues", "afterword worker responses", {}, let_a_job_wait, take_up
    ),
    "a gate is shut": Staged("gates", "Set ANTHROPIC_API_KEY", {}, shut_gate, open_gate),
    "an order was forgotten": Staged(
        "orders",
        "is 2.0 d old. If it was forgotten: afterword resume memories --tenant 'acme corp' --apply",
        {},
        pause_memories_and_forget,
        resume_memories,
        level="warn",
    ),
    "an order lets work wait": Staged(
        "orders",
        "afterword resume memories --tenant 'acme corp' --apply",
        {},
        pause_memories,
        resume_memories,
        level="warn",
    ),
    "a worker is too old to obey": Staged(
        "orders", "upgrade", {}, limit_beside_an_older_worker, lift_limits, level="warn"
    ),
    "turns are not stored": Staged("turns", "afterword account", {}, let_a_turn_wait, store_turn),
    "many dead letters": Staged(
        "dead letters",
        "afterword dead list",
        {},
        fail_jobs,
        lambda place: afterword("dead", "discard", "--all", "--apply", env=place.env),
    ),
    "one dead letter": Staged(
        "dead letters",
        "afterword dead replay",
        {},
        lambda place: place.do(failed),
        lambda place: afterword("dead", "discard", "--all", "--apply", env=place.env),
        level="warn",
    ),
    "Claude refuses the key": Staged(
        "claude",
        "ANTHROPIC_API_KEY",
        {},
        says(ClaudeAnswer(status=401, times=None)),
        says_what_is_true,
    ),
    "Claude is at another address": Staged(
        "claude",
        "ANTHROPIC_BASE_URL",
        {},
        says(ClaudeAnswer(status=301, times=None)),
        says_what_is_true,
    ),
    "Claude has no such model": Staged(
        "claude",
        "AFTERWORD_MODEL",
        {},
        says(ClaudeAnswer(status=404, times=None)),
        says_what_is_true,
    ),
    "Claude has no such fallback": Staged(
        "claude",
        "AFTERWORD_FALLBACK_MODELS",
        {"AFTERWORD_FALLBACK_MODELS": "claude-x"},
        says(ClaudeAnswer(status=404, match="claude-x", times=None)),
        says_what_is_true,
        level="warn",
    ),
    "Claude is not there": Staged(
        "claude", "ANTHROPIC_BASE_URL", {"ANTHROPIC_BASE_URL": f"http://{NOWHERE}"}
    ),
    "no key of Claude": Staged("claude", "ANTHROPIC_API_KEY", {"ANTHROPIC_API_KEY": ""}),
    "a model that ends": Staged(
        "claude",
        "AFTERWORD_FALLBACK_MODELS",
        {"AFTERWORD_FALLBACK_MODELS": "claude-sonnet-4-5"},
        level="warn",
    ),
    "mem0 refuses the key": Staged("memory", "MEM0_API_KEY", {"MEM0_API_KEY": "wrong"}),
    "mem0 is not there": Staged("memory", "MEM0_HOST", HOSTED | {"MEM0_HOST": f"http://{NOWHERE}"}),
    "mem0 is at another address": Staged(
        "memory",
        "MEM0_HOST",
        HOSTED,
        lambda place: place.providers.mem0.will_answer(Mem0Answer(status=404, times=None)),
        lambda place: place.providers.mem0._script.clear(),
    ),
    "mem0 finds the memories of others": Staged(
        "memory",
        "update what serves memory",
        HOSTED,
        lambda place: place.providers.mem0.will_answer(
            Mem0Answer(verb="search", body=json.dumps({"results": [FOREIGN]}), times=None)
        ),
        lambda place: place.providers.mem0._script.clear(),
    ),
    "no folder for memories": Staged(
        "memory", "AFTERWORD_DATA_DIR", {"AFTERWORD_DATA_DIR": "/dev/null"}
    ),
}


@pytest.mark.parametrize("name", STAGED)
def test_a_fault_turns_it_red_and_its_end_turns_it_green(place: Place, name: str) -> None:
    fault = STAGED[name]
    env = {"MEM0_HOST": place.providers.mem0.url} | fault.env
    place.do(place.beat)  # not later: a fault may keep Redis from it
    fault.begin(place)
    try:
        printed = afterword("doctor", "--json", env=place.env | env)
    finally:
        fault.end(place)

    findings = json.loads(printed.stdout)
    failed = [one["detail"] for one in findings if one["level"] == "fail"]
    assert sorted(set(failed)) == sorted(failed), "each is told once"
    found = [one for one in findings if one["check"] == fault.check]
    assert fault.level in [one["level"] for one in found], printed.stdout
    assert any(fault.cure in one["remedy"] for one in found), found
    assert printed.code == (1 if fault.level == "fail" else 0)
    assert "Traceback" not in printed.everything
    assert place.findings() == []


def test_workers_that_stopped_are_missed(place: Place) -> None:
    printed = afterword("doctor", env=place.env)  # no heartbeat

    assert "FAIL  response workers: none running" in printed.stdout
    assert "-> Start one: afterword worker memories" in printed.stdout
    assert printed.code == 1
    assert place.findings() == []


def test_a_wrong_password_is_named_and_not_shown(place: Place) -> None:
    url = place.valkey.url.replace("//", "//ann:s3cr3t@")
    printed = place.doctor(AFTERWORD_REDIS_URL=url)

    assert "user name or the password" in printed.stdout
    assert "s3cr3t" not in printed.everything


@pytest.mark.slow
def test_a_silent_broker_hides_nothing(place: Place) -> None:
    with socket.create_server(("127.0.0.1", 0)) as nobody_accepts:
        url = f"redis://127.0.0.1:{nobody_accepts.getsockname()[1]}/0"
        found = place.findings(AFTERWORD_BROKER_URL=url)

    assert [one["check"] for one in found] == ["broker"]


def test_a_broker_of_its_own_takes_a_message_and_keeps_none(place: Place) -> None:
    url = place.valkey.url.replace("/0", "/1")
    with Redis.from_url(url) as broker:
        broker.flushdb()
        assert place.findings(AFTERWORD_BROKER_URL=url) == []
        assert broker.dbsize() == 0


def test_the_memory_check_leaves_no_memory_behind(place: Place, tmp_path: Path) -> None:
    place.doctor(AFTERWORD_DATA_DIR=str(tmp_path))

    assert not [
        file for file in tmp_path.rglob("*") if file.is_file() and b"lemon" in file.read_bytes()
    ]


@pytest.mark.slow
def test_a_memory_in_postgresql_is_tried_without_asking_a_model(
    place: Place, postgres: Postgres
) -> None:
    env = {"AFTERWORD_MEMORY": "selfhosted", "AFTERWORD_POSTGRES_URL": postgres.new_database()}
    place.providers.claude.requests.clear()

    assert place.findings(**env) == []
    assert {one.path.partition("?")[0] for one in place.providers.claude.requests} == {
        "/v1/messages/count_tokens"
    }

    wrong = env | {"AFTERWORD_POSTGRES_URL": f"postgresql://ann:s3cr3t@{NOWHERE}/x"}
    printed = place.doctor(**wrong)
    assert "-> Check AFTERWORD_POSTGRES_URL" in printed.stdout
    assert "s3cr3t" not in printed.everything


def test_warnings_count_if_asked(place: Place) -> None:
    place.do(failed)

    assert place.doctor().code == 0
    assert place.doctor("--strict").code == 1


# --- checks run side by side


def test_a_check_that_hangs_neither_delays_nor_hides_another() -> None:
    release = threading.Event()

    async def hangs() -> list[Finding]:
        release.wait(60)  # nobody can cancel this
        return []

    async def bug() -> list[Finding]:
        raise KeyError("content")

    async def fine() -> list[Finding]:
        return [ok("claude", "fine")]

    found, hung = run_all({"broker": hangs, "memory": bug, "claude": fine}, limit_s=3)
    release.set()

    assert hung
    assert [(one.check, one.level) for one in found] == [
        ("broker", Level.FAIL),
        ("memory", Level.FAIL),
        ("claude", Level.OK),
    ]
    assert "KeyError" in found[1].detail
    assert "content" not in found[1].detail


def test_every_check_is_explained() -> None:
    page = (ROOT / "docs/how-to/doctor.md").read_text()
    for check, question in CHECKS.items():
        assert f"| {check} | {question} |" in page


def test_what_takes_long_to_import_is_there_before_a_limit_runs(tmp_path: Path) -> None:
    """In a process of its own: here other tests have imported it."""
    program = (
        "import sys\n"
        "from afterword.producer.cli import doctor\n"
        "def run_all(looks):\n"
        "    print(*sorted({'anthropic', 'mem0.memory.main'} & sys.modules.keys()))\n"
        "    return [], False\n"
        "doctor.run_all = run_all\n"
        "doctor._examine()\n"
    )
    env = {"AFTERWORD_REDIS_URL": "redis://localhost/0", "AFTERWORD_DATA_DIR": str(tmp_path)}
    printed = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        check=True,
    )
    assert printed.stdout.split() == ["anthropic", "mem0.memory.main"]
