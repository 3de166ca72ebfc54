"""The quarantine: notes of what was in a queue and was no hint."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence

from afterword.shared.ledger.records import QuarantineNote, UnrecognisedMessage, moment
from afterword.shared.ledger.shard import Shards

#: The newest so many notes are kept; every message is counted.
MOST_KEPT = 1000


class Quarantine:
    """Add, list, clear; a note says what a message was, and nothing that stood in it."""

    def __init__(self, shards: Shards) -> None:
        """Take the shards; all notes stand on the first one."""
        self._shards = shards
        self._keys = shards.all[0]

    async def add(self, found: UnrecognisedMessage) -> None:
        """Note a message once, however often Redis has to be asked."""
        await self._shards.run(
            "maintenance/quarantine",
            self._keys,
            uuid.uuid4().hex,
            MOST_KEPT,
            found.queue,
            found.reason,
            found.size,
            found.sha256,
            found.task,
        )

    async def newest(self, limit: int = MOST_KEPT) -> Sequence[QuarantineNote]:
        """Return the newest notes, newest first."""
        rows = await self._shards.call("XREVRANGE", self._keys.quarantine, "+", "-", "COUNT", limit)
        return [_noted(note_id, fields) for note_id, fields in rows]

    async def clear(self) -> int:
        """Forget the notes, not the counts; return how many there were."""
        return int(await self._shards.call("XTRIM", self._keys.quarantine, "MAXLEN", 0))


def _noted(note_id: str, note: Mapping[str, str]) -> QuarantineNote:
    return QuarantineNote(
        at=moment(note_id.partition("-")[0]),
        found=UnrecognisedMessage(
            note["queue"], note["reason"], int(note["size"]), note["sha256"], note["task"]
        ),
    )
