"""What a submitter may read of a job: its state, its reply, its stream."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from shared.contracts import Event, JobStatus, Reply
from shared.errors import JobNotFound
from shared.ledger.records import moment
from shared.ledger.shard import Shards
from shared.lifecycle import JobState, TurnState
from shared.names import check_job_id

_PAGE = 500
_STATUS = ("state", "turn", "attempts", "created", "deadline", "code", "t_code")


class Reading:
    """Reads jobs; changes nothing."""

    def __init__(self, shards: Shards) -> None:
        """Take the shards to read."""
        self._shards = shards

    def wake_channel(self, job_id: str) -> str:
        """Return the channel that says that a job's stream grew."""
        return self._shards.keys_of(check_job_id(job_id)).wake(job_id)

    async def status(self, job_id: str) -> JobStatus:
        """Return where a job is; raise `JobNotFound`."""
        values = await self._fields(job_id, *_STATUS)
        record = dict(zip(_STATUS, values, strict=True))
        if record["state"] is None:
            raise JobNotFound(job_id)
        return JobStatus(
            job_id=job_id,
            state=JobState(record["state"]),
            turn=TurnState(record["turn"]),
            attempts=int(record["attempts"]),
            created_at=moment(record["created"]),
            deadline=moment(record["deadline"]),
            code=record["code"],
            turn_code=record["t_code"] or None,
        )

    async def reply(self, job_id: str) -> Reply | None:
        """Return the reply of a job that succeeded, None of one that did not; `JobNotFound`."""
        state, reply = await self._fields(job_id, "state", "reply")
        if state is None:
            raise JobNotFound(job_id)
        return Reply.model_validate_json(reply) if reply else None

    async def events(self, job_id: str, after: str | None) -> Sequence[Event]:
        """Return the next events of a job's stream after that event id; maybe none yet."""
        key = self._shards.keys_of(check_job_id(job_id)).events(job_id)
        start = f"({after}" if after else "-"
        rows = await self._shards.call("XRANGE", key, start, "+", "COUNT", _PAGE)
        return [await self._event(job_id, event_id, _pairs(row)) for event_id, row in rows]

    async def keeps_stream(self, job_id: str) -> bool:
        """Return whether the job's stream can still be read."""
        key = self._shards.keys_of(check_job_id(job_id)).events(job_id)
        return bool(await self._shards.call("EXISTS", key))

    async def _event(self, job_id: str, event_id: str, row: dict[str, str]) -> Event:
        reply = await self.reply(job_id) if row["type"] == "final" else None
        return Event.model_validate(
            {"id": event_id, "reply": reply} | {name: row[name] for name in row}
        )

    async def _fields(self, job_id: str, *names: str) -> list[Any]:
        key = self._shards.keys_of(check_job_id(job_id)).job(job_id)
        values: list[Any] = await self._shards.call("HMGET", key, *names)
        return values


def _pairs(row: Any) -> dict[str, str]:
    """Take a stream entry's fields, which redis-py gives as a dict or as a flat list."""
    if isinstance(row, dict):
        return row
    return dict(zip(row[::2], row[1::2], strict=True))
