"""What a worker asks the ledger when it starts."""

from __future__ import annotations

import pytest

from afterword.shared.names import MEMORIES
from afterword.shared.settings import Settings
from afterword.shared.transport.scripts import script
from afterword.workers.wiring import runtime
from tests.kit.servers.valkey import Valkey

pytestmark = [pytest.mark.system, pytest.mark.redis]

IDENTIFY = script("maintenance/identify").sha


async def test_a_worker_reads_what_the_ledger_is_once(server: Valkey, namespace: str) -> None:
    settings = Settings(redis_url=server.url, namespace=namespace, durability="none", memory="off")
    async with runtime(settings, lambda: {MEMORIES}):
        pass  # Redis knows the scripts from now on
    with server.client() as redis:
        redis.config_set("slowlog-max-len", 100_000)
        redis.config_set("slowlog-log-slower-than", 0)
        async with runtime(settings, lambda: {MEMORIES}):
            pass
        ran = [entry["command"].decode(errors="replace") for entry in redis.slowlog_get(100_000)]
        redis.config_set("slowlog-log-slower-than", -1)
    assert sum(command.startswith(f"EVALSHA {IDENTIFY} ") for command in ran) == 1
