"""`afterword account` and `afterword reconcile`: what became of every turn."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import click

from afterword.producer.admin.async_admin import AsyncOperator
from afterword.producer.cli.render import age, json_option, print_json, table
from afterword.shared.ledger.account import total
from afterword.shared.ledger.records import Account, Inconsistency
from afterword.shared.lifecycle import TurnState

_LATE_S = 300.0


@click.command()
@click.option("--tenant", help="One tenant; without, all of them and their sum.")
@click.option(
    "--late",
    "late_s",
    type=click.FloatRange(min=0),
    default=_LATE_S,
    show_default=True,
    metavar="SECONDS",
    help="From what age of their oldest turn users are late.",
)
@json_option
def account(*, tenant: str | None, late_s: float, as_json: bool) -> None:
    """Show what became of every turn, and how many users' memory lags behind."""
    found = asyncio.run(_accounts(late_s))
    chosen = [one for one in found if tenant in (None, one.tenant)]
    if as_json:
        print_json({"total": total(chosen), "tenants": chosen})
        return
    rows = chosen if tenant is not None or len(chosen) == 1 else [*chosen, total(chosen)]
    _show(rows, late_s)


@click.command()
@click.option("--fix", is_flag=True, help="Put back what is missing.")
@json_option
def reconcile(*, fix: bool, as_json: bool) -> None:
    """Look whether every job and turn is where it must be; exit 1 if one is not.

    Workers do this by themselves now and then, and mend. What is found is worth a report: the
    steps of the ledger leave no gap.
    """
    found = asyncio.run(_inconsistencies(fix=fix))
    if as_json:
        print_json(found)
    elif found:
        table(("job", "what is wrong"), [(gap.job_id, gap.problem) for gap in found])
        click.echo("Fixed." if fix else "Nothing was changed. Add --fix to put it back.")
    else:
        click.echo("no inconsistencies")
    if found:
        raise click.exceptions.Exit(1)


async def _accounts(late_s: float) -> Sequence[Account]:
    async with AsyncOperator() as operator:
        return await operator.accounts(late_s=late_s)


async def _inconsistencies(*, fix: bool) -> Sequence[Inconsistency]:
    async with AsyncOperator() as operator:
        return [gap async for gap in operator.inconsistencies(fix=fix)]


def _show(accounts: Sequence[Account], late_s: float) -> None:
    states = [state for state in TurnState if any(one.turns[state] for one in accounts)]
    head = ("tenant", *states, "users behind", f"over {age(late_s)}", "oldest")
    rows = [
        (
            one.tenant or "all",
            *(one.turns[state] for state in states),
            one.users_behind,
            one.users_late,
            age(one.oldest_s) if one.users_behind else "-",
        )
        for one in accounts
    ]
    table(head, rows)
