"""Stand-ins of Claude and of mem0's platform on a thread of their own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any, Self

from tests.kit.claude_api.scripted_answers import ClaudeAnswer
from tests.kit.claude_api.server import ClaudeStandIn
from tests.kit.mem0_api.filters import Json
from tests.kit.mem0_api.server import Mem0StandIn, finish

_PATIENCE_S = 60.0


class DelayedMem0(Mem0StandIn):
    """Works an add off by itself, a while after it was accepted, as the platform does."""

    def __init__(self, after_s: float) -> None:
        super().__init__(polls=1_000_000)
        self.after_s = after_s

    def _queued(self, work: Callable[[], list[Json]]) -> Json:
        answer = super()._queued(work)
        event = self.events[answer["event_id"]]
        asyncio.get_running_loop().call_later(self.after_s, finish, event)
        return answer


class ProviderThread:
    """Runs both; read what they saw when nothing is under way."""

    def __init__(self, *, extraction_s: float = 0.1) -> None:
        self.claude = ClaudeStandIn()
        self.mem0 = DelayedMem0(extraction_s)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._servers = AsyncExitStack()

    def do(self, act: Callable[[], Any]) -> Any:
        """Call something on the thread of the two."""

        async def acted() -> Any:
            return act()

        return asyncio.run_coroutine_threadsafe(acted(), self._loop).result(_PATIENCE_S)

    def __enter__(self) -> Self:
        self._thread.start()
        for server in (self.claude, self.mem0):
            entering = self._servers.enter_async_context(server)
            asyncio.run_coroutine_threadsafe(entering, self._loop).result(_PATIENCE_S)
        # Slow enough for a reply to be told in more than one piece.
        self.claude.will_answer(ClaudeAnswer(deltas=4, gap_s=0.03, times=None))
        return self

    def __exit__(self, *_: object) -> None:
        closing = self._servers.aclose()
        asyncio.run_coroutine_threadsafe(closing, self._loop).result(_PATIENCE_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_PATIENCE_S)
        self._loop.close()
