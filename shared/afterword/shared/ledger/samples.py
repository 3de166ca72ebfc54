"""The last hours of the fleet, a sample a minute: what sparklines are drawn from."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime

from afterword.shared.ledger.records import json_object, moment, readable
from afterword.shared.ledger.shard import Shards

#: Most samples that are kept, the newest: two hours of them.
MAX_SAMPLES = 120

#: One sample is taken in this time, however many processes offer one.
EVERY_MS = 60_000


@dataclass(frozen=True, slots=True)
class Sample:
    """Figures of the whole fleet at one moment. `replied` and `remembered` only ever grow."""

    replied: int
    remembered: int
    queued: int
    turns_waiting: int
    oldest_ready_s: float
    users_behind: int
    users_late: int
    dead_letters: int


class Samples:
    """Adds a sample a minute and reads them; all are on the first shard."""

    def __init__(self, shards: Shards) -> None:
        self._shards = shards
        self._keys = shards.all[0]

    async def is_due(self) -> bool:
        """Return true to one caller a minute: it takes the sample."""
        command = ("SET", self._keys.sampled, 1, "NX", "PX", EVERY_MS)
        return bool(await self._shards.send_command(*command))

    async def add(self, sample: Sample) -> None:
        """Add a sample, and drop those beyond `MAX_SAMPLES`."""
        text = json.dumps(asdict(sample))
        await self._shards.send_command(
            "XADD", self._keys.samples, "MAXLEN", MAX_SAMPLES, "*", "figures", text
        )

    async def newest(self, limit: int) -> Sequence[tuple[datetime, Sample]]:
        """Return the newest samples with their times, oldest first."""
        rows = await self._shards.send_command(
            "XREVRANGE", self._keys.samples, "+", "-", "COUNT", limit
        )
        return list(readable(_sampled, rows, "sample"))[::-1]


def _sampled(entry_id: str, fields: Mapping[str, str]) -> tuple[datetime, Sample]:
    figures = json_object(fields["figures"])
    names = Sample.__dataclass_fields__
    return moment(entry_id.partition("-")[0]), Sample(**{name: figures[name] for name in names})
