"""Accounts for every job and turn, per tenant, and for users whose memory lags behind."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from afterword.shared.ledger import steps
from afterword.shared.ledger.records import Account, moment, reading
from afterword.shared.ledger.shard import Shards, milliseconds
from afterword.shared.lifecycle import JobState, TurnState
from afterword.shared.names import Keys

#: Most tenants that one script looks at.
_TENANTS = 100

#: What the names of counts by state begin with. Others are `reply:degraded`, of replies without
#: what memory knows, and `facts:none`, of turns without a fact. A tenant stands at the end of each.
_COUNTED = ("job:", "turn:")


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
        known = {name.split(":", 2)[2] for name in tallies if name.startswith(_COUNTED)}
        names = sorted(known if tenant is None else known & {tenant})
        secrets = _secrets(tallies)
        found: list[Account] = []
        for start in range(0, len(names), _TENANTS):
            tenants = names[start : start + _TENANTS]
            arguments = steps.ReadAccount(late_ms=milliseconds(late_s), tenants=tenants)
            now, rows = await self._shards.run_script(keys, arguments)
            with reading("account"):
                found += [_account(int(now), tallies, secrets, row) for row in rows]
        return found


def total(accounts: Iterable[Account]) -> Account:
    """Return the sum of all tenants' accounts, under the tenant ''."""
    return _sum("", list(accounts))


def _account(
    now: int, tallies: Mapping[str, int], secrets: dict[str, dict[str, int]], row: Sequence[Any]
) -> Account:
    tenant, behind, late, oldest = row
    return Account(
        tenant=tenant,
        jobs={state: tallies.get(f"job:{state}:{tenant}", 0) for state in JobState},
        turns={state: tallies.get(f"turn:{state}:{tenant}", 0) for state in TurnState},
        users_behind=behind,
        users_late=late,
        oldest_s=(moment(now) - moment(float(oldest))).total_seconds() if oldest else 0.0,
        degraded_replies=tallies.get(f"reply:degraded:{tenant}", 0),
        turns_without_facts=tallies.get(f"facts:none:{tenant}", 0),
        secrets=dict(sorted(secrets.get(tenant, {}).items())),
    )


def _secrets(tallies: Mapping[str, int]) -> dict[str, dict[str, int]]:
    """Return how many secrets of each tenant were found, by kind."""
    found: dict[str, dict[str, int]] = {}
    for name, count in tallies.items():
        if name.startswith("secret:"):
            _, kind, whose = name.split(":", 2)  # a tenant may hold colons
            found.setdefault(whose, {})[kind] = count
    return found


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
