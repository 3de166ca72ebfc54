"""How long each page of the console takes, on a ledger with a million jobs of 10,000 tenants.

python -m benchmarks.console [--jobs 1000000] [--dead 50000] [--tenants 10000] [--asks 20]

The records are written by Redis itself, in the form that the ledger's scripts give them. Pages are
asked for in this process, without a network: what is measured is the console and the ledger.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from collections.abc import Iterator
from datetime import UTC, datetime

import httpx
import redis

from afterword.shared.names import Keys
from afterword.shared.settings import Settings
from tests.kit.console_client import Browser, console_client
from tests.kit.servers.valkey import Valkey
from tests.kit.waiting import until

_AT_ONCE = 5_000

#: Writes jobs FROM to TO; those up to DEAD have a turn that was buried, others were stored.
_FILL = """
local root, now = KEYS[1], ARGV[4]
local from, to, dead = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local tenants, period = tonumber(ARGV[5]), ARGV[6]
local codes = { 'rejected', 'timeout', 'mem0_invalid', 'bad_answer' }
for n = from, to do
  local id = string.format('j00_%032x', n)
  local tenant = 'tenant-' .. (n % tenants)
  local turn = n <= dead and 'dead' or 'stored'
  redis.call('HSET', root .. ':job:' .. id, 'version', 1, 'state', 'succeeded', 'turn', turn,
    'tenant', tenant, 'lane', 'l00_' .. tenant .. '/user-' .. (n % 20000), 'created', now - n,
    'deadline', now + 3600000, 'attempts', 1, 'started', now - n + 20, 'ended', now - n + 2000,
    'agenda', 'replies.3', 'body', '{"message":"Where did I put my keys?","user_id":"u"}')
  if n <= dead then
    redis.call('HSET', root .. ':job:' .. id, 'turn_ended', now - n, 'turn_code', codes[n % 4 + 1],
      'turn_fault', 'request', 'turn_attempts', 3, 'turn_worker', '0.1.0')
    redis.call('ZADD', root .. ':dead-turns', now - n, id)
  end
  redis.call('ZADD', root .. ':user-jobs:l00_' .. tenant .. '/user-' .. (n % 20000), n, id)
  for _, owner in ipairs({ ':' .. tenant, 'l00_' .. tenant .. '/user-' .. (n % 20000) }) do
    redis.call('INCRBY', root .. ':spent:' .. owner .. '/' .. period, n % 700)
    redis.call('INCRBY', root .. ':spent:' .. owner .. '/' .. period .. '/tokens', 300)
  end
  redis.call('HINCRBY', root .. ':counts', 'turn:' .. turn .. ':' .. tenant, 1)
  redis.call('HINCRBY', root .. ':counts', 'job:succeeded:' .. tenant, 1)
end
"""


#: Writes ENTRIES of the audit.
_AUDIT = """
for n = 1, tonumber(ARGV[1]) do
  redis.call('XADD', KEYS[1], '*', 'by', 'ops-' .. (n % 9), 'action', 'replay', 'run', 'r',
    'details', '{"filter":{"code":"timeout"},"dead_letters":12}')
end
"""
_ENTRIES = 100_000


def fill(settings: Settings, jobs: int, dead: int, tenants: int) -> None:
    """Write the records."""
    with redis.Redis.from_url(str(settings.redis_url)) as client:
        script, now = client.register_script(_FILL), client.time()[0] * 1000
        month = datetime.fromtimestamp(now / 1000, UTC).replace(day=1)
        period = f"month-{int(month.timestamp()) // 86_400}"
        for start in range(1, jobs + 1, _AT_ONCE):
            last = min(start + _AT_ONCE - 1, jobs)
            root = Keys(settings.namespace, 0).root
            script([root], [start, last, dead, now, tenants, period])
        client.register_script(_AUDIT)([Keys(settings.namespace, 0).audit], [_ENTRIES])


def pages() -> Iterator[tuple[str, str]]:
    """Yield a name and the path of each page."""
    job = f"/jobs/j00_{7:032x}"
    yield from {
        "overview": "/",
        "jobs": "/jobs",
        "a job": job,
        "a user": "/users?tenant=tenant-7&user_id=user-7",
        "dead letters": "/dead-letters",
        "dead letters, one code": "/dead-letters?code=timeout",
        "dead letters, one user": "/dead-letters?user_id=user-7&tenant=tenant-7",
        "dead letters, no match": "/dead-letters?code=nothing",
        "replays": "/runs",
        "lanes": "/lanes",
        "tenants": "/tenants",
        "budgets": "/budgets",
        "budgets of a tenant's users": "/budgets?tenant=tenant-7",
        "a tenant": "/tenants?tenant=tenant-7",
        "gates": "/gates",
        "orders": "/orders",
        "workers": "/workers",
        "audit": "/audit",
        "audit, no match": "/audit?action=nothing",
        "keys": "/keys",
    }.items()


async def measure(settings: Settings, asks: int) -> None:
    """Ask for each page several times, and print how long that took."""
    print(f"{'page':28} {'median':>9} {'slowest':>9}")
    async with console_client(settings) as browser:
        for name, path in pages():
            took = [await _ask(browser, path) for _ in range(asks)]
            print(f"{name:28} {statistics.median(took):6.0f} ms {max(took):6.0f} ms")
        await browser.get("/dead-letters")
        began = time.perf_counter()
        made = await browser.post("/plans", all="yes")
        await until(lambda: _is_planned(browser, made), "the dry run is done", 600)
        print(f"{'dry run of all, done after':28} {1000 * (time.perf_counter() - began):6.0f} ms")


async def _ask(browser: Browser, path: str) -> float:
    began = time.perf_counter()
    answer = await browser.get(path)
    assert answer.is_success, (path, answer.status_code)
    return 1000 * (time.perf_counter() - began)


async def _is_planned(browser: Browser, made: httpx.Response) -> bool:
    return "Why they are dead" in (await browser.follow(made)).text


def main() -> None:
    """Fill a Valkey of its own, and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=1_000_000)
    parser.add_argument("--dead", type=int, default=50_000)
    parser.add_argument("--tenants", type=int, default=10_000)
    parser.add_argument("--asks", type=int, default=20)
    chosen = parser.parse_args()
    with Valkey() as valkey:
        settings = Settings(
            redis_url=valkey.url,
            namespace="console",
            durability="none",
            memory="embedded",
            budgets={"*": {"tenant_usd": 0.05, "user_tokens": 20_000}},
        )
        fill(settings, chosen.jobs, chosen.dead, chosen.tenants)
        print(f"{chosen.jobs:,} jobs, {chosen.dead:,} dead letters, {chosen.tenants:,} tenants")
        asyncio.run(measure(settings, chosen.asks))


if __name__ == "__main__":
    main()
