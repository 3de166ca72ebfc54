"""Attempts that ended with their worker, and no other attempt follows."""

from __future__ import annotations

from collections.abc import Sequence

from afterword.shared.contracts import RECORD_VERSION
from afterword.shared.ledger import steps
from afterword.shared.ledger.past_turns import history_in, most_bytes_of_past_turns, overlay_in
from afterword.shared.ledger.records import LostAttempt, readable
from afterword.shared.ledger.shard import Shards, milliseconds
from afterword.shared.names import Keys

#: Most that one script gives out of a shard.
MAX_DUE = 5


class LostAttempts:
    """The last attempts of jobs that ended before it was known what the attempt used."""

    def __init__(self, shards: Shards) -> None:
        self._shards = shards

    async def due(self) -> Sequence[LostAttempt]:
        """Return attempts to count; each comes back until `Jobs.count_usage` has counted it."""
        return [attempt for keys in self._shards.all for attempt in await self._due(keys)]

    async def _due(self, keys: Keys) -> Sequence[LostAttempt]:
        settings = self._shards.settings
        arguments = steps.ListDueLostAttempts(
            limit=MAX_DUE,
            again_ms=milliseconds(settings.repair_s),
            known_version=RECORD_VERSION,
            overlay_turns=settings.overlay_turns,
            history_turns=settings.history_turns,
            most_bytes=most_bytes_of_past_turns(settings),
        )
        (rows,) = await self._shards.run_script(keys, arguments)
        return list(readable(_attempt, rows, "job"))


def _attempt(  # noqa: PLR0913, PLR0917 a row of a script
    job_id: str,
    fence: str,
    lane: str,
    body: str,
    published: str,
    overlay: Sequence[Sequence[str]],
    history: Sequence[str],
) -> LostAttempt:
    # A message that was stopped stands in its conversation by now.
    before = tuple(turn for turn in history_in(history) if turn.id != job_id)
    return LostAttempt(job_id, fence, lane, body, int(published), overlay_in(overlay), before)
