"""`afterword budgets`: what tenants, or users of one, have spent of their budgets."""

from __future__ import annotations

import asyncio

import click

from afterword.producer.admin.async_admin import AsyncOperator
from afterword.producer.admin.wording import utc_time
from afterword.producer.cli import render
from afterword.producer.cli.command import command
from afterword.producer.cli.options import after_option, json_option, limit_option, tell_of_more
from afterword.producer.cli.terminal import echo
from afterword.shared.ledger.budget_rows import BudgetPage, BudgetRow


@command(
    examples=[
        "afterword budgets",
        "afterword budgets acme --limit 50 --json",
    ]
)
@click.argument("tenant", required=False)
@limit_option(20, 10_000)
@after_option("the tenant or user")
@json_option
def budgets(*, tenant: str | None, limit: int, after: str | None, as_json: bool) -> None:
    """List what tenants, or users, have spent of their budgets.

    Without TENANT, tenants; with it, its users. Those who are nearest to their limit come first,
    with what is left, and when the period ends. A user who has spent nothing in it is not listed.
    Nothing is changed.
    """
    found = asyncio.run(_page(tenant, limit, after))
    if as_json:
        render.json_record(found)
    else:
        _print(found)


async def _page(tenant: str | None, limit: int, after: str | None) -> BudgetPage:
    async with AsyncOperator() as operator:
        return await operator.tenants.budgets(tenant, limit=limit, after=after)


def _print(found: BudgetPage) -> None:
    render.table(
        ("whose", "spent", "USD", "of USD", "USD left",
         "tokens", "of tokens", "tokens left", "until"),
        [
            (one.user_id or one.tenant, "-" if one.share is None else f"{one.share:.0%}",
             *_money(one), *_tokens(one), utc_time(one.resets_at))
            for one in found.rows
        ],
    )  # fmt: skip
    if not found.complete:
        echo("There are more users than one list looks at.")
    if found.more:
        tell_of_more(found.rows[-1].user_id or found.rows[-1].tenant)


def _money(one: BudgetRow) -> tuple[str, str, str]:
    amounts = (one.spent_usd, one.most_usd, one.left_usd)
    spent, most, left = ("-" if amount is None else f"{amount:,.4f}" for amount in amounts)
    return spent, most, left


def _tokens(one: BudgetRow) -> tuple[str, str, str]:
    amounts = (one.spent_tokens, one.most_tokens, one.left_tokens)
    spent, most, left = ("-" if amount is None else f"{amount:,}" for amount in amounts)
    return spent, most, left
