"""A model that says what the test told it to."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field

from afterword.shared.contracts import StopDetails, Usage
from afterword.shared.errors import ProviderError
from afterword.shared.ledger.quota_records import QuotaLevel
from afterword.workers.ports import Answer, ModelCheck, OnQuota, OnUsage, Prompt


@dataclass(frozen=True, slots=True)
class Take:
    """One scripted answer: what is said, whether it holds then, and how it ends."""

    pieces: tuple[str, ...]
    stop_reason: str = "end_turn"
    stop_details: StopDetails | None = None
    usage: Usage = field(default_factory=Usage)
    error: ProviderError | None = None
    holds: bool = False


class FakeModel:
    """Plays its script, then says back what it was told; keeps every prompt."""

    def __init__(self) -> None:
        self.prompts: list[Prompt] = []
        self.open_calls = 0
        self.held = 0
        self.closed = False
        self.checked: list[str] = []
        #: What is told of the rate limit with every answer.
        self.quota: tuple[QuotaLevel, ...] = ()
        self._check_error: ProviderError | None = None
        self._takes: deque[Take] = deque()
        self._released = asyncio.Event()

    def answers(
        self,
        *pieces: str,
        stop_reason: str = "end_turn",
        stop_details: StopDetails | None = None,
        usage: Usage | None = None,
        holds: bool = False,
    ) -> None:
        """Script a whole answer; with `holds` it ends only after `release`."""
        self._takes.append(Take(pieces, stop_reason, stop_details, usage or Usage(), holds=holds))

    def fails(self, error: ProviderError, *pieces: str, usage: Usage | None = None) -> None:
        """Script an error, after some pieces; only its input tokens are told."""
        self._takes.append(Take(pieces, usage=usage or Usage(), error=error))

    def fails_checks(self, error: ProviderError) -> None:
        """Fail every check from now on."""
        self._check_error = error

    def release(self) -> None:
        """Let all answers that hold go on, now and later."""
        self._released.set()

    async def stream_answer(
        self, prompt: Prompt, on_usage: OnUsage | None = None, on_quota: OnQuota | None = None
    ) -> AsyncGenerator[str | Answer, None]:
        """Play the next take."""
        self.prompts.append(prompt)
        take = self._takes.popleft() if self._takes else _echo(prompt)
        self.open_calls += 1
        tell = on_usage or _unheard
        if on_quota is not None:
            on_quota(self.quota)
        try:
            tell(take.usage.model_copy(update={"output": 0}))
            for piece in take.pieces:
                await asyncio.sleep(0)  # noqa: TID251 others get their turn, as with a real call
                yield piece
            await self._end(take)
            text, usage = "".join(take.pieces), take.usage
            tell(usage)
            yield Answer(text, take.stop_reason, prompt.model, usage, take.stop_details)
        finally:
            self.open_calls -= 1

    async def _end(self, take: Take) -> None:
        if take.holds:
            self.held += 1
            await self._released.wait()
        if take.error is not None:
            raise take.error

    async def check(self, model: str) -> ModelCheck:
        """Answer for every model, unless checks are to fail."""
        self.checked.append(model)
        if self._check_error is not None:
            raise self._check_error
        return ModelCheck(f"a fake answers for {model}")

    async def aclose(self) -> None:
        """Take note that it was closed."""
        self.closed = True


def _unheard(_: Usage) -> None:
    """Nobody counts the tokens."""


def _echo(prompt: Prompt) -> Take:
    return Take(("You said: ", prompt.messages[-1].text))
