"""What a command of up to sixteen submits costs Redis, by what is asked for."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from afterword.shared.contracts import ChatRequest
from afterword.shared.ledger.ledger import Ledger

_AT_ONCE, _ROUNDS = 16, 60
_LONG, _ESCAPED = "x" * 60_000, '"' * 60_000
_MS = 1000

#: A request by its number in a round; each round has users of its own.
_Make = Callable[[int], dict[str, Any]]


def _conversing(when_busy: str, first: str, then: str) -> _Make:
    fields = {"user_id": "ann", "conversation_id": "c", "when_busy": when_busy}
    return lambda number: fields | {"message": then if number else first}


_KINDS: Mapping[str, _Make] = {
    "one user": lambda _: {"user_id": "ann", "message": "hello"},
    "a tenant each": lambda number: {"user_id": "ann", "message": "hello", "tenant": f"t{number}"},
    "a key each": lambda number: {
        "user_id": "ann", "message": "hello", "idempotency_key": str(number),
    },
    "messages of 60 KB": lambda _: {"user_id": "ann", "message": _LONG},
    "messages of 120 KB as JSON": lambda _: {"user_id": "ann", "message": _ESCAPED},
    "a conversation": _conversing("enqueue", "hello", "hello"),
    "a conversation, interrupted": _conversing("interrupt", "hello", "hello"),
    "a conversation, merged": _conversing("merge", "x" * 3000, "x" * 3000),
    "merged into a long message": _conversing("merge", '"' * 25_000, '"' * 200),
}  # fmt: skip


@dataclass(frozen=True)
class SubmitCost:
    """How many submits one command had, and Redis' CPU for it in ms: the median of many."""

    at_once: float
    ms: float


async def costs_of_submits(ledger: Ledger, redis: Any) -> dict[str, SubmitCost]:
    """Submit sixteen of each kind at once, again and again; the cost is that of one command."""
    found: dict[str, SubmitCost] = {}
    for kind, (name, make) in enumerate(_KINDS.items()):
        costs: list[float] = []
        commands = 0
        for turn in range(_ROUNDS):
            asked = [_request(make(number), f"{kind}-{turn}") for number in range(_AT_ONCE)]
            before, calls = _cpu_ms(redis), _scripts(redis)
            await ledger.jobs.submit_many((ledger.jobs.new_id(one), one) for one in asked)
            commands = _scripts(redis) - calls
            costs.append((_cpu_ms(redis) - before) / commands)
        found[name] = SubmitCost(_AT_ONCE / commands, statistics.median(costs))
    return found


def table_of(costs: Mapping[str, SubmitCost]) -> str:
    """Return a Markdown table, a row for each kind."""
    rows = [f"| {name} | {one.at_once:g} | {one.ms:.2f} |" for name, one in costs.items()]
    return "\n".join(["| submits | in one command | CPU of Redis, ms |", "|---|---|---|", *rows])


def _request(fields: dict[str, Any], turn: str) -> ChatRequest:
    fields["user_id"] += turn
    return ChatRequest.parse(fields, max_bytes=65_536, max_tokens=100_000)


def _cpu_ms(redis: Any) -> float:
    """Return the CPU that Redis' main thread has used, as the kernel accounts it."""
    used = redis.info("cpu")
    return _MS * float(used["used_cpu_user_main_thread"] + used["used_cpu_sys_main_thread"])


def _scripts(redis: Any) -> int:
    """Return how many scripts Redis has run; one that it did not know is not counted."""
    return int(redis.info("commandstats")["cmdstat_evalsha"]["calls"])
