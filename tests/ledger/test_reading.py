"""Whatever is wrong with Redis, operators read what there is; only writers are refused."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest
from redis import Redis

from afterword.producer import AsyncProducer, DeadLetterFilter, Misconfigured, NotAccepted
from afterword.producer.admin.async_admin import AsyncOperator
from afterword.shared.ledger.ledger import Ledger
from afterword.shared.settings import Settings
from afterword.shared.transport import preflight
from tests.kit.command_line import afterword
from tests.kit.servers.valkey import Valkey, free_port
from tests.ledger.test_dead_letters import buried, failed

pytestmark = [pytest.mark.redis, pytest.mark.finding(30)]


@dataclass(frozen=True)
class Written:
    """What stands in the ledger, and how to reach it."""

    valkey: Valkey
    dead: str
    run: str
    env: dict[str, str] = field(default_factory=dict)


@pytest.fixture(scope="module")
def written() -> Iterator[Written]:
    with Valkey("--appendonly", "yes") as server:
        env = {"AFTERWORD_REDIS_URL": server.url, "AFTERWORD_SUBMIT_TIMEOUT_S": "0.5"}
        yield Written(server, *asyncio.run(_write(Settings.load(env))), env)


async def _write(settings: Settings) -> tuple[str, str]:
    """Write something for every verb; return a dead letter and a run."""
    async with Ledger(settings, patience_s=5) as ledger, AsyncOperator(settings) as operator:
        await ledger.check(founds=True)
        letter, _ = await buried(ledger), await failed(ledger, user_id="bob")
        await buried(ledger, user_id="cyd")
        await operator.forget("dan")
        plan = await operator.plan(DeadLetterFilter(user_id="cyd"))
        run = await ledger.replay_runs.begin(
            plan.dead_letters, by="t", criteria={}, pace=plan.pace, token="t"
        )
    return letter, run


VERBS = [
    ["status"],
    ["status", "--json"],
    ["status", "DEAD"],
    ["account"],
    ["audit"],
    ["usage"],
    ["dead", "list"],
    ["dead", "list", "--json"],
    ["dead", "show", "DEAD"],
    ["dead", "export"],
    ["dead", "runs"],
    ["dead", "runs", "RUN"],
    ["quarantine", "list"],
    ["forget", "dan"],
]


@dataclass(frozen=True)
class Unfit:
    """A setting under which nothing may be written, and how its warning names it."""

    named: str
    configure: dict[str, str] = field(default_factory=dict)
    env: dict[str, str] = field(default_factory=dict)
    begin: Callable[[Redis], object] = lambda _: None
    end: Callable[[Redis], object] = lambda _: None


UNFIT = {
    "another eviction policy": Unfit("allkeys-lru", {"maxmemory-policy": "allkeys-lru"}),
    "no append-only file": Unfit("append-only", {"appendonly": "no"}),
    "d2 without fsync always": Unfit("appendfsync", env={"AFTERWORD_DURABILITY": "d2"}),
    "d3 after a failover": Unfit(
        "replicas", {"min-replicas-to-write": "1"}, {"AFTERWORD_DURABILITY": "d3"}
    ),
    "d3 on a Redis that goes on alone": Unfit(
        "min-replicas-to-write", env={"AFTERWORD_DURABILITY": "d3"}
    ),
    "a replica": Unfit(
        "",
        begin=lambda redis: redis.replicaof("127.0.0.1", str(free_port())),
        end=lambda redis: redis.replicaof("NO", "ONE"),
    ),
    "at its maxmemory": Unfit("", {"maxmemory": "1mb"}),
}


@pytest.fixture(params=UNFIT)
def unfit(request: pytest.FixtureRequest, written: Written) -> Iterator[Unfit]:
    fault = UNFIT[request.param]
    with written.valkey.client() as redis:
        before = {name: redis.config_get(name)[name] for name in fault.configure}
        for name, value in fault.configure.items():
            redis.config_set(name, value)
        fault.begin(redis)
        yield fault
        fault.end(redis)
        for name, value in before.items():
            redis.config_set(name, value)


def test_every_verb_reads_and_warns(
    written: Written, unfit: Unfit, caplog: pytest.LogCaptureFixture
) -> None:
    for verb in VERBS:
        caplog.clear()
        words = [{"DEAD": written.dead, "RUN": written.run}.get(word, word) for word in verb]
        printed = afterword(*words, env=written.env | unfit.env)
        assert printed.code == 0, printed.everything
        assert printed.stdout
        assert "Traceback" not in printed.everything
        if verb[:2] != ["status", "DEAD"]:  # what a submitter asks is not an operator's
            assert unfit.named in caplog.text


async def test_nothing_is_written(written: Written, unfit: Unfit) -> None:
    with written.valkey.client() as redis:
        before = set(redis.scan_iter())
    settings = Settings.load(written.env | unfit.env)
    async with AsyncProducer(settings) as producer:
        with pytest.raises((Misconfigured, NotAccepted)):
            await producer.submit(user_id="eve", message="hello")
    with written.valkey.client() as redis:
        assert set(redis.scan_iter()) == before


def test_a_redis_that_is_too_old_is_read(
    written: Written, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(preflight, "OLDEST_REDIS", (99, 0))
    printed = afterword("status", env=written.env)
    assert printed.code == 0
    assert "too old" in caplog.text
    assert "too old" in afterword("submit", "hello", "--user", "ann", env=written.env).stderr


def test_a_user_without_info_reads(written: Written, caplog: pytest.LogCaptureFixture) -> None:
    with written.valkey.client() as redis:
        redis.acl_setuser("eye", enabled=True, nopass=True, commands=["+@all", "-info"], keys=["*"])
        redis.acl_setuser("eye", enabled=True, channels=["*"])
    url = written.valkey.url.replace("//", "//eye:x@")
    printed = afterword("dead", "list", env={"AFTERWORD_REDIS_URL": url})
    assert printed.code == 0
    assert "INFO" in caplog.text


def test_nothing_is_warned_of_while_all_is_well(
    written: Written, caplog: pytest.LogCaptureFixture
) -> None:
    for verb in (["status"], ["dead", "list"], ["account"]):
        assert not afterword(*verb, env=written.env).stderr
    assert not caplog.text
