"""The quarantine: notes on queue messages that were no hints."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence

from afterword.shared.ledger import steps
from afterword.shared.ledger.records import (
    QuarantineNote,
    UnrecognisedMessage,
    moment,
    readable,
    reading,
)
from afterword.shared.ledger.shard import Shards

#: How many notes are kept, the newest; every message is counted.
MAX_NOTES = 1000


class Quarantine:
    """Adds, lists and clears notes; a note never holds the content of a message."""

    def __init__(self, shards: Shards) -> None:
        self._shards = shards
        self._keys = shards.all[0]

    async def add(self, found: UnrecognisedMessage) -> None:
        """Add a note on a message, once."""
        arguments = steps.AddQuarantineNote(
            token=uuid.uuid4().hex,
            keep=MAX_NOTES,
            queue=found.queue,
            reason=found.reason,
            size=found.size,
            sha256=found.sha256,
            task=found.task,
        )
        await self._shards.run_script(self._keys, arguments)

    async def newest(
        self, limit: int = MAX_NOTES, *, after: str | None = None
    ) -> Sequence[QuarantineNote]:
        """Return the newest notes, newest first; those before the note `after`."""
        newest = f"({after}" if after else "+"
        rows = await self._shards.send_command(
            "XREVRANGE", self._keys.quarantine, newest, "-", "COUNT", limit
        )
        return list(readable(_noted, rows, "quarantine note"))

    async def counts(self) -> dict[str, int]:
        """Return how many messages were ever noted, by reason."""
        counted = await self._shards.send_command("HGETALL", self._keys.quarantined)
        with reading("quarantined"):
            return {reason: int(count) for reason, count in sorted(counted.items())}

    async def clear(self) -> int:
        """Delete the notes but not the counts; return how many there were."""
        return int(await self._shards.send_command("XTRIM", self._keys.quarantine, "MAXLEN", 0))


def _noted(note_id: str, note: Mapping[str, str]) -> QuarantineNote:
    return QuarantineNote(
        id=note_id,
        at=moment(note_id.partition("-")[0]),
        found=UnrecognisedMessage(
            note["queue"], note["reason"], int(note["size"]), note["sha256"], note["task"]
        ),
    )
