"""One answer through Claude's SDK, and an add and a search through mem0, as the guard counts them.

The other end of each is a stand-in that answers at once, or a file: what is counted is the adapter
with the library under it.
"""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

from pydantic import SecretStr

from afterword.shared.settings import Settings
from afterword.workers.adapters.mem0.sqlite.recipe import open_embedded
from afterword.workers.ports import ChatMessage, Memories, Model, Prompt, Turn
from afterword.workers.wiring import open_model
from benchmarks.provider import AnswerTiming
from benchmarks.testbed import start_provider

#: So many that reading the events, not opening the answer, is most of what is counted.
DELTAS = 40

_AT = datetime(2026, 10, 1, tzinfo=UTC)
_PROMPT = Prompt(
    ("You are a helpful assistant.",),
    (ChatMessage("user", "What is a good temperature?"),),
    "claude-sonnet-5-5", max_tokens=100, user_tag="tag",
)  # fmt: skip


class CallCounter:
    """Counts calls of Python and C functions while it is the profiler of a thread."""

    calls = 0

    def __call__(self, _frame: FrameType, event: str, _argument: object) -> None:
        """Count a call; this is the signature of a profiler."""
        self.calls += event in ("call", "c_call")


@contextmanager
def served_claude(folder: Path) -> Iterator[str]:
    """Serve a stand-in of Claude; give its URL."""
    server, port = start_provider(folder, AnswerTiming(deltas=DELTAS))
    with server:
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            server.kill()


def claude_at(url: str) -> Model:
    """Return the adapter of Claude as a worker has it."""
    return open_model(Settings(anthropic_api_key=SecretStr("key"), anthropic_base_url=url))


async def read_answer(claude: Model) -> None:
    """Read one whole answer."""
    pieces = [piece async for piece in claude.stream_answer(_PROMPT)]
    assert len(pieces) == DELTAS + 1, "deltas are missing"


class CountedMemories:
    """The embedded memory; what its threads call is counted."""

    def __init__(self, memories: Memories, counter: CallCounter) -> None:
        self._memories = memories
        self._counter = counter

    async def calls_of_life(self, number: int) -> dict[str, int]:
        """Store what a new user says and search for it; return the calls of both."""
        owner = f"default/user-{number}"
        turn = Turn(f"j00_{number:032x}", "I prefer Celsius.", "Noted.", _AT)
        return {
            "add": await self._count(lambda: self._memories.add(owner, turn)),
            "search": await self._count(
                lambda: self._memories.search(owner, "Which unit do I prefer?", 10)
            ),
        }

    async def _count(self, step: Callable[[], Awaitable[object]]) -> int:
        before = self._counter.calls
        await step()
        return self._counter.calls - before


@asynccontextmanager
async def counted_memories(folder: Path) -> AsyncIterator[CountedMemories]:
    """Open an embedded memory, whose threads start meanwhile, each with the counter."""
    counter = CallCounter()
    threading.setprofile(counter)
    try:
        memories = await open_embedded(Settings(data_dir=folder / "data"))
        yield CountedMemories(memories, counter)
        await memories.aclose()
    finally:
        threading.setprofile(None)
