"""Replay runs: replays of many dead letters, what became of each, and the audit of operators."""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import asdict
from typing import Any

from afterword.shared.contracts import RECORD_VERSION
from afterword.shared.errors import IllegalStep, InvalidRequest, JobNotFound, LeaseLost, NewerRecord
from afterword.shared.events import RecordNotRead
from afterword.shared.ledger import steps
from afterword.shared.ledger.dead_letter_records import (
    AuditEntry,
    DeadLetterRef,
    ReplayOutcome,
    ReplayPace,
    ReplayRun,
    ReplayState,
    audit_entry,
)
from afterword.shared.ledger.records import json_object, moment, readable, reading
from afterword.shared.ledger.shard import Shards, milliseconds
from afterword.shared.observer import emit
from afterword.shared.transport.signatures import Arguments

_BATCH = 200

#: Entries of the audit that are read at once.
_AUDIT_PAGE = 500

#: Most outcomes that one script records.
_RECORDED = 200

#: What was chosen for a run that never began expires after this time.
_UNBEGUN_S = 3600.0

#: What the field of a count begins with; the outcome follows.
_COUNT = "count:"


class ReplayRuns:
    """Begins, takes over, records and ends replay runs; all are on the first shard.

    A run has one driver, named by a token. A driver gets `LeaseLost` once someone else has taken
    the run over or aborted it.
    """

    def __init__(self, shards: Shards) -> None:
        self._shards = shards
        self._keys = shards.all[0]
        self._lifetime_ms = milliseconds(shards.settings.dead_retention_s)

    async def begin(
        self,
        letters: Sequence[DeadLetterRef],
        *,
        by: str,
        criteria: dict[str, Any],
        pace: ReplayPace,
        token: str,
    ) -> str:
        """Begin a run over the chosen dead letters; return its id.

        `criteria` is the filter that chose them.
        """
        run = f"r{uuid.uuid4().hex[:12]}"
        for start in range(0, len(letters), _BATCH):
            await self._run_for_word(
                steps.ChooseDeadLetters(
                    run=run,
                    lifetime_ms=milliseconds(_UNBEGUN_S),
                    letters=[
                        (place, str(letter))
                        for place, letter in enumerate(letters[start : start + _BATCH], start)
                    ],
                )
            )
        arguments = steps.BeginRun(
            run=run,
            version=RECORD_VERSION,
            by=by,
            filter=json.dumps(criteria),
            pace=json.dumps(asdict(pace)),
            token=token,
            lifetime_ms=self._lifetime_ms,
        )
        _check_driver(await self._run_for_word(arguments), run)
        return run

    async def take_over(self, run: str, *, by: str, token: str, action: str) -> bool:
        """Take a run over to `resume` or `abort` it; return false if it is done already.

        Raises `JobNotFound`, and `IllegalStep` if a newer version began it.
        """
        arguments = steps.TakeOverRun(
            run=run,
            token=token,
            by=by,
            action=action,
            known_version=RECORD_VERSION,
            lifetime_ms=self._lifetime_ms,
        )
        word = await self._run_for_word(arguments)
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
        canary_passed: bool = False,
    ) -> None:
        """Record what became of dead letters: (the letter if it was just replayed, id, outcome)."""
        rows = [(str(letter or ""), name, outcome) for letter, name, outcome in outcomes]
        for start in range(0, max(len(rows), 1), _RECORDED):
            arguments = steps.RecordOutcomes(
                run=run,
                token=token,
                canary_passed=canary_passed,
                outcomes=rows[start : start + _RECORDED],
            )
            _check_driver(await self._run_for_word(arguments), run)

    async def end(self, run: str, token: str, state: ReplayState, reason: str, *, by: str) -> None:
        """Record that a run is done, or why it stopped."""
        arguments = steps.EndRun(
            run=run,
            token=token,
            state=state,
            reason=reason,
            by=by,
            lifetime_ms=self._lifetime_ms,
        )
        _check_driver(await self._run_for_word(arguments), run)

    async def next_letters(self, run: str) -> Sequence[DeadLetterRef]:
        """Return the next dead letters of a run that were not looked at yet, in order."""
        key = self._keys.replay_todo(run)
        found = await self._shards.send_command("ZRANGE", key, 0, _BATCH - 1)
        return [DeadLetterRef.read(text) for text in found]

    async def waiting_letters(self, run: str) -> Sequence[str]:
        """Return the ids that were replayed and had not settled when they were last seen."""
        return [
            name async for name, outcome in self.outcomes(run) if outcome is ReplayOutcome.WAITING
        ]

    async def outcomes(self, run: str) -> AsyncIterator[tuple[str, ReplayOutcome]]:
        """Yield what is recorded of each dead letter, in no order."""
        async for row in self._shards.fields(self._keys.replay_outcomes(run)):
            for known in readable(_outcome, [row], "replay outcome"):
                yield known

    async def get(self, run: str) -> ReplayRun:
        """Return a run; raises `JobNotFound`."""
        fields = await self._shards.send_command("HGETALL", self._keys.replay_run(run))
        if not fields:
            raise JobNotFound(run)
        with reading(run):
            return _run(run, fields)

    async def newest(self, limit: int, *, after: str | None = None) -> Sequence[ReplayRun]:
        """Return the newest runs, newest first; those that began before the run `after`.

        Raises `InvalidRequest` if there is no such run.
        """
        found = []
        for name in await self._names(limit, after):
            try:
                found.append(await self.get(name))
            except JobNotFound:
                continue  # it has expired
            except NewerRecord:
                emit(RecordNotRead, kind="replay run")
        return found

    async def _names(self, limit: int, after: str | None) -> Sequence[str]:
        key = self._keys.replay_runs
        if after is None:
            names: list[str] = await self._shards.send_command("ZRANGE", key, 0, limit - 1, "REV")
            return names
        began = await self._shards.send_command("ZSCORE", key, after)
        if began is None:
            raise InvalidRequest("after", "is no run")
        same = await self._shards.send_command("ZCOUNT", key, began, began)
        names = await self._shards.send_command(
            "ZRANGE", key, began, "-inf", "BYSCORE", "REV", "LIMIT", 0, limit + same
        )
        return names[names.index(after) + 1 :][:limit]

    async def add_audit_entry(
        self, by: str, action: str, details: dict[str, Any], token: str
    ) -> None:
        """Record in the audit what an operator did; a retry with the same token adds nothing."""
        await self._run_for_word(
            steps.AddAuditEntry(token=token, by=by, action=action, details=json.dumps(details))
        )

    async def audit_entries(
        self,
        limit: int,
        *,
        after: str | None = None,
        by: str | None = None,
        action: str | None = None,
    ) -> Sequence[AuditEntry]:
        """Return the newest entries of the audit, newest first.

        `after` is the id of an entry: only older ones are given. `by` and `action` choose those of
        one operator and of one kind.
        """
        found: list[AuditEntry] = []
        newest = f"({after}" if after else "+"
        while len(found) < limit:
            rows = await self._shards.send_command(
                "XREVRANGE", self._keys.audit, newest, "-", "COUNT", _AUDIT_PAGE
            )
            if not rows:
                break
            newest = f"({rows[-1][0]}"
            found += [
                entry
                for entry in readable(audit_entry, rows, "audit entry")
                if by in (None, entry.by) and action in (None, entry.action)
            ]
        return found[:limit]

    async def _run_for_word(self, arguments: Arguments) -> str:
        (word,) = await self._shards.run_script(self._keys, arguments)
        return str(word)


def _outcome(name: str, outcome: str) -> tuple[str, ReplayOutcome]:
    return name, ReplayOutcome(outcome)


def _check_driver(word: str, run: str) -> None:
    if word == "lost":
        raise LeaseLost(f"run {run} was taken over or aborted by someone else")


def _run(name: str, fields: dict[str, str]) -> ReplayRun:
    counts = {
        field.removeprefix(_COUNT): int(n)
        for field, n in fields.items()
        if field.startswith(_COUNT)
    }
    return ReplayRun(
        id=name,
        by=fields["by"],
        started_at=moment(fields["started"]),
        updated_at=moment(fields["updated"]),
        filter=json_object(fields["filter"]),
        pace=ReplayPace(**json_object(fields["pace"])),
        state=ReplayState(fields["state"]),
        reason=fields.get("reason", ""),
        dead_letters=int(fields["dead_letters"]),
        canary_passed="canary_passed" in fields,
        outcomes={outcome: counts[outcome] for outcome in ReplayOutcome if counts.get(outcome)},
    )
