"""Where a call of a self-hosted mem0 spends its time.

`python -m benchmarks.mem0_parts COUNT` makes COUNT adds and COUNT searches, one at a time, so that
all CPU of the process belongs to the part that runs. It reads the settings from the environment and
prints JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, TypeAlias

from afterword.shared.settings import Settings
from afterword.workers.adapters.mem0.open_source import OpenSourceMemories
from afterword.workers.ports import Turn
from afterword.workers.wiring import open_memories

_EMBEDDER, _STORE, _MODEL = "the embedder", "PostgreSQL, and its client", "Claude, and its client"
_REST = "mem0, and its thread"
PARTS = (_EMBEDDER, _STORE, _MODEL, _REST)

#: Milliseconds of a call by part: by the clock, and of the process' CPU.
Spent: TypeAlias = dict[str, tuple[float, float]]

_WARM_UP = 5
_AT = datetime(2026, 10, 1, tzinfo=UTC)


class PartClock:
    """Sums up time and CPU by part; nested parts count for the innermost one only."""

    def __init__(self) -> None:
        self._spent = {part: [0.0, 0.0] for part in PARTS}
        self._part = _REST
        self._since = _now()

    @contextmanager
    def measure(self, part: str) -> Iterator[None]:
        """Count what runs in the context for a part."""
        before = self._part
        self._switch_to(part)
        try:
            yield
        finally:
            self._switch_to(before)

    def per_call(self, calls: int) -> Spent:
        """Return the ms that each part spent per call."""
        self._switch_to(_REST)
        return {
            part: (seconds / calls * 1000, cpu_s / calls * 1000)
            for part, (seconds, cpu_s) in self._spent.items()
        }

    def _switch_to(self, part: str) -> None:
        now = _now()
        for at in (0, 1):
            self._spent[self._part][at] += now[at] - self._since[at]
        self._part, self._since = part, now


class TimedProxy:
    """Wraps an object and counts what its methods spend for a part."""

    def __init__(self, inner: Any, part: str, clock: PartClock) -> None:
        self._inner = inner
        self._part = part
        self.clock = clock

    def __getattr__(self, name: str) -> Any:
        """Return an attribute of the object; methods are timed."""
        value = getattr(self._inner, name)
        if not callable(value):
            return value

        def timed(*arguments: Any, **named: Any) -> Any:
            with self.clock.measure(self._part):
                return value(*arguments, **named)

        return timed


def _now() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


async def _measure(count: int) -> dict[str, Spent]:
    memories = await open_memories(Settings.load())
    assert isinstance(memories, OpenSourceMemories), "set AFTERWORD_MEMORY=selfhosted"
    run = time.perf_counter_ns()

    async def add(number: int) -> object:
        turn = Turn(f"j00_{run + number:032x}", f"I like the number {number}.", "Fine.", _AT)
        return await memories.add(f"default/parts-{run}-{number}", turn)

    async def search(number: int) -> object:
        return await memories.search(f"default/parts-{run}-{number}", "What do I prefer?", 8)

    found = {
        "add": await _spent(memories, add, count),
        "search": await _spent(memories, search, count),
    }
    await memories.aclose()
    return found


async def _spent(
    memories: OpenSourceMemories, call: Callable[[int], Awaitable[object]], count: int
) -> Spent:
    for number in range(_WARM_UP):
        await call(-1 - number)
    memory, clock = memories._memory, PartClock()  # noqa: SLF001 the parts are measured inside
    parts = {"embedding_model": _EMBEDDER, "vector_store": _STORE, "llm": _MODEL}
    inner = {name: getattr(memory, name) for name in parts}
    for name, part in parts.items():
        setattr(memory, name, TimedProxy(inner[name], part, clock))
    for number in range(count):
        assert await call(number), "nothing was stored or found"
    for name, one in inner.items():
        setattr(memory, name, one)
    return clock.per_call(count)


if __name__ == "__main__":
    print(json.dumps(asyncio.run(_measure(int(sys.argv[1])))))
