"""Checks that a Redis can hold the ledger, before anything is written to it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError
from redis.exceptions import ResponseError

from afterword.shared.errors import AfterwordError, LedgerUnavailable, Misconfigured
from afterword.shared.servers import is_cluster
from afterword.shared.settings import RedisSettings
from afterword.shared.transport.causes import misconfigured
from afterword.shared.transport.pipeline import Pipeline

#: The first version with stream ids `<ms>-*` and with scripts that are replicated by effects.
OLDEST_REDIS = (7, 0)

#: Causes that say that a server is of another kind than its URL says.
OTHER_KINDS = frozenset({"cluster", "no_cluster", "sentinel", "no_redis"})

_URL, _DURABILITY = "AFTERWORD_REDIS_URL", "AFTERWORD_DURABILITY"


@dataclass(frozen=True, slots=True)
class Preflight:
    """What a Redis says of itself, and what makes it unfit to hold the ledger."""

    server: str
    """Its name and version."""

    policy: str
    """Its eviction policy."""

    durability: str
    """The durability that is set; it is kept only if there are no problems."""

    problems: tuple[AfterwordError, ...]
    """What is wrong, as the errors that `check` raises: `Misconfigured` or `LedgerUnavailable`."""

    memory_used: float = 0.0
    """Which share of its `maxmemory` it uses; 0 if it has none."""


class _Info(BaseModel):
    """What Afterword reads of the answer to INFO; servers differ in the rest."""

    model_config = ConfigDict(extra="ignore", coerce_numbers_to_str=True)

    valkey_version: str = ""
    redis_version: str = ""
    mode: str = Field("standalone", validation_alias=AliasChoices("server_mode", "redis_mode"))
    maxmemory_policy: str = ""
    aof: int = Field(0, validation_alias="aof_enabled")
    cluster_enabled: int = 0
    connected_slaves: int = 0
    used_memory: int = 0
    maxmemory: int = 0

    @property
    def server(self) -> str:
        """Return the name and the version."""
        name = "valkey" if self.valkey_version else "redis"
        return f"{name} {self.valkey_version or self.redis_version}"


async def check(pipelines: Sequence[Pipeline], settings: RedisSettings) -> Preflight:
    """Check every server of the ledger; return what the first says of itself.

    Raises `Misconfigured` naming the setting if one could lose what it accepted, and
    `LedgerUnavailable` if one gives no answer or has fewer replicas than set.
    """
    found = await examine(pipelines, settings)
    for problem in found.problems:
        raise problem
    return found


async def examine(pipelines: Sequence[Pipeline], settings: RedisSettings) -> Preflight:
    """Return what the first server says of itself, and everything that makes any of them unfit.

    Each problem once, worst first. `server` and `policy` are empty if it does not say. Raises
    `LedgerUnavailable` if a server gives no answer.
    """
    first, *others = [await _examine(pipeline, settings) for pipeline in pipelines]
    problems = list(first.problems)
    for one in others:
        said = {str(problem) for problem in problems}
        problems += [problem for problem in one.problems if str(problem) not in said]
    return replace(first, problems=tuple(problems))


async def _examine(pipeline: Pipeline, settings: RedisSettings) -> Preflight:
    try:
        return await _read(pipeline, settings)
    except Misconfigured as error:
        return Preflight("", "", settings.durability, (error,))


async def _read(pipeline: Pipeline, settings: RedisSettings) -> Preflight:
    answer = dict(await pipeline.send_command("INFO"))
    info = _parsed(answer, cluster=is_cluster(settings))
    problems = [*_server_problems(info), *await _durability_problems(pipeline, settings, info)]
    if settings.durability == "d3":
        problems += await _replica_problems(pipeline, settings.replicas, info, answer)
    return Preflight(
        info.server,
        info.maxmemory_policy,
        settings.durability,
        tuple(problems),
        info.used_memory / info.maxmemory if info.maxmemory else 0.0,
    )


def _parsed(answer: Mapping[str, Any], *, cluster: bool) -> _Info:
    """Read the answer to INFO; refuse another kind of server, and what cannot be understood."""
    try:
        info = _Info.model_validate(answer)
    except ValidationError as error:
        name = error.errors(include_input=False, include_url=False)[0]["loc"][0]
        reason = f"its INFO has no usable {name}: no Redis we know"
        raise Misconfigured(_URL, reason, cause="no_redis") from None
    if info.mode == "sentinel":
        raise misconfigured("sentinel")
    if cluster != (info.mode == "cluster" or bool(info.cluster_enabled)):
        raise misconfigured("no_cluster" if cluster else "cluster")
    if not info.maxmemory_policy or not (info.valkey_version or info.redis_version):
        reason = "its INFO names no version or maxmemory_policy: no Redis we know"
        raise Misconfigured(_URL, reason, cause="no_redis")
    return info


def _server_problems(info: _Info) -> list[AfterwordError]:
    problems: list[AfterwordError] = []
    numbers = tuple(map(int, re.findall(r"\d+", info.server)[:2]))
    if numbers < OLDEST_REDIS:
        oldest = ".".join(map(str, OLDEST_REDIS))
        reason = f"{info.server} is too old, at least {oldest} is needed"
        problems.append(Misconfigured(_URL, reason))
    if info.maxmemory_policy != "noeviction":
        reason = (
            f"its maxmemory-policy is {info.maxmemory_policy}, which drops jobs when memory is "
            "short; set it to noeviction"
        )
        problems.append(Misconfigured(_URL, reason))
    return problems


async def _durability_problems(
    pipeline: Pipeline, settings: RedisSettings, info: _Info
) -> list[AfterwordError]:
    if settings.durability == "none":
        return []
    if not info.aof:
        reason = (
            "its append-only file is off, so a restart loses every job; set appendonly yes, "
            "or say AFTERWORD_DURABILITY=none to accept that"
        )
        return [Misconfigured(_URL, reason)]
    if settings.durability == "d2" and await _configured(pipeline, "appendfsync") != "always":
        reason = "d2 needs a Redis with appendfsync always that lets us see it"
        return [Misconfigured(_DURABILITY, reason)]
    return []


async def _replica_problems(
    pipeline: Pipeline, wanted: int, info: _Info, answer: Mapping[str, Any]
) -> list[AfterwordError]:
    """Object to a Redis that accepts writes without replicas, or has too few of them now."""
    problems: list[AfterwordError] = []
    least = await _configured(pipeline, "min-replicas-to-write")
    if not str(least or 0).isdecimal() or int(least or 0) < 1:
        reason = "d3 needs a Redis with min-replicas-to-write of at least 1 that lets us see it"
        problems.append(Misconfigured(_DURABILITY, reason))
    known = (answer.get(f"slave{number}", {}) for number in range(info.connected_slaves))
    online = sum(isinstance(one, Mapping) and one.get("state") == "online" for one in known)
    if online < wanted:
        reason = f"AFTERWORD_REPLICAS: {online} of {wanted} replicas are connected"
        problems.append(LedgerUnavailable(reason, cause="too_few_replicas"))
    return problems


async def _configured(pipeline: Pipeline, name: str) -> Any:
    try:
        answer = await pipeline.send_command("CONFIG", "GET", name)
    except (ResponseError, Misconfigured):  # it has no such command, or not for us
        return None
    return answer[1] if answer else None  # [name, value]: redis-py converts no raw command
