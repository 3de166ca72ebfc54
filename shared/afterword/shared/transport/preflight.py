"""Checks that a Redis can hold the ledger, before anything is written to it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from redis.exceptions import ResponseError

from afterword.shared.errors import LedgerUnavailable, Misconfigured
from afterword.shared.settings import Durability, RedisSettings
from afterword.shared.transport.pipeline import Pipeline

#: The first version with stream ids `<ms>-*` and with scripts that are replicated by effects.
OLDEST_REDIS = (7, 0)

_NAME = "AFTERWORD_REDIS_URL"


async def check(pipeline: Pipeline, settings: RedisSettings) -> dict[str, str]:
    """Check a Redis; return its server and version, its eviction policy and the durability.

    Raises `Misconfigured` naming the setting if it could lose what it accepted, and
    `LedgerUnavailable` if it gives no answer or has fewer replicas than set.
    """
    found = dict(await pipeline.send_command("INFO"))
    server = "valkey" if "valkey_version" in found else "redis"
    version = str(found.get("valkey_version") or found["redis_version"])
    _check_version(server, version)
    _check_policy(str(found["maxmemory_policy"]))
    await _check_durability(pipeline, settings.durability, aof=int(found["aof_enabled"]) == 1)
    if settings.durability == "d3":
        await _check_replicas(pipeline, settings.replicas, found)
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


async def _check_durability(pipeline: Pipeline, wanted: Durability, *, aof: bool) -> None:
    if wanted == "none":
        return
    if not aof:
        raise Misconfigured(
            _NAME,
            "its append-only file is off, so a restart loses every job; set appendonly yes, "
            "or say AFTERWORD_DURABILITY=none to accept that",
        )
    if wanted == "d2" and await _configured(pipeline, "appendfsync") != "always":
        raise Misconfigured(
            "AFTERWORD_DURABILITY", "d2 needs a Redis with appendfsync always that lets us see it"
        )


async def _check_replicas(pipeline: Pipeline, wanted: int, found: Mapping[str, Any]) -> None:
    """Refuse a Redis that accepts writes without replicas, or has too few of them now."""
    if int(await _configured(pipeline, "min-replicas-to-write") or 0) < 1:
        raise Misconfigured(
            "AFTERWORD_DURABILITY",
            "d3 needs a Redis with min-replicas-to-write of at least 1 that lets us see it",
        )
    known = (found.get(f"slave{number}", {}) for number in range(int(found["connected_slaves"])))
    online = sum(replica.get("state") == "online" for replica in known)
    if online < wanted:
        raise LedgerUnavailable(f"AFTERWORD_REPLICAS: {online} of {wanted} replicas are connected")


async def _configured(pipeline: Pipeline, name: str) -> Any:
    try:
        answer = await pipeline.send_command("CONFIG", "GET", name)
    except ResponseError:
        return None
    return answer[1] if answer else None  # [name, value]: redis-py converts no raw command
