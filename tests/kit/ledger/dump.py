"""All keys of a shard as JSON: taken from one Redis, put into another at another time."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

#: A time as scripts write it, in ms, and one in a dump, told from the moment when that was taken.
_TIME = re.compile(r"(?<![0-9a-f])1[0-9]{12}(?![0-9a-f])")
_TOLD = re.compile(r"@([+-][0-9]+)@")


def dump(redis: Any, root: str, path: Path) -> None:
    """Write down type, value and time to live of every key, a key a line."""
    now = _now_ms(redis)
    lines = (
        f"{json.dumps(key.removeprefix(f'{root}:'))}: {json.dumps(_entry(redis, key))}"
        for key in sorted(redis.scan_iter(f"{root}:*"))
    )
    text = _TIME.sub(lambda time: f"@{int(time[0]) - now:+d}@", ",\n".join(lines))
    path.write_text(f"{{\n{text}\n}}\n")


def load(redis: Any, root: str, path: Path) -> None:
    """Put every key of a dump into a shard that has none of them, as if taken just now."""
    now = _now_ms(redis)
    text = _TOLD.sub(lambda told: str(now + int(told[1])), path.read_text())
    for name, entry in json.loads(text).items():
        key = f"{root}:{name}"
        for command in _commands(key, entry["type"], entry["value"]):
            redis.execute_command(*command)
        if entry["ttl"] is not None:
            redis.pexpire(key, entry["ttl"])


def _now_ms(redis: Any) -> int:
    seconds, microseconds = redis.time()
    return int(seconds * 1000 + microseconds // 1000)


def _entry(redis: Any, key: str) -> dict[str, Any]:
    kind, ttl = redis.type(key), redis.pttl(key)
    return {"type": kind, "value": _value(redis, key, kind), "ttl": ttl if ttl > 0 else None}


def _value(redis: Any, key: str, kind: str) -> Any:
    match kind:
        case "string":
            return redis.get(key)
        case "hash":
            return redis.hgetall(key)
        case "list":
            return redis.lrange(key, 0, -1)
        case "zset":
            return {
                name: f"{score:.0f}" for name, score in redis.zrange(key, 0, -1, withscores=True)
            }
        case "stream":
            return redis.xrange(key)
    raise TypeError(kind)


def _commands(key: str, kind: str, value: Any) -> list[tuple[str, ...]]:
    match kind:
        case "string":
            return [("SET", key, value)]
        case "hash":
            return [("HSET", key, *_flat(value))]
        case "list":
            return [("RPUSH", key, *value)]
        case "zset":
            return [("ZADD", key, score, name) for name, score in value.items()]
        case "stream":
            return [("XADD", key, event_id, *_flat(fields)) for event_id, fields in value]
    raise TypeError(kind)


def _flat(fields: dict[str, str]) -> list[str]:
    return [part for field in fields.items() for part in field]
