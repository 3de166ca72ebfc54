"""`afterword restored`: tells the ledger that it comes from a backup."""

from __future__ import annotations

import asyncio
import secrets

from afterword.producer.admin.operator_name import user_and_host
from afterword.producer.cli.command import command
from afterword.producer.cli.options import apply_option, by_option
from afterword.producer.cli.terminal import echo, tell_of_dry_run
from afterword.producer.cli.workers_seen import open_ledger
from afterword.shared.plurals import quantity


@command(examples=["afterword restored", "afterword restored --apply"])
@apply_option
@by_option
def restored(*, apply: bool, by: str | None) -> None:
    """Tell the ledger that it was restored from a backup.

    Run it before any worker starts on the restored ledger. Memory may hold turns that the ledger
    takes for unstored: each is looked for there before it is added. Numbers that may have been
    given out since the backup are skipped. Workers do the same by themselves if their machine saw a
    newer state of this ledger; a new machine cannot know. On a ledger that was not restored it does
    no harm. It is recorded in the audit log.
    """
    shards = asyncio.run(_declare(by or user_and_host(), apply=apply))
    if apply:
        echo(f"The ledger knows that it was restored ({quantity(shards, 'shard')}).")
    else:
        tell_of_dry_run("tell the ledger that it was restored")


async def _declare(by: str, *, apply: bool) -> int:
    async with open_ledger() as checked:
        if not apply:
            await checked.for_reading()
            return 0
        ledger = await checked.get()
        await ledger.replay_runs.add_audit_entry(by, "restored", {}, secrets.token_hex(8))
        return await ledger.maintenance.declare_restored()
