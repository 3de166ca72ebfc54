"""What keeps the ledger in order: the sweep, the overview, the check for inconsistencies."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict, astuple, dataclass
from typing import Any

from pydantic import TypeAdapter, ValidationError

from afterword.shared.contracts import RECORD_VERSION
from afterword.shared.errors import Misconfigured
from afterword.shared.ledger import steps
from afterword.shared.ledger.cap_parts import CapParts
from afterword.shared.ledger.records import (
    AgendaCount,
    Inconsistency,
    Overview,
    SweepCounts,
    TaskHealth,
    Witnessed,
    WorkerSeen,
    moment,
    readable,
    reading,
)
from afterword.shared.ledger.shard import Shards, fields_of, milliseconds
from afterword.shared.ledger.tenant_spending import TenantSpending
from afterword.shared.memory_place import memory_place
from afterword.shared.names import Keys, control_channel
from afterword.shared.urls import parse_ledger
from afterword.shared.version import __version__

#: Numbers that are skipped beyond the newest that was seen: others may have been given out since.
SKIPPED_NUMBERS = 1_000_000

#: Under this name an operator is a witness.
_OPERATOR = "operator"

#: Most records that one sweep of one shard touches: keeps the script short.
SWEEP_LIMIT = 40

#: Most workers that an overview shows, those that were seen last.
_WORKERS = 1000

#: For how long a dead letter counts as recent, in milliseconds.
RECENT_MS = 3_600_000


@dataclass(frozen=True, slots=True)
class _WorkerStatus:
    """What a worker says of itself with each heartbeat."""

    version: str = ""
    tasks: tuple[TaskHealth, ...] = ()
    instance: str = ""
    draining: bool = False
    memory: str = ""
    memory_place: str = ""


_STATUS = TypeAdapter(_WorkerStatus)

#: One worker of the fleet balances in this time.
_BALANCE_EVERY_MS = 2000


class Maintenance:
    """Sweeps, counts and checks every shard."""

    def __init__(self, shards: Shards) -> None:
        self._shards = shards
        self.cap_parts = CapParts(shards)
        self.tenant_spending = TenantSpending(shards)

    async def balance_if_due(self) -> None:
        """Balance caps and budgets of tenants between shards, unless a worker just did."""
        if self._shards.settings.shards == 1:
            return
        key = self._shards.all[0].balanced
        if await self._shards.send_command("SET", key, 1, "NX", "PX", _BALANCE_EVERY_MS):
            await self.cap_parts.balance_all()
            await self.tenant_spending.tell_all()

    async def other_databases(self) -> Sequence[str]:
        """Return the other databases of this Redis where workers of the same namespace listen.

        Channels belong to no database: what such a fleet announces of lanes and gates reaches ours.
        Nothing is known if this user of Redis may not list channels.
        """
        settings = self._shards.settings
        assert settings.redis_url is not None, "there is no ledger without it"
        own = parse_ledger(settings.redis_url)[0].database
        before, after = control_channel(settings.namespace, "*").split("*")
        try:
            heard = await self._shards.send_command("PUBSUB", "CHANNELS", f"{before}*{after}")
        except Misconfigured:
            return []
        found = {name.removeprefix(before).removesuffix(after) for name in heard}
        return sorted(found - {own})

    async def record_heartbeat(
        self,
        queues: str,
        worker: str,
        tasks: Sequence[TaskHealth],
        *,
        instance: str = "",
        draining: bool = False,
    ) -> bool:
        """Record that a worker of these queues is alive, and which of its periodic tasks fail.

        Returns whether an operator has ordered this process, known by its `instance`, to drain.
        """
        memory = memory_place(self._shards.settings)
        status = json.dumps(
            asdict(_WorkerStatus(__version__, tuple(tasks), instance, draining, *memory))
        )
        step = steps.RecordHeartbeat(worker=f"{queues} {worker}", status=status, instance=instance)
        (word,) = await self._shards.run_script(self._shards.all[0], step)
        return bool(word == "drain")

    async def forget_worker(self, queues: str, worker: str) -> None:
        """Record that a worker has ended; an order that drained it ends as well."""
        step = steps.RecordHeartbeat(
            worker=f"{queues} {worker}", status="", instance="", leaving=True
        )
        await self._shards.run_script(self._shards.all[0], step)

    async def sweep(self) -> SweepCounts:
        """Do what time has made due in every shard.

        Expires jobs past their deadline, wakes what waited, takes back leases that ran out, and
        sends lost hints again.
        """
        found = await asyncio.gather(*map(self._sweep, self._shards.all))
        return SweepCounts(*(sum(column) for column in zip(*map(astuple, found), strict=True)))

    async def _sweep(self, keys: Keys) -> SweepCounts:
        settings = self._shards.settings
        arguments = steps.Sweep(
            limit=SWEEP_LIMIT,
            grace_ms=milliseconds(settings.hint_grace_s),
            retention_ms=milliseconds(settings.retention_s),
            stream_ms=milliseconds(settings.stream_retention_s),
            known_version=RECORD_VERSION,
        )
        return SweepCounts(*await self._shards.run_script(keys, arguments))

    async def overview(self) -> Sequence[Overview]:
        """Count what is open, late and dead; one row per shard."""
        return [await self._overview(keys) for keys in self._shards.all]

    async def _overview(self, keys: Keys) -> Overview:
        retention_ms = milliseconds(self._shards.settings.dead_retention_s)
        arguments = steps.ReadOverview(
            retention_ms=retention_ms, recent_ms=RECENT_MS, limit=_WORKERS
        )
        (record,) = await self._shards.run_script(keys, arguments)
        counts = await self._shards.counts(keys)
        with reading("overview"):
            return _overview(fields_of(record), counts)

    async def find_inconsistencies(self, *, fix: bool = False) -> AsyncIterator[Inconsistency]:
        """Yield each record that is not where its state says; with `fix`, restore what is missing.

        Reads every record, 50 at the same moment. An inconsistency is a bug, ours or of another
        program that wrote to this Redis: no script leaves one.
        """
        for keys in self._shards.all:
            async for inconsistency in self._inconsistencies(keys, fix=fix):
                yield inconsistency

    async def _inconsistencies(self, keys: Keys, *, fix: bool) -> AsyncIterator[Inconsistency]:
        prefix, told = keys.job(""), set[tuple[str, str]]()
        async for page in self._shards.scan(f"{prefix}*"):
            ids = [key.removeprefix(prefix) for key in page]
            arguments = steps.FindInconsistencies(fix=fix, known_version=RECORD_VERSION, ids=ids)
            (found,) = await self._shards.run_script(keys, arguments)
            for job_id, problem in found:
                if (job_id, problem) not in told:
                    told.add((job_id, problem))
                    yield Inconsistency(job_id, problem)

    async def claim_reconciliation(self, every_ms: int) -> bool:
        """Return true to one caller in every `every_ms`: one check is enough for a fleet."""
        key = self._shards.all[0].reconciled
        return bool(await self._shards.send_command("SET", key, 1, "NX", "PX", every_ms))

    @property
    def shards(self) -> Sequence[Keys]:
        """Return the keys of every shard."""
        return self._shards.all

    async def declare_restored(self) -> int:
        """Treat every shard as older than somebody saw it; return how many there are.

        That is what an operator knows who restored a backup, and what no machine knows that never
        saw the ledger. Doing it again is safe.
        """
        for keys in self._shards.all:
            older = False
            while not older:  # its number may grow in between
                seen = await self.newest_number(keys) + SKIPPED_NUMBERS
                older = (await self.witness(keys, _OPERATOR, seen, SKIPPED_NUMBERS)).older
        return len(self._shards.all)

    async def newest_number(self, keys: Keys) -> int:
        """Return the newest sequence number of a shard."""
        return int(await self._shards.send_command("GET", keys.sequence) or 0)

    async def witness(self, keys: Keys, witness: str, seen: int, margin: int) -> Witnessed:
        """Compare a shard's counter with what a machine saw of it; it never falls by itself.

        If the ledger is older than that, at least `margin` numbers are skipped, which nobody gets,
        and the turns that stand in it are looked for in mem0 before they are added.
        """
        arguments = steps.WitnessSequence(witness=witness, seen=seen, margin=margin)
        found, newest, older = await self._shards.run_script(keys, arguments)
        return Witnessed(int(found), int(newest), older == 1)


def _overview(record: dict[str, Any], counts: dict[str, int]) -> Overview:
    workers = fields_of(record["workers"])
    status = fields_of(record["worker_status"])
    return Overview(
        at=moment(record["at"]),
        open_jobs=record["open_jobs"],
        dead_turns=record["dead_turns"],
        failed_jobs=record["failed_jobs"],
        recent_dead_letters=record["recent_dead_letters"],
        workers=tuple(
            readable(
                _worker,
                ((name, at, status.get(name, "{}")) for name, at in workers.items()),
                "worker",
            )
        ),
        counts=counts,
        agendas=tuple(_agenda(row) for row in record["agendas"]),
        newest_version=int(record["newest_version"]),
    )


def _worker(name: str, seen: str, status: str) -> WorkerSeen:
    queue, _, worker = name.partition(" ")
    found = _status(status)
    return WorkerSeen(
        worker, queue, moment(float(seen)), found.version, found.tasks, found.instance,
        found.draining, found.memory, found.memory_place,
    )  # fmt: skip


def _status(text: str) -> _WorkerStatus:
    """Read what a worker says of itself; nothing if a newer one says it in another way."""
    try:
        return _STATUS.validate_json(text)
    except ValidationError:
        return _WorkerStatus()


def _agenda(row: Sequence[Any]) -> AgendaCount:
    name, hinted, waiting, leased, oldest, messages, held = row
    since = moment(float(oldest)) if oldest else None
    return AgendaCount(name, hinted, waiting, leased, since, messages, held)
