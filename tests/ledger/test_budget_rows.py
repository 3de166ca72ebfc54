"""Lists of what tenants and users have spent of their budgets, and what is left."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from afterword.producer import AsyncOperator, BudgetRow, InvalidRequest
from afterword.shared.contracts import Usage
from afterword.shared.ledger import budget_rows
from afterword.shared.ledger.ledger import Ledger
from afterword.shared.settings import Settings
from tests.kit.command_line import afterword
from tests.kit.ledger.builder import claim_job, reply_to, submit_job
from tests.kit.printed_json import assert_fits_schema

pytestmark = pytest.mark.redis

USED = Usage(input=80, output=20)
BUDGETS = '{"*": {"user_usd": 1}, "acme": {"tenant_usd": 2, "user_tokens": 400}, "free": {}}'


@pytest.fixture(params=[1, 3])
def settings(settings: Settings, request: pytest.FixtureRequest) -> Settings:
    read = Settings.load({"AFTERWORD_BUDGETS": BUDGETS, "AFTERWORD_BUDGET_PERIOD": "day"})
    names = ("budgets", "budget_period")
    changes: dict[str, Any] = {name: getattr(read, name) for name in names}
    return settings.model_copy(update=changes | {"shards": request.param})


async def answer(ledger: Ledger, cost: int, user: str, tenant: str, usage: Usage = USED) -> None:
    claim = await claim_job(ledger, await submit_job(ledger, user_id=user, tenant=tenant))
    reply = reply_to(claim).model_copy(update={"usage": usage})
    await ledger.jobs.finish(claim, reply, cost=cost)


@pytest.fixture
async def spent(ledger: Ledger) -> Ledger:
    await answer(ledger, 100_000, "ann", "acme")
    await answer(ledger, 200_000, "bob/x*%", "acme", Usage(input=300))
    await answer(ledger, 0, "eve", "acme", Usage(output=50))
    await answer(ledger, 900_000, "zoe", "acmes")
    await answer(ledger, 5, "ann", "free")
    return ledger


def whose(rows: Any) -> list[str]:
    return [row.user_id or row.tenant for row in rows]


async def test_users_of_a_tenant_are_listed_with_what_is_left(
    spent: Ledger, settings: Settings
) -> None:
    rows, complete = await spent.budget_rows.users("acme")
    assert complete
    assert whose(rows) == ["bob/x*%", "ann", "eve"]
    first = rows[0]
    assert first == BudgetRow(
        "acme", "bob/x*%", 0.2, 300, None, 400, None, 100, 0.75, first.resets_at
    )
    assert [row.share for row in rows] == [0.75, 0.25, 0.125]
    (other,), _ = await spent.budget_rows.users("acmes")
    assert (other.left_usd, other.share) == (0.1, 0.9)
    assert await spent.budget_rows.users("nobody") == ([], True)


async def test_tenants_are_listed_and_those_without_a_budget_are_last(
    spent: Ledger, settings: Settings
) -> None:
    rows, _ = await spent.budget_rows.tenants()
    assert whose(rows) == ["acme", "acmes", "free"]  # a user's budget is none of its tenant's
    acme = rows[0]
    assert (acme.spent_usd, acme.spent_tokens) == (0.3, 450)
    assert acme.most_usd == 2.0
    assert acme.share == pytest.approx(0.15)
    assert (rows[2].share, rows[2].left_usd) == (None, None)


async def test_pages_go_on_behind_the_last_row(spent: Ledger, settings: Settings) -> None:
    async with AsyncOperator(settings) as operator:
        page = await operator.tenants.budgets("acme", limit=2)
        assert (whose(page.rows), page.count, page.more) == (["bob/x*%", "ann"], 3, True)
        page = await operator.tenants.budgets("acme", limit=2, after="ann")
        assert (whose(page.rows), page.more) == (["eve"], False)
        assert whose((await operator.tenants.budgets(limit=1)).rows) == ["acme"]
        with pytest.raises(InvalidRequest, match="after"):
            await operator.tenants.budgets("acme", after="kim")


async def test_of_very_many_users_a_bounded_number_is_looked_at(
    spent: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budget_rows, "MOST_USERS", 0)
    rows, complete = await spent.budget_rows.users("acme")
    assert not complete
    assert rows


def test_the_command_prints_a_page_and_how_to_go_on(spent: Ledger, settings: Settings) -> None:
    env = {
        "AFTERWORD_REDIS_URL": str(settings.redis_url),
        "AFTERWORD_NAMESPACE": settings.namespace,
        "AFTERWORD_DURABILITY": "none",
        "AFTERWORD_SHARDS": str(settings.shards),
        "AFTERWORD_BUDGETS": BUDGETS,
        "AFTERWORD_BUDGET_PERIOD": "day",
    }
    printed = afterword("budgets", "acme", "--limit", "1", env=env)
    assert "75%" in printed.stdout
    head, row = (re.split(r"\s{2,}", line) for line in printed.stdout.splitlines()[:2])
    columns = dict(zip(head, row, strict=True))
    assert len(columns) == len(head), "each column has a name of its own"
    assert list(columns)[2:8] == [
        *("USD", "of USD", "USD left"),
        *("tokens", "of tokens", "tokens left"),
    ]
    assert "--after bob/x*%" in printed.everything
    printed = afterword("budgets", "--json", env=env)
    assert_fits_schema(["budgets", "--json"], printed.stdout)
    assert [row["tenant"] for row in json.loads(printed.stdout)["rows"]] == [
        "acme",
        "acmes",
        "free",
    ]
    printed = afterword("budgets", "--after", "kim", env=env)
    assert printed.code == 2
    assert "after" in printed.everything
