"""Budgets in tokens, and budgets that operators set while the fleet runs."""

from __future__ import annotations

from typing import Any

import pytest

from afterword.shared.contracts import Usage
from afterword.shared.errors import BudgetSpent, Misconfigured
from afterword.shared.ledger.ledger import Ledger
from afterword.shared.ledger.order_records import OrderKind, TenantLimits
from afterword.shared.ledger.orders import Whom
from afterword.shared.ledger.spending import ExtractionCost
from afterword.shared.lifecycle import TurnState
from afterword.shared.settings import Settings
from tests.kit.ledger.builder import (
    LedgerInspector,
    claim_job,
    claim_lane,
    lane_of,
    reply_to,
    submit_and_answer,
    submit_job,
)

pytestmark = pytest.mark.redis

USED = Usage(input=60, output=20, cache_read=15, cache_write=5)
ACME = Whom("acme")


def with_budgets(settings: Settings, text: str) -> Settings:
    read = Settings.load({"AFTERWORD_BUDGETS": text, "AFTERWORD_BUDGET_PERIOD": "day"})
    names = ("budgets", "budget_period")
    return settings.model_copy(update={name: getattr(read, name) for name in names})


async def answer(ledger: Ledger, cost: int = 0, usage: Usage = USED, **fields: Any) -> None:
    claim = await claim_job(ledger, await submit_job(ledger, **fields))
    reply = reply_to(claim).model_copy(update={"usage": usage})
    for _ in range(2):  # as after a lost reply
        await ledger.jobs.finish(claim, reply, cost=cost)


async def limit(ledger: Ledger, **limits: float) -> None:
    told = {"by": "kim", "reason": "", "limits": limits}
    await ledger.orders.give(OrderKind.LIMITS, ACME, told)


# -- tokens


async def test_tokens_of_all_kinds_spend_a_budget_also_without_a_price(settings: Settings) -> None:
    limited = with_budgets(settings, '{"*": {"user_tokens": 200}}')
    async with Ledger(limited, patience_s=5.0) as ledger:
        await answer(ledger)
        found = await ledger.queries.usage("default", "ann")
        assert (found.period_tokens, found.most_tokens, found.most_usd) == (100, 200, None)
        assert found.resets_at is not None
        await answer(ledger)

        with pytest.raises(BudgetSpent) as refused:
            await submit_job(ledger)
        assert refused.value.scope == "user"
        await submit_job(ledger, user_id="bob")


async def test_a_tenant_has_a_budget_of_tokens(settings: Settings) -> None:
    limited = with_budgets(settings, '{"acme": {"tenant_tokens": 200, "user_tokens": 150}}')
    async with Ledger(limited, patience_s=5.0) as ledger:
        for user in ("ann", "bob"):
            await answer(ledger, user_id=user, tenant="acme")

        with pytest.raises(BudgetSpent) as refused:
            await submit_job(ledger, user_id="eve", tenant="acme")
        assert refused.value.scope == "tenant"


async def test_an_attempt_without_a_reply_and_an_extraction_spend_tokens(
    settings: Settings,
) -> None:
    limited = with_budgets(settings, '{"*": {"user_tokens": 1000}}')
    async with Ledger(limited, patience_s=5.0) as ledger:
        claim = await claim_job(ledger, await submit_job(ledger))
        for _ in range(2):
            await ledger.jobs.count_usage(claim, Usage(input=7))
        await ledger.jobs.finish(claim, reply_to(claim).model_copy(update={"usage": Usage()}))
        lane = await claim_lane(ledger)
        await ledger.turns.begin(lane, claim.job_id)
        for _ in range(2):
            await ledger.turns.settle(
                lane, claim.job_id, TurnState.NOTHING, code="no_fact", paid=ExtractionCost(USED, 0)
            )

        assert (await ledger.queries.usage("default", "ann")).period_tokens == 107


async def test_a_share_of_the_tokens_is_left_to_replies(settings: Settings) -> None:
    limited = with_budgets(settings, '{"*": {"user_tokens": 125}}')
    async with Ledger(limited, patience_s=5.0) as ledger:
        await answer(ledger)
        assert (await ledger.spending.past(lane_of(), 0.81)).over == ""
        found = await ledger.spending.past(lane_of(), 0.8)
        assert (found.over, found.share) == ("user", 0.8)


async def test_an_erasure_finds_the_tokens_of_its_user(
    settings: Settings, inspector: LedgerInspector
) -> None:
    limited = with_budgets(settings, '{"*": {"user_tokens": 1000}}')
    async with Ledger(limited, patience_s=5.0) as ledger:
        await answer(ledger, 5)
    mine = f"{inspector.keys.spent(lane_of())}/"
    found = inspector.redis.keys(f"{mine}*")
    assert sorted(key.endswith("/tokens") for key in found) == [False, True]
    assert all(inspector.redis.pttl(key) > 0 for key in found)


# -- orders


async def test_an_order_comes_before_the_setting_and_ends_with_it(settings: Settings) -> None:
    limited = with_budgets(settings, '{"acme": {"user_usd": 0.5}}')
    async with Ledger(limited, patience_s=5.0) as ledger:
        await answer(ledger, 600_000, tenant="acme")
        with pytest.raises(BudgetSpent):
            await submit_job(ledger, tenant="acme")

        await limit(ledger, user_usd=1.25)
        await submit_job(ledger, tenant="acme")
        found = await ledger.queries.usage("acme", "ann")
        assert (found.period_cost_usd, found.most_usd) == (0.6, 1.25)

        await ledger.orders.lift(OrderKind.LIMITS, ACME)
        with pytest.raises(BudgetSpent):
            await submit_job(ledger, tenant="acme")


@pytest.mark.parametrize("name", ["tenant_usd", "user_usd", "tenant_tokens", "user_tokens"])
async def test_without_budgets_in_the_settings_an_order_is_one(
    ledger: Ledger, inspector: LedgerInspector, name: str
) -> None:
    await answer(ledger, 9, tenant="acme")
    assert inspector.redis.keys(f"{inspector.keys.spent('')}*/month-*") == []
    assert (await ledger.queries.usage("acme", None)).period_tokens is None

    await limit(ledger, **{name: 100 if name.endswith("tokens") else 0.0001})
    await answer(ledger, 100, tenant="acme")
    with pytest.raises(BudgetSpent, match="order") as refused:
        await submit_job(ledger, tenant="acme")
    assert refused.value.scope == name.partition("_")[0]
    await answer(ledger, 10**9, tenant="other")
    await submit_job(ledger, tenant="other")


async def test_a_budget_of_nothing_stops_a_tenant_at_once(ledger: Ledger) -> None:
    await limit(ledger, tenant_tokens=0)
    with pytest.raises(BudgetSpent):
        await submit_job(ledger, tenant="acme")
    assert (await ledger.spending.of("acme", None)).share == 1.0


async def test_what_an_order_sets_stays_beside_what_the_next_one_sets(ledger: Ledger) -> None:
    await limit(ledger, user_usd=0.25, weight=2)
    await limit(ledger, tenant_tokens=7)
    (found,) = await ledger.orders.in_force()
    assert found.limits == TenantLimits(weight=2, user_usd=0.25, tenant_tokens=7)


async def test_extraction_stops_at_an_orders_budget(ledger: Ledger) -> None:
    await submit_and_answer(ledger, tenant="acme")
    lane = lane_of("ann", "acme")
    assert (await ledger.spending.past(lane, 0.8)).over == ""
    await limit(ledger, user_usd=0)
    assert (await ledger.spending.past(lane, 0.8)).over == "user"


# -- settings


@pytest.mark.parametrize(
    ("budget", "says"),
    [
        ('{"user_tokens": 1.5}', "`user_tokens` must be a whole number"),
        ('{"tenant_tokens": -1}', "`tenant_tokens` must be from 0"),
        ('{"tenant_tokens": 1e16}', "`tenant_tokens` must be from 0"),
        ('{"user_usd": -0.5}', "`user_usd` must be from 0"),
        ('{"tenant_usd": 1e10}', "`tenant_usd` must be from 0"),
        ('{"user_usd": true}', "with some of"),
        ('{"user_tokens": "5"}', "with some of"),
        ('{"tokens": 5}', "with some of"),
    ],
)
def test_a_budget_that_is_wrong_is_named_and_its_tenant_is_not(budget: str, says: str) -> None:
    with pytest.raises(Misconfigured) as refused:
        Settings.load({"AFTERWORD_BUDGETS": f'{{"acme": {budget}}}'})

    assert refused.value.setting == "AFTERWORD_BUDGETS"
    assert says in str(refused.value)
    assert "acme" not in str(refused.value)
