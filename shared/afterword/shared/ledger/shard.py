"""Runs scripts on the shard that holds a job or a lane."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Any

from afterword.shared.ledger.records import reading
from afterword.shared.names import Keys, queue_prefix, shard_in
from afterword.shared.servers import is_cluster
from afterword.shared.settings import Settings
from afterword.shared.transport.blocking import BlockingConnection
from afterword.shared.transport.pipeline import Pipeline
from afterword.shared.transport.scanning import scan_fields, scan_keys, scan_members
from afterword.shared.transport.scripts import ScriptCall, call_of
from afterword.shared.transport.signatures import Arguments

#: Sends the hints of a script whose Redis is not the broker: pairs of (agenda, id).
SendHints = Callable[[Sequence[tuple[str, str]]], None]

#: What scripts are given as the queues' prefix when the broker is another server.
ELSEWHERE = "-"

#: The shard in the hash tag of a key, a channel or a pattern.
_TAG = re.compile(r":\{([0-9a-f]+)\}")

#: Keys that one script touches at most.
_BATCH = 50


class Shards:
    """Runs each script on the shard that its job or lane names.

    The shard of index i is on the server of index i modulo all of `pipelines`. `send_hints` is
    given if the broker is another server than the ledger's Redis.
    """

    def __init__(
        self,
        settings: Settings,
        pipelines: Sequence[Pipeline],
        send_hints: SendHints | None = None,
    ) -> None:
        self.settings = settings
        self._pipelines = pipelines
        self._count = len(pipelines)
        self._keys = [Keys(settings.namespace, shard) for shard in range(settings.shards)]
        self._send_hints = send_hints
        self._broker = ELSEWHERE if send_hints else queue_prefix(settings.namespace)

    @property
    def all(self) -> Sequence[Keys]:
        """Return the keys of every shard."""
        return self._keys

    def keys_of(self, name: str) -> Keys:
        """Return the keys of the shard that a job id or a lane id names."""
        shard = shard_in(name)
        if 0 <= shard < len(self._keys):
            return self._keys[shard]
        return Keys(self.settings.namespace, shard)

    async def send_command(self, *command: str | float) -> Any:
        """Send one plain command to the server of the key that it names, and return its reply.

        One without a key goes to the first server.
        """
        return await self._serving(_shard_named(command)).send_command(*command)

    @property
    def servers(self) -> int:
        """Return how many servers share the shards by their order; a cluster counts as one."""
        return 1 if is_cluster(self.settings) else len(self._pipelines)

    async def send_to(self, server: int, *command: str | float) -> Any:
        """Send a command to the server of that index, whatever keys it names."""
        return await self._pipelines[server].send_command(*command)

    async def send_to_all(self, *command: str | float) -> Any:
        """Send a command without a key to every server; return the reply of the last."""
        reply = None
        for pipeline in self._pipelines:
            reply = await pipeline.send_command(*command)
        return reply

    async def scan(self, pattern: str) -> AsyncIterator[Sequence[str]]:
        """Yield every key of that pattern, in batches that one script can take; some twice."""
        shard = _shard_named((pattern,))
        root = Keys(self.settings.namespace, shard).root if is_cluster(self.settings) else None
        async for keys in scan_keys(self._serving(shard), pattern, slot_key=root):
            for start in range(0, len(keys), _BATCH):
                yield keys[start : start + _BATCH]

    def members(self, key: str) -> AsyncIterator[str]:
        """Yield each member of a set once, however many there are."""
        return scan_members(self._serving(_shard_named((key,))), key)

    def fields(self, key: str) -> AsyncIterator[tuple[str, str]]:
        """Yield each field of a hash once, with its value, however many there are."""
        return scan_fields(self._serving(_shard_named((key,))), key)

    async def counts(self, keys: Keys) -> dict[str, int]:
        """Return how many jobs and turns of each tenant are in each state."""
        return await self.counts_in(keys.counts)

    async def counts_in(self, key: str) -> dict[str, int]:
        """Return the counts in a hash."""
        with reading("counts"):
            return {name: int(value) async for name, value in self.fields(key)}

    async def run_script(self, keys: Keys, arguments: Arguments) -> list[Any]:
        """Run one script, send the hints that it left to us, and return its answer."""
        call = call_of(keys.root, self._broker, arguments)
        pipeline = self._pipelines[keys.shard % self._count]
        reply = await pipeline.run_script(call)
        return self._answer_in(reply)

    async def run_scripts(
        self, calls: Iterable[tuple[Keys, Arguments]]
    ) -> list[list[Any] | Exception]:
        """Run a script for each (keys, arguments); return an answer or an error for each."""
        replies = await self._run_all(calls)
        return [one if isinstance(one, Exception) else self._answer_in(one) for one in replies]

    async def _run_all(self, calls: Iterable[tuple[Keys, Arguments]]) -> Sequence[Any]:
        """Run scripts, those of different servers at the same time; return replies in order."""
        if self._count == 1:
            return await self._pipelines[0].run_scripts(
                call_of(keys.root, self._broker, arguments) for keys, arguments in calls
            )
        of_server: dict[int, list[tuple[int, ScriptCall]]] = {}
        for place, (keys, arguments) in enumerate(calls):
            call = call_of(keys.root, self._broker, arguments)
            of_server.setdefault(keys.shard % self._count, []).append((place, call))
        groups = await asyncio.gather(
            *(
                self._pipelines[server].run_scripts([call for _, call in group])
                for server, group in of_server.items()
            )
        )
        replies = {
            place: reply
            for group, answers in zip(of_server.values(), groups, strict=True)
            for (place, _), reply in zip(group, answers, strict=True)
        }
        return [replies[place] for place in range(len(replies))]

    def _serving(self, shard: int) -> Pipeline:
        return self._pipelines[shard % self._count]

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


def _shard_named(command: Sequence[str | float]) -> int:
    """Return the shard in the first hash tag of a command; the first shard if there is none."""
    for part in command:
        if isinstance(part, str) and (found := _TAG.search(part)):
            return int(found[1], 16)
    return 0


def milliseconds(seconds: float) -> int:
    """Return seconds as whole milliseconds, at least 1."""
    return max(1, round(seconds * 1000))


def scored(flat: Sequence[Any]) -> list[tuple[float, str]]:
    """Return what a sorted set answers WITHSCORES, as pairs of score and name."""
    return [(float(score), str(name)) for name, score in zip(flat[::2], flat[1::2], strict=True)]


def fields_of(pairs: Sequence[Any]) -> dict[str, Any]:
    """Return a record that a script answers as {field, value, ...}."""
    return dict(zip(pairs[::2], pairs[1::2], strict=True))
