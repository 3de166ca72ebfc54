"""Checks that a Redis is fit to be the ledger, before anything is written to it."""

from __future__ import annotations

from typing import Any

from redis.exceptions import ResponseError

from shared.errors import Misconfigured
from shared.ledger.door import Door
from shared.setting_kinds import Durability
from shared.settings import Settings

#: Streams take '<ms>-*' ids and scripts replicate by effects since this version.
OLDEST_REDIS = (7, 0)

_NAME = "AFTERWORD_REDIS_URL"


async def check(door: Door, settings: Settings) -> dict[str, str]:
    """Return what was found: server, version, policy, durability.

    Raises `Misconfigured` naming the setting if that Redis may lose what it accepted, and
    `LedgerUnavailable` if it cannot be asked.
    """
    found = dict(await door.call("INFO"))
    server = "valkey" if "valkey_version" in found else "redis"
    version = str(found.get("valkey_version") or found["redis_version"])
    _check_version(server, version)
    _check_policy(str(found["maxmemory_policy"]))
    await _check_durability(door, settings.durability, aof=int(found["aof_enabled"]) == 1)
    return {
        "server": f"{server} {version}",
        "policy": "noeviction",
        "durability": settings.durability,
    }


def _check_version(server: str, version: str) -> None:
    numbers = tuple(int(part) for part in version.split(".")[:2])
    if numbers < OLDEST_REDIS:
        oldest = ".".join(map(str, OLDEST_REDIS))
        raise Misconfigured(_NAME, f"{server} {version} is too old, at least {oldest} is needed")


def _check_policy(policy: str) -> None:
    if policy != "noeviction":
        raise Misconfigured(
            _NAME,
            f"its maxmemory-policy is {policy}, which drops jobs when memory is short; "
            "set it to noeviction",
        )


async def _check_durability(door: Door, wanted: Durability, *, aof: bool) -> None:
    if wanted == "none":
        return
    if not aof:
        raise Misconfigured(
            _NAME,
            "its append-only file is off, so a restart loses every job; set appendonly yes, "
            "or say AFTERWORD_DURABILITY=none to accept that",
        )
    if wanted == "d2" and await _fsync(door) != "always":
        raise Misconfigured(
            "AFTERWORD_DURABILITY", "d2 needs a Redis with appendfsync always that lets us see it"
        )


async def _fsync(door: Door) -> Any:
    try:
        answer = await door.call("CONFIG", "GET", "appendfsync")
    except ResponseError:
        return None
    return answer[1] if answer else None  # name and value, flat: redis-py shapes no raw command
