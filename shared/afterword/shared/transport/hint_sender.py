"""Sends hints to a broker on another server than the ledger's Redis, and holds nobody up."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterable
from itertools import islice

from redis.exceptions import RedisError, ResponseError

from afterword.shared.errors import AfterwordError, LedgerUnavailable, Misconfigured, QueueFull
from afterword.shared.events import HintsNotSent, HintsSentAgain
from afterword.shared.hints import hint_message, split_agenda
from afterword.shared.names import queue_list
from afterword.shared.observer import emit
from afterword.shared.transport.pipeline import BATCH, Pipeline

#: More hints than this do not wait for a broker that is away: the sweep sends the others again.
MAX_WAITING = 10_000

#: How long the broker may take for one batch, and how long to wait after one that failed.
PATIENCE_S = 1.0
PAUSE_S = 0.5

#: What the error is called: that of a pipeline speaks of the ledger.
_CODES: dict[type[Exception], str] = {
    LedgerUnavailable: "unavailable",
    QueueFull: "full",
    Misconfigured: "refused",
    ResponseError: "refused",
}


#: What scripts put behind the agenda of a hint that is to be taken before all others.
AHEAD = "^"


class HintSender:
    """Takes hints at once and sends them in order, each until the broker has it.

    What is accepted is accepted, whatever the broker does: nobody waits for it, and it is no error
    of theirs. While the broker is away, hints wait here and go out within two seconds of its
    return. Those that do not fit, or whose process ends, are sent again by the sweep. Bound to the
    event loop that first uses it.
    """

    def __init__(self, url: str, namespace: str) -> None:
        self._pipeline = Pipeline(url, patience_s=PATIENCE_S)
        self._namespace = namespace
        self._waiting: dict[tuple[str, str], None] = {}
        self._task: asyncio.Task[None] | None = None

    def send(self, hints: Iterable[tuple[str, str]]) -> None:
        """Send hints, each an agenda and an id, as soon as possible; never fail, never wait."""
        for hint in hints:
            if len(self._waiting) < MAX_WAITING:
                self._waiting[hint] = None
        if self._waiting and (self._task is None or self._task.done()):
            self._task = asyncio.get_running_loop().create_task(self._send_all())

    async def aclose(self) -> None:
        """Send what waits if the broker takes it now, then close the connection."""
        if self._task is not None:
            await asyncio.wait([self._task], timeout=PATIENCE_S)
            self._task.cancel()
        await self._pipeline.aclose()

    async def _send_all(self) -> None:
        """Send until nothing waits; report an outage once, at its beginning and at its end."""
        failed = ""
        while self._waiting:
            batch = list(islice(self._waiting, BATCH))
            error = await self._send_batch(batch)
            if error and not failed:
                emit(HintsNotSent, error=error)
            if error:
                failed = error
                await asyncio.sleep(PAUSE_S)
                continue
            for hint in batch:
                del self._waiting[hint]
            if failed:
                emit(HintsSentAgain, waiting=len(self._waiting))
            failed = ""

    async def _send_batch(self, batch: Iterable[tuple[str, str]]) -> str:
        """Send hints with one command for each list; return why that failed, as a code, or ""."""
        lists: dict[tuple[bool, str], list[str]] = {}
        for told, name in batch:
            agenda = told.removesuffix(AHEAD)
            message = hint_message(agenda, name, secrets.randbits(48))
            key = queue_list(self._namespace, *split_agenda(agenda))
            lists.setdefault((told != agenda, key), []).append(message)
        try:
            for (ahead, key), messages in lists.items():
                if ahead:
                    await self._pipeline.send_command("RPUSH", key, *messages)
                else:
                    await self._pipeline.send_command("LPUSH", key, *messages)
        except (AfterwordError, RedisError) as error:
            return _CODES.get(type(error), type(error).__name__)
        return ""
