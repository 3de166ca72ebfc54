"""Asks the ledger: whether it takes a job, and how its workers, queues, gates and turns are."""

from __future__ import annotations

from afterword.producer.cli.checks import judgement
from afterword.producer.cli.checks.finding import Finding, fail, ok
from afterword.producer.cli.checks.orders import of_orders
from afterword.producer.cli.checks.tenant_caps import of_tenants
from afterword.producer.cli.workers_seen import open_ledger
from afterword.shared.clock import utc_now
from afterword.shared.errors import AfterwordError, LedgerUnavailable, QueueFull
from afterword.shared.ledger.ledger import Ledger
from afterword.shared.settings import Settings
from afterword.shared.urls import is_local_stack

#: Not used here: whose turns are late is judged by the oldest one.
_LATE_S = 300.0

_REDIS = "Check AFTERWORD_REDIS_URL, and that Redis runs."
_LOCAL = "Wait a moment; else end the commands that use the local stack, and start again."


async def look_at_ledger(settings: Settings) -> list[Finding]:
    """Return the findings of all checks that Redis can answer."""
    async with open_ledger(settings) as checked:
        ledger = checked.ledger
        try:
            found = await ledger.examine()
        except LedgerUnavailable as error:
            return [fail("redis", str(error), _redis_remedy(settings))]
        findings = judgement.of_redis(found)
        findings.append(await _write(ledger))
        try:
            return findings + await _state(ledger)
        except AfterwordError as error:  # a permission to read may be missing
            said = any(finding.detail == str(error) for finding in findings)
            untold = [] if said else [fail("queues", str(error), _redis_remedy(settings))]
            return findings + untold


async def _write(ledger: Ledger) -> Finding:
    try:
        await ledger.jobs.try_write()
    except QueueFull as error:
        remedy = "Give Redis more memory (maxmemory), or lower AFTERWORD_RETENTION_S."
        return fail("write", str(error), remedy)
    except AfterwordError as error:
        return fail("write", str(error), _redis_remedy(ledger.settings))
    return ok("write", "taken")


def _redis_remedy(settings: Settings) -> str:
    return _LOCAL if is_local_stack(settings.redis_url or "") else _REDIS


async def _state(ledger: Ledger) -> list[Finding]:
    shards = await ledger.maintenance.overview()
    accounts = await ledger.accounts.by_tenant(late_s=_LATE_S)
    orders = await ledger.orders.in_force()
    opened = await ledger.tenants.opened([one.tenant for one in accounts])
    return [
        await _of_machine(ledger),
        judgement.of_room(shards, ledger.settings),
        *of_tenants(opened, ledger.settings, orders),
        judgement.of_clock(shards[0].at, utc_now()),
        *judgement.of_workers(shards, ledger.settings),
        judgement.of_same_memory(shards),
        *judgement.of_queues(shards),
        *judgement.of_gates(await ledger.gates.not_open()),
        *of_orders(orders, shards),
        judgement.of_turns(accounts, await ledger.message_batches.all()),
        judgement.of_dead_letters(shards),
        judgement.of_held(shards),
        judgement.of_neighbours(
            await ledger.maintenance.other_databases(),
            await ledger.quarantine.newest(),
            shards[0].at,
        ),
    ]


async def _of_machine(ledger: Ledger) -> Finding:
    """Compare the ledger with what workers of this machine saw of it; change nothing."""
    from afterword.workers.background.rollback_detector import SeenFile, place_of

    identity = await ledger.identities.check(founds=False)
    if identity is None:
        return ok("restored", "the ledger is new")
    settings, maintenance = ledger.settings, ledger.maintenance
    seen = SeenFile(settings.state_dir, identity.name, place_of(settings)).load().numbers
    found = {keys.shard: await maintenance.newest_number(keys) for keys in maintenance.shards}
    return judgement.of_machine(seen, found)
