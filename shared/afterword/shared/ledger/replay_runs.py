"""The runs: replays of many letters, with what became of each, and the audit beside them."""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import asdict
from typing import Any

from afterword.shared.contracts import RECORD_VERSION
from afterword.shared.errors import IllegalStep, JobNotFound, LeaseLost
from afterword.shared.ledger.dead_letter_records import (
    AuditEntry,
    DeadLetterRef,
    ReplayOutcome,
    ReplayPace,
    ReplayRun,
    ReplayState,
    audit_entry,
)
from afterword.shared.ledger.records import moment
from afterword.shared.ledger.shard import Shards, milliseconds

_BATCH = 500

#: What was chosen for a run that never began is forgotten after this time.
_UNBEGUN_S = 3600.0


class ReplayRuns:
    """Begin, take over, note, end; all on the first shard.

    A run has one driver, who shows its token with each step and is refused with `LeaseLost` once
    someone else has taken the run over or aborted it.
    """

    def __init__(self, shards: Shards) -> None:
        """Take the shards; runs stand on the first one."""
        self._shards = shards
        self._keys = shards.all[0]
        self._lifetime_ms = milliseconds(shards.settings.dead_retention_s)

    async def begin(
        self,
        letters: Sequence[DeadLetterRef],
        *,
        by: str,
        said: dict[str, Any],
        pace: ReplayPace,
        token: str,
    ) -> str:
        """Keep what was chosen and begin a run over it; return its id. `said` is the filter."""
        run = f"r{uuid.uuid4().hex[:12]}"
        for start in range(0, len(letters), _BATCH):
            places = enumerate(letters[start : start + _BATCH], start)
            flat = [part for at, one in places for part in (at, str(one))]
            await self._run("run/choose", run, milliseconds(_UNBEGUN_S), *flat)
        kept = (json.dumps(said), json.dumps(asdict(pace)))
        step = (run, RECORD_VERSION, by, *kept, token, self._lifetime_ms)
        _driven(await self._run("run/begin", *step), by)
        return run

    async def take_over(self, run: str, *, by: str, token: str, to: str) -> bool:
        """Take a run over to `resume` or `abort` it; return false if it is done already."""
        word = await self._run(
            "run/take_over", run, token, by, self._lifetime_ms, RECORD_VERSION, to
        )
        if word == "gone":
            raise JobNotFound(run)
        if word == "held":
            raise IllegalStep(f"run {run} was begun by a newer version; use that")
        return word == "ok"

    async def record_outcomes(
        self,
        run: str,
        token: str,
        outcomes: Iterable[tuple[DeadLetterRef | None, str, ReplayOutcome]],
        *,
        passed: bool = False,
    ) -> None:
        """Note what became of letters; with the letter itself when it was replayed just now."""
        flat = [
            part
            for letter, name, outcome in outcomes
            for part in (str(letter or ""), name, outcome)
        ]
        _driven(await self._run("run/record", run, token, int(passed), *flat), run)

    async def end(self, run: str, token: str, state: ReplayState, why: str, *, by: str) -> None:
        """Say that a run is done, or why it stopped."""
        _driven(await self._run("run/end", run, token, state, why, by, self._lifetime_ms), run)

    async def next_letters(self, run: str) -> Sequence[DeadLetterRef]:
        """Return the next letters that nobody has looked at, in order."""
        key = f"{self._keys.root}:run-todo:{run}"
        found = await self._shards.call("ZRANGE", key, 0, _BATCH - 1)
        return [DeadLetterRef.read(text) for text in found]

    async def waiting_letters(self, run: str) -> Sequence[str]:
        """Return the letters that were replayed and had not settled when they were last seen."""
        return [
            name async for name, outcome in self.outcomes(run) if outcome is ReplayOutcome.WAITING
        ]

    async def outcomes(self, run: str) -> AsyncIterator[tuple[str, ReplayOutcome]]:
        """Give what is noted of each letter, in no order."""
        key, cursor = f"{self._keys.root}:run-outcomes:{run}", "0"
        while True:
            cursor, found = await self._shards.call("HSCAN", key, cursor, "COUNT", _BATCH)
            for name, outcome in found.items():
                yield name, ReplayOutcome(outcome)
            if str(cursor) == "0":
                return

    async def get(self, run: str) -> ReplayRun:
        """Return a run; raise `JobNotFound`."""
        fields = await self._shards.call("HGETALL", f"{self._keys.root}:run:{run}")
        if not fields:
            raise JobNotFound(run)
        return _run(run, fields)

    async def newest(self, limit: int) -> Sequence[ReplayRun]:
        """Return the newest runs, newest first."""
        names = await self._shards.call("ZRANGE", f"{self._keys.root}:runs", 0, limit - 1, "REV")
        found = []
        for name in names:
            try:
                found.append(await self.get(name))
            except JobNotFound:
                continue  # its time was over
        return found

    async def add_audit_entry(self, by: str, what: str, told: dict[str, Any], token: str) -> None:
        """Note in the audit what an operator did; `token` names this note."""
        await self._run("run/audit", token, by, what, json.dumps(told))

    async def audit_entries(self, limit: int) -> Sequence[AuditEntry]:
        """Return the newest entries of the audit, newest first."""
        key = f"{self._keys.root}:audit"
        rows = await self._shards.call("XREVRANGE", key, "+", "-", "COUNT", limit)
        return [audit_entry(entry_id, fields) for entry_id, fields in rows]

    async def _run(self, step: str, *arguments: str | float) -> str:
        answer = await self._shards.run(step, self._keys, *arguments)
        return str(answer[0])


def _driven(word: str, run: str) -> None:
    if word == "lost":
        raise LeaseLost(f"run {run} was taken over or aborted by someone else")


def _run(name: str, fields: dict[str, str]) -> ReplayRun:
    counts = {field[2:]: int(n) for field, n in fields.items() if field.startswith("n:")}
    return ReplayRun(
        id=name,
        by=fields["by"],
        started_at=moment(fields["at"]),
        updated_at=moment(fields["seen"]),
        filter=json.loads(fields["filter"]),
        pace=ReplayPace(**json.loads(fields["pace"])),
        state=ReplayState(fields["state"]),
        reason=fields.get("reason", ""),
        dead_letters=int(fields["letters"]),
        canary_passed="passed" in fields,
        outcomes={outcome: counts[outcome] for outcome in ReplayOutcome if counts.get(outcome)},
    )
