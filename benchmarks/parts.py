"""What a call of a mem0 of one's own spends where.

`python -m benchmarks.parts COUNT` adds and searches so often, one call at a time, and prints JSON;
its settings are in the environment. So all CPU of the process is of the part that runs.
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


class Clock:
    """Sums up what runs in its contexts; of those within each other, in the inner one alone."""

    def __init__(self) -> None:
        self._spent = {part: [0.0, 0.0] for part in PARTS}
        self._part = _REST
        self._since = _now()

    @contextmanager
    def of(self, part: str) -> Iterator[None]:
        """Count what runs in the context to a part."""
        before = self._part
        self._go_on_with(part)
        try:
            yield
        finally:
            self._go_on_with(before)

    def taken(self, calls: int) -> Spent:
        """Return what each part has spent of one of so many calls."""
        self._go_on_with(_REST)
        return {
            part: (seconds / calls * 1000, cpu_s / calls * 1000)
            for part, (seconds, cpu_s) in self._spent.items()
        }

    def _go_on_with(self, part: str) -> None:
        now = _now()
        for at in (0, 1):
            self._spent[self._part][at] += now[at] - self._since[at]
        self._part, self._since = part, now


class Timed:
    """Stands before an object; what its methods spend is counted to a part."""

    def __init__(self, inner: Any, part: str, clock: Clock) -> None:
        self._inner = inner
        self._part = part
        self.clock = clock

    def __getattr__(self, name: str) -> Any:
        """Return what the object has, a method so that it is timed."""
        value = getattr(self._inner, name)
        if not callable(value):
            return value

        def timed(*arguments: Any, **named: Any) -> Any:
            with self.clock.of(self._part):
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
    memory, clock = memories._memory, Clock()  # noqa: SLF001 what is measured is inside
    parts = {"embedding_model": _EMBEDDER, "vector_store": _STORE, "llm": _MODEL}
    inner = {name: getattr(memory, name) for name in parts}
    for name, part in parts.items():
        setattr(memory, name, Timed(inner[name], part, clock))
    for number in range(count):
        assert await call(number), "nothing was kept, or found"
    for name, one in inner.items():
        setattr(memory, name, one)
    return clock.taken(count)


if __name__ == "__main__":
    print(json.dumps(asyncio.run(_measure(int(sys.argv[1])))))
