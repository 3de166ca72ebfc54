"""Reads a job for its submitter: its status, its reply, its events."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from afterword.shared.clock import utc_now
from afterword.shared.contracts import Event, Extraction, JobStatus, Recalled, Reply, Usage
from afterword.shared.errors import JobNotFound, NewerRecord
from afterword.shared.ledger.order_records import SteeringOrder, read_order, waiting_orders
from afterword.shared.ledger.records import json_object, moment, readable, reading
from afterword.shared.ledger.shard import Shards
from afterword.shared.ledger.spending import EXTRACTION_FIELDS, Spending, read_extraction
from afterword.shared.lifecycle import JobState, TurnState
from afterword.shared.names import (
    MEMORIES,
    PRIORITY_STEPS,
    Keys,
    check_job_id,
    lane_id,
    memory_key,
    shard_of,
    user_of,
)
from afterword.shared.usage_contracts import UsageSum

#: Most entries of a stream that one call reads.
PAGE = 500

#: What something waits for of which no more is known.
UNTIL_ITS_TIME = "its time"

#: What a job waits for whose tenant or user runs as many as it may.
AT_CAP = "the end of a job of its tenant or user, who runs as many as it may"

_A_WORKER = "a response worker"
_AN_ORDER = "an order: "


@dataclass(frozen=True, slots=True)
class Waits:
    """What a job, or then its turn, waits for, and until when if that is known."""

    what: str | None = None
    until: datetime | None = None

    @property
    def for_a_worker(self) -> bool:
        """Whether a response worker would take it now."""
        return self.what is not None and self.what.startswith(_A_WORKER)

    @property
    def by_order(self) -> bool:
        """Whether an operator lets it wait."""
        return self.what is not None and self.what.startswith(_AN_ORDER)


#: Of what waits for nothing, or of which nobody knows what it waits for.
NOT_KNOWN = Waits()

#: The fields of a job that say what it waits for.
_OF_WAITS = ("lane", "agenda", "tenant", "capped", "version")

#: What a job, or the lane of its turn, waits for, by the place in which it is.
_JOB_WAITS = {
    "hinted": _A_WORKER,
    "waiting": "{code}",
    "leased": "its reply, which a worker is getting",
    "nowhere": "an earlier message of its conversation",
}
_TURN_WAITS = {
    "hinted": "a memory worker",
    "waiting": "{code}",
    "leased": "a memory worker that stores turns of its user",
    "nowhere": "an earlier job of its user",
}
_LANES = f"{MEMORIES}.0"
_PRIORITIES = {str(step): name for name, step in PRIORITY_STEPS.items()}

_PROGRESS = ("state", "attempts", "code")
_STATUS = (
    *("state", "turn", "attempts", "created", "deadline", "code", "turn_code", "tenant", "lane"),
    *("body", "snoozes", "started", "first_text", "ended", "tokens", "memory_ids"),
)

#: The fields in which a job's attempts without a reply are summed up.
_USED = tuple(f"used:{name}" for name in Usage.model_fields)


class Progress(NamedTuple):
    """How far a job is: all that a follower has to know, without reading the request."""

    state: JobState
    attempts: int
    code: str | None


class Queries:
    """Reads jobs, and changes nothing. A record of a newer version raises `NewerRecord`."""

    def __init__(self, shards: Shards) -> None:
        self._shards = shards

    def wake_channel(self, job_id: str) -> str:
        """Return the channel that has a message for each new event of a job."""
        return self._shards.keys_of(check_job_id(job_id)).wake(job_id)

    async def status(self, job_id: str) -> JobStatus:
        """Return the status of a job; raises `JobNotFound`."""
        return _status(job_id, await self._record(job_id, *_STATUS, *_USED, *EXTRACTION_FIELDS))

    async def progress(self, job_id: str) -> Progress:
        """Return how far a job is; raises `JobNotFound`."""
        return _progress(job_id, await self._fields(job_id, *_PROGRESS))

    async def progress_and_reply(self, job_id: str) -> tuple[Progress, Reply | None]:
        """Return how far a job is and its reply, of one moment; raises `JobNotFound`."""
        *values, reply = await self._fields(job_id, *_PROGRESS, "reply")
        return _progress(job_id, values), _reply(job_id, reply)

    async def reply(self, job_id: str) -> Reply | None:
        """Return the reply of a job, None unless it succeeded; raises `JobNotFound`."""
        state, reply = await self._fields(job_id, "state", "reply")
        if state is None:
            raise JobNotFound(job_id)
        return _reply(job_id, reply)

    async def details(self, job_id: str) -> dict[str, Any]:
        """Return the status of a job and, for operators, what it waits for.

        Its metadata, which may hold anything, is left out. Plain reads only: they work on any
        Redis, and the moments of two may differ. Raises `JobNotFound` and `NewerRecord`.
        """
        status, reply = await self.status(job_id), await self.reply(job_id)
        record = await self._record(job_id, *_OF_WAITS, "worker", "replay_of", "replayed_as")
        waits = await self._waits(job_id, status, record)
        return {
            **status.model_dump(exclude={"metadata"}),
            "lane": record["lane"],
            "priority": priority_of(record["agenda"]),
            "waits_for": waits.what,
            "waits_until": waits.until,
            "worker": record["worker"],
            "timings_ms": reply.timings_ms if reply else None,
            "replay_of": record["replay_of"],
            "replayed_as": record["replayed_as"],
        }

    async def waits(self, job_id: str) -> Waits:
        """Return what a job, or then its turn, waits for; raises as `details` does."""
        status = await self.status(job_id)
        return await self._waits(job_id, status, await self._record(job_id, *_OF_WAITS))

    async def _waits(self, job_id: str, status: JobStatus, record: Mapping[str, Any]) -> Waits:
        if status.state in (JobState.QUEUED, JobState.RUNNING):
            words, agenda, name, code = _JOB_WAITS, record["agenda"], job_id, status.code
        elif status.turn in (TurnState.PENDING, TurnState.WRITING):
            words, agenda, name, code = _TURN_WAITS, _LANES, record["lane"], status.turn_code
        else:
            return NOT_KNOWN
        if agenda is None or name is None:
            raise NewerRecord(job_id)  # no version up to this one leaves them out
        keys = self._shards.keys_of(job_id)
        for place in ("hinted", "waiting", "leased"):
            score = await self._shards.send_command("ZSCORE", keys.place(place, agenda), name)
            if score is None:
                continue
            until = moment(float(score)) if place != "hinted" else None
            if place == "waiting" and (kept := await self._kept_back(keys, agenda, name, record)):
                return kept
            if words is _JOB_WAITS and (waits := await self._of_shares(keys, place, record, name)):
                return Waits(waits, until)
            return Waits(words[place].format(code=code or UNTIL_ITS_TIME), until)
        return Waits(words["nowhere"])

    async def _kept_back(
        self, keys: Keys, agenda: str, name: str, record: Mapping[str, Any]
    ) -> Waits | None:
        """Return the order or the version that lets a job or lane wait, and until when if known."""
        if order := await self._order_on(keys, record["tenant"], record["lane"], agenda):
            return Waits(f"{_AN_ORDER}{order.kind} by {order.by}", order.until)
        held = await self._shards.send_command("ZSCORE", keys.place("held", agenda), name)
        if held is None:
            return None
        return Waits(f"a worker that knows record version {record['version']}")

    async def _of_shares(
        self, keys: Keys, place: str, record: Mapping[str, Any], job_id: str
    ) -> str | None:
        """Return what a job waits for because of others, None if it waits for something else."""
        read, agenda, tenant = self._shards.send_command, record["agenda"], record["tenant"]
        if place == "waiting":
            return AT_CAP if record["capped"] else None
        if place != "hinted":
            return None
        if await read("ZSCORE", keys.at_cap, f":{tenant}") is not None:
            return AT_CAP
        queue = keys.share_queue(agenda, tenant)
        number = await read("ZSCORE", queue, job_id)
        before = 0 if number is None else await read("ZCOUNT", queue, "-inf", f"({number}")
        others = await read("ZCARD", keys.share(agenda)) - 1
        waits = _JOB_WAITS[place] + (f", behind {before} of its tenant's jobs" if before else "")
        return waits + (f", in turn with {others} other tenants" if others > 0 else "")

    async def _order_on(
        self, keys: Keys, tenant: str, lane: str, agenda: str
    ) -> SteeringOrder | None:
        """Return an order that lets a user's replies, or turns, wait; None if there is none."""
        names = waiting_orders(tenant, lane, replies=agenda != _LANES)
        found = await self._shards.send_command("HMGET", keys.orders, *names)
        for order in readable(
            lambda name, text: read_order(name, text, 0),
            [(name, text) for name, text in zip(names, found, strict=True) if text],
            "order",
        ):
            if order.until is None or order.until > utc_now():
                return order
        return None

    async def usage(self, tenant: str, user_id: str | None) -> UsageSum:
        """Return the usage of all replies to a tenant, or to one of its users."""
        sums: Counter[str] = Counter()
        for key in self._usage_keys(tenant, user_id):
            found = await self._shards.send_command("HGETALL", key)
            with reading("usage"):
                sums.update({name: int(value) for name, value in found.items()})
        replies = sums.pop("replies", 0)
        spent = await Spending(self._shards).of(tenant, user_id)
        with reading("usage"):
            extraction = read_extraction(sums) or Extraction()
            counted = bool(self._shards.settings.budgets) or spent.share is not None
            return UsageSum(
                tenant=tenant,
                user_id=user_id,
                replies=replies,
                usage=Usage(**sums),
                cost_usd=spent.in_all_usd,
                period_cost_usd=spent.in_period_usd if counted else None,
                period_tokens=spent.in_period_tokens if counted else None,
                most_usd=spent.most_usd,
                most_tokens=spent.most_tokens,
                resets_at=spent.ends_at if counted else None,
                extraction=extraction,
            )

    def _usage_keys(self, tenant: str, user_id: str | None) -> Sequence[str]:
        shards = self._shards.all
        if user_id is None:
            return [keys.tenant_usage(tenant) for keys in shards]
        owner = memory_key(tenant, user_id)
        keys = shards[shard_of(owner, len(shards))]
        return [keys.usage(lane_id(owner, keys.shard))]

    async def events(self, job_id: str, after: str | None) -> Sequence[Event]:
        """Return the events of a job after an event id; after `PAGE` of them there may be more."""
        key = self._shards.keys_of(check_job_id(job_id)).events(job_id)
        start = f"({after}" if after else "-"
        rows = await self._shards.send_command("XRANGE", key, start, "+", "COUNT", PAGE)
        found = list[Event]()
        for event_id, row in rows:
            if "recalled" in row and (recalled := _recalled(job_id, event_id, row)).id != after:
                found.append(recalled)
            found.append(await self._event(job_id, event_id, row))
        return found

    async def has_event(self, job_id: str, event_id: str) -> bool:
        """Return whether a job has an event with this id."""
        key = self._shards.keys_of(check_job_id(job_id)).events(job_id)
        rows = await self._shards.send_command("XRANGE", key, event_id, "+", "COUNT", 1)
        ids = [entry_id for entry_id, _ in rows]
        ids += [_recalled(job_id, *entry).id for entry in rows if "recalled" in entry[1]]
        return event_id in ids

    async def has_stream(self, job_id: str) -> bool:
        """Return whether the events of a job can still be read."""
        key = self._shards.keys_of(check_job_id(job_id)).events(job_id)
        return bool(await self._shards.send_command("EXISTS", key))

    async def _event(self, job_id: str, event_id: str, row: dict[str, str]) -> Event:
        reply = await self.reply(job_id) if row.get("type") == "final" else None
        with reading(job_id):
            return Event.model_validate({"id": event_id, "reply": reply} | row)

    async def _record(self, job_id: str, *names: str) -> dict[str, Any]:
        return dict(zip(names, await self._fields(job_id, *names), strict=True))

    async def _fields(self, job_id: str, *names: str) -> list[Any]:
        key = self._shards.keys_of(check_job_id(job_id)).job(job_id)
        values: list[Any] = await self._shards.send_command("HMGET", key, *names)
        return values


def priority_of(agenda: str | None) -> str | None:
    """Return the priority of a job in this place; None if there is none, or a newer one."""
    return _PRIORITIES.get((agenda or "").rpartition(".")[2])


def _status(job_id: str, record: Mapping[str, Any]) -> JobStatus:
    if record["state"] is None:
        raise JobNotFound(job_id)
    with reading(job_id):
        body = json_object(record["body"]) if record["body"] else {}
        return JobStatus(
            job_id=job_id,
            state=JobState(record["state"]),
            turn=TurnState(record["turn"]),
            attempts=int(record["attempts"]),
            created_at=moment(record["created"]),
            deadline=moment(record["deadline"]),
            code=record["code"],
            turn_code=record["turn_code"] or None,
            tenant=record["tenant"],
            user_id=user_of(record["lane"])[1] if record["lane"] else None,
            conversation_id=body.get("conversation_id"),
            metadata=body.get("metadata"),
            snoozes=int(record["snoozes"] or 0),
            started_at=_moment_or_none(record["started"]),
            first_text_at=_moment_or_none(record["first_text"]),
            ended_at=_moment_or_none(record["ended"]),
            usage=_usage(record),
            extraction=read_extraction(record),
            memory_ids=tuple(json.loads(record["memory_ids"] or "[]")),
        )


def _usage(record: Mapping[str, Any]) -> Usage:
    """Return the tokens of the attempt with the reply, if any, and of those without one."""
    unanswered = Usage(**{name: int(record[f"used:{name}"] or 0) for name in Usage.model_fields})
    tokens = record["tokens"]
    return unanswered + Usage.model_validate_json(tokens) if tokens else unanswered


def _moment_or_none(milliseconds: str | None) -> datetime | None:
    return moment(milliseconds) if milliseconds and milliseconds != "0" else None


def _progress(job_id: str, values: Sequence[Any]) -> Progress:
    state, attempts, code = values
    if state is None:
        raise JobNotFound(job_id)
    with reading(job_id):
        return Progress(JobState(state), int(attempts), code)


def _recalled(job_id: str, event_id: str, row: Mapping[str, str]) -> Event:
    """Return the event that an entry brings along, which comes before it: see `_lib.lua`.

    So an older reader, which knows no `recalled`, finds nothing in a stream that it cannot read.
    """
    with reading(job_id):
        fence, number = event_id.split("-")
        given = Recalled.model_validate_json(row["recalled"])
        return Event(
            id=f"{fence}-{int(number) - 1}",
            type="recalled",
            attempt=int(row["attempt"]),
            memory=given.memory,
            memories=given.memories,
        )


def _reply(job_id: str, reply: str | None) -> Reply | None:
    with reading(job_id):
        return Reply.model_validate_json(reply) if reply else None
