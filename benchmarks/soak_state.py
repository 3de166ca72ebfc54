"""Why a soak does not settle: gates, lanes and the workers' last words.

A soak whose jobs do not end says so with this, while all its servers still run.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from afterword.producer.cli.main import cli
from afterword.shared.names import MEMORIES, Keys
from tests.kit.mem0_api.scripted_answers import Mem0Answer

_SHOWN = 20
_LINES = 25
_LANES = f"{MEMORIES}.0"
_TURN = ("turn", "turn_code", "turn_attempts", "turn_snoozes", "event", "turn_doubtful")


def explanation(
    environ: Mapping[str, str],
    redis: Any,
    keys: Keys,
    *,
    unsettled: Sequence[str],
    script: Iterable[Mem0Answer],
    logs: Iterable[Path],
) -> str:
    """Return what an operator would look at, the oldest lanes first; no content of any user."""
    parts = {
        f"{len(unsettled)} jobs are not settled": "\n".join(unsettled[:_SHOWN]),
        "afterword status": CliRunner(env=dict(environ)).invoke(cli, ["status"]).output,
        "the oldest lanes": "\n".join(_lanes(redis, keys)),
        "what mem0 is still to play": "\n".join(map(str, script)) or "nothing",
    } | {f"the end of {log.name}": _tail(log) for log in logs}
    return "\n".join(f"== {title}\n{text}" for title, text in parts.items())


def _lanes(redis: Any, keys: Keys) -> list[str]:
    waiting = [
        (oldest, lane)
        for key in redis.scan_iter(f"{keys.behind('*')}")
        for lane, oldest in redis.zrange(key, 0, _SHOWN - 1, withscores=True)
    ]
    return [_lane(redis, keys, lane) for _, lane in sorted(waiting)[:_SHOWN]]


def _lane(redis: Any, keys: Keys, lane: str) -> str:
    """Return the place of a lane in its agenda and the state of its oldest turn."""
    seconds, micros = redis.time()
    now = seconds * 1000 + micros // 1000
    places = {
        place: f"{(score - now) / 1000:+.1f} s"
        for place in ("hinted", "waiting", "leased")
        if (score := redis.zscore(keys.place(place, _LANES), lane)) is not None
    }
    oldest = redis.zrange(keys.lane(lane), 0, 0)
    turn = redis.hmget(keys.job(oldest[0]), _TURN) if oldest else []
    said = {name: value for name, value in zip(_TURN, turn, strict=False) if value}
    return f"{lane}: {redis.zcard(keys.lane(lane))} turns, {places or 'nowhere'}, oldest {said}"


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-_LINES:])
