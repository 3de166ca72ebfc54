"""Where a job or a lane lives, and how a script is run there."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from typing import Any

from afterword.shared.names import Keys, queue_prefix, shard_in
from afterword.shared.settings import Settings
from afterword.shared.transport.blocking import BlockingConnection
from afterword.shared.transport.pipeline import Pipeline

#: Sends the hints of a script whose Redis is not the broker: pairs of (agenda, id).
SendHints = Callable[[Sequence[tuple[str, str]]], Awaitable[None]]

#: What stands for "the broker is elsewhere" in a script's arguments.
ELSEWHERE = "-"

#: Keys that one step of a scan looks at, and that one script touches at most.
_SCAN = 1000
_BATCH = 100


class Shards:
    """Runs each script on the shard that its job or lane names."""

    def __init__(
        self, settings: Settings, pipeline: Pipeline, send_hints: SendHints | None = None
    ) -> None:
        """Take `send_hints` if the broker is another server than the ledger's Redis."""
        self.settings = settings
        self._pipeline = pipeline
        self._send_hints = send_hints
        self._broker = ELSEWHERE if send_hints else queue_prefix(settings.namespace)

    @property
    def all(self) -> Sequence[Keys]:
        """Return the keys of every shard."""
        return [Keys(self.settings.namespace, shard) for shard in range(self.settings.shards)]

    def keys_of(self, name: str) -> Keys:
        """Return the keys of the shard that a job id or a lane id names."""
        return Keys(self.settings.namespace, shard_in(name))

    async def call(self, *command: str | float) -> Any:
        """Send one plain command."""
        return await self._pipeline.call(*command)

    async def scan(self, pattern: str) -> AsyncIterator[Sequence[str]]:
        """Give every key of that pattern, in batches that a script can take."""
        cursor = "0"
        while True:
            cursor, keys = await self.call("SCAN", cursor, "MATCH", pattern, "COUNT", _SCAN)
            for start in range(0, len(keys), _BATCH):
                yield keys[start : start + _BATCH]
            if str(cursor) == "0":
                return

    async def run(self, step: str, keys: Keys, *arguments: str | float) -> list[Any]:
        """Run one script, send the hints it left to us, return its answer."""
        told = await self._pipeline.run(step, keys.root, self._broker, *arguments)
        return await self._heard(told)

    def run_directly(
        self, direct: BlockingConnection, step: str, keys: Keys, *arguments: str | float
    ) -> list[Any] | None:
        """Run one script from a thread without a loop, where hints are not sent by us; once."""
        told = direct.run(step, keys.root, self._broker, *arguments)
        return told and list(told[0])

    async def run_all(
        self, step: str, calls: Iterable[tuple[Keys, Sequence[str | float]]]
    ) -> list[list[Any] | Exception]:
        """Run one script for each (keys, arguments); return an answer or an error for each."""
        asked = ((keys.root, (self._broker, *arguments)) for keys, arguments in calls)
        told = await self._pipeline.run_all(step, asked)
        return [one if isinstance(one, Exception) else await self._heard(one) for one in told]

    async def _heard(self, told: Sequence[Any]) -> list[Any]:
        """Send the hints that a script left to us; return its answer."""
        answer, unsent = told
        if unsent and self._send_hints:
            await self._send_hints(list(zip(unsent[::2], unsent[1::2], strict=True)))
        return list(answer)

    async def run_for(self, step: str, name: str, *arguments: str | float) -> str:
        """Run a script on one job or lane that answers with one word."""
        answer = await self.run(step, self.keys_of(name), name, *arguments)
        return str(answer[0])


def milliseconds(seconds: float) -> int:
    """Return seconds as the whole milliseconds that scripts take."""
    return max(1, round(seconds * 1000))
