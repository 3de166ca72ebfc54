"""Runs scripts on the shard that holds a job or a lane."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Any

from afterword.shared.ledger.records import reading
from afterword.shared.names import Keys, queue_prefix, shard_in
from afterword.shared.settings import Settings
from afterword.shared.transport.blocking import BlockingConnection
from afterword.shared.transport.pipeline import Pipeline
from afterword.shared.transport.scripts import call_of
from afterword.shared.transport.signatures import Arguments

#: Sends the hints of a script whose Redis is not the broker: pairs of (agenda, id).
SendHints = Callable[[Sequence[tuple[str, str]]], None]

#: What scripts are given as the queues' prefix when the broker is another server.
ELSEWHERE = "-"

#: Keys that one step of a scan looks at, and that one script touches at most.
_SCAN = 1000
_BATCH = 50


class Shards:
    """Runs each script on the shard that its job or lane names.

    `send_hints` is given if the broker is another server than the ledger's Redis.
    """

    def __init__(
        self, settings: Settings, pipeline: Pipeline, send_hints: SendHints | None = None
    ) -> None:
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

    async def send_command(self, *command: str | float) -> Any:
        """Send one plain command and return its reply."""
        return await self._pipeline.send_command(*command)

    async def scan(self, pattern: str) -> AsyncIterator[Sequence[str]]:
        """Yield every key of that pattern, in batches that one script can take."""
        cursor = "0"
        while True:
            cursor, keys = await self.send_command("SCAN", cursor, "MATCH", pattern, "COUNT", _SCAN)
            for start in range(0, len(keys), _BATCH):
                yield keys[start : start + _BATCH]
            if str(cursor) == "0":
                return

    async def counts(self, keys: Keys) -> dict[str, int]:
        """Return how many jobs and turns of each tenant are in each state, read part by part."""
        found: dict[str, int] = {}
        cursor = "0"
        while True:
            cursor, part = await self.send_command("HSCAN", keys.counts, cursor, "COUNT", _SCAN)
            with reading("counts"):
                found.update((name, int(value)) for name, value in part.items())
            if str(cursor) == "0":
                return found

    async def run_script(self, keys: Keys, arguments: Arguments) -> list[Any]:
        """Run one script, send the hints that it left to us, and return its answer."""
        reply = await self._pipeline.run_script(call_of(keys.root, self._broker, arguments))
        return self._answer_in(reply)

    async def run_scripts(
        self, calls: Iterable[tuple[Keys, Arguments]]
    ) -> list[list[Any] | Exception]:
        """Run a script for each (keys, arguments); return an answer or an error for each."""
        replies = await self._pipeline.run_scripts(
            call_of(keys.root, self._broker, arguments) for keys, arguments in calls
        )
        return [one if isinstance(one, Exception) else self._answer_in(one) for one in replies]

    def run_script_blocking(
        self, connection: BlockingConnection, keys: Keys, arguments: Arguments
    ) -> list[Any] | None:
        """Run one script once from a thread without a loop; None if there was no reply.

        The broker must be the ledger's Redis: no hints are sent from here.
        """
        reply = connection.run_script(call_of(keys.root, self._broker, arguments))
        return reply and list(reply[0])

    async def run_for_word(self, arguments: Arguments) -> str:
        """Run a script on the job or lane in its first argument; return the word it answers."""
        (word,) = await self.run_script(self.keys_of(arguments[0]), arguments)
        return str(word)

    def _answer_in(self, reply: Sequence[Any]) -> list[Any]:
        """Send the hints that a script left to us; return its answer."""
        answer, unsent = reply
        if unsent and self._send_hints:
            self._send_hints([(agenda, name) for agenda, name in unsent])
        return list(answer)


def milliseconds(seconds: float) -> int:
    """Return seconds as whole milliseconds, at least 1."""
    return max(1, round(seconds * 1000))


def fields_of(pairs: Sequence[Any]) -> dict[str, Any]:
    """Return a record that a script answers as {field, value, ...}."""
    return dict(zip(pairs[::2], pairs[1::2], strict=True))
