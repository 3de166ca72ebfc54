"""Accounts for every job and turn, per tenant, and for users whose memory lags behind."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from afterword.shared.ledger import steps
from afterword.shared.ledger.records import Account, moment, reading
from afterword.shared.ledger.shard import Shards, milliseconds
from afterword.shared.lifecycle import JobState, TurnState
from afterword.shared.names import Keys

#: Most tenants that one script looks at.
_TENANTS = 100

_JOB_STATES = {state.value: state for state in JobState}
_TURN_STATES = {state.value: state for state in TurnState}
_NO_JOBS, _NO_TURNS = dict.fromkeys(JobState, 0), dict.fromkeys(TurnState, 0)


@dataclass(slots=True)
class _Tally:
    """What the names of counts say of one tenant, which stands at the end of each.

    Beside `job:<state>` and `turn:<state>` there are `reply:degraded`, of replies without what
    memory knows, `facts:none`, of turns without a fact, and `secret:<kind>`.
    """

    jobs: dict[JobState, int] = field(default_factory=_NO_JOBS.copy)
    turns: dict[TurnState, int] = field(default_factory=_NO_TURNS.copy)
    secrets: dict[str, int] = field(default_factory=dict)
    degraded_replies: int = 0
    turns_without_facts: int = 0

    def add(self, what: str, kind: str, count: int) -> None:
        """Take in one count; what only a newer version counts is left out."""
        if what == "job":
            if kind in _JOB_STATES:
                self.jobs[_JOB_STATES[kind]] = count
        elif what == "turn":
            if kind in _TURN_STATES:
                self.turns[_TURN_STATES[kind]] = count
        elif what == "secret":
            self.secrets[kind] = count
        elif (what, kind) == ("reply", "degraded"):
            self.degraded_replies = count
        elif (what, kind) == ("facts", "none"):
            self.turns_without_facts = count


class Accounts:
    """Reads the counts by state that the scripts keep, a part at a time.

    While jobs go on, the counts of one account are not of the same moment.
    """

    def __init__(self, shards: Shards) -> None:
        self._shards = shards

    async def by_tenant(
        self,
        *,
        late_s: float,
        counts: Sequence[Mapping[str, int]] | None = None,
        tenant: str | None = None,
    ) -> Sequence[Account]:
        """Return one account per tenant, by name, or that of one tenant if there is any.

        A user is behind while a turn of theirs waits to be stored, and late once the oldest of
        them is older than `late_s` seconds. `counts` are those of each shard, if they were read.
        """
        shards = self._shards.all
        if counts is None:
            counts = await asyncio.gather(*map(self._shards.counts, shards))
        read = zip(shards, counts, strict=True)
        answers = await asyncio.gather(
            *(self._of(keys, late_s, known, tenant) for keys, known in read)
        )
        by_tenant: dict[str, list[Account]] = {}
        for account in (account for answer in answers for account in answer):
            by_tenant.setdefault(account.tenant, []).append(account)
        return [
            found[0] if len(found) == 1 else _sum(name, found)
            for name, found in sorted(by_tenant.items())
        ]

    async def _of(
        self, keys: Keys, late_s: float, tallies: Mapping[str, int], tenant: str | None
    ) -> list[Account]:
        known = _by_tenant(tallies, tenant)
        names = sorted(known)
        found: list[Account] = []
        for start in range(0, len(names), _TENANTS):
            tenants = names[start : start + _TENANTS]
            arguments = steps.ReadAccount(late_ms=milliseconds(late_s), tenants=tenants)
            now, rows = await self._shards.run_script(keys, arguments)
            with reading("account"):
                found += [_account(int(now), known[row[0]], row) for row in rows]
        return found


def total(accounts: Iterable[Account]) -> Account:
    """Return the sum of all tenants' accounts, under the tenant ''."""
    return _sum("", list(accounts))


def _by_tenant(counts: Mapping[str, int], only: str | None) -> dict[str, _Tally]:
    """Return the tallies of all tenants that have jobs or turns, or only that of one."""
    found: dict[str, _Tally] = {}
    with_work = set[str]()
    for name, count in counts.items():
        what, kind, tenant = name.split(":", 2)  # a tenant may hold colons
        if only is not None and tenant != only:
            continue
        tally = found.get(tenant)
        if tally is None:
            tally = found[tenant] = _Tally()
        tally.add(what, kind, count)
        if what in {"job", "turn"}:
            with_work.add(tenant)
    return {tenant: found[tenant] for tenant in with_work}


def _account(now: int, tally: _Tally, row: Sequence[Any]) -> Account:
    tenant, behind, late, oldest = row
    return Account(
        tenant=tenant,
        jobs=tally.jobs,
        turns=tally.turns,
        users_behind=behind,
        users_late=late,
        oldest_s=(moment(now) - moment(float(oldest))).total_seconds() if oldest else 0.0,
        degraded_replies=tally.degraded_replies,
        turns_without_facts=tally.turns_without_facts,
        secrets=dict(sorted(tally.secrets.items())) if tally.secrets else tally.secrets,
    )


def _sum(tenant: str, accounts: Sequence[Account]) -> Account:
    return Account(
        tenant=tenant,
        jobs=_added(JobState, [account.jobs for account in accounts]),
        turns=_added(TurnState, [account.turns for account in accounts]),
        users_behind=sum(account.users_behind for account in accounts),
        users_late=sum(account.users_late for account in accounts),
        oldest_s=max((account.oldest_s for account in accounts), default=0.0),
        degraded_replies=sum(account.degraded_replies for account in accounts),
        turns_without_facts=sum(account.turns_without_facts for account in accounts),
        secrets=dict(_added_secrets(accounts)),
    )


def _added(states: Any, tallies: Sequence[dict[Any, int]]) -> dict[Any, int]:
    return {state: sum(tally[state] for tally in tallies) for state in states}


def _added_secrets(accounts: Sequence[Account]) -> Counter[str]:
    sums: Counter[str] = Counter()
    for account in accounts:
        if account.secrets:
            sums.update(account.secrets)
    return sums
