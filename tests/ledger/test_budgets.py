"""Budgets: what is spent is counted once, and refused or left to replies when it is too much."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from afterword.shared.contracts import Usage
from afterword.shared.errors import AfterwordError, BudgetSpent, LedgerUnavailable, Misconfigured
from afterword.shared.ledger.ledger import Ledger
from afterword.shared.ledger.spending import Spent
from afterword.shared.names import Keys, lane_id, memory_key, shard_of
from afterword.shared.settings import Settings
from tests.kit.ledger.builder import (
    LedgerInspector,
    chat_request,
    claim_job,
    lane_of,
    reply_to,
    submit_job,
)
from tests.ledger.test_scripts import evaluate

pytestmark = pytest.mark.redis

BUDGETS = '{"*": {"user_usd": 0.5}, "acme": {"tenant_usd": 1, "user_usd": 0.8}, "free": {}}'


@pytest.fixture
def settings(settings: Settings) -> Settings:
    read = Settings.load({"AFTERWORD_BUDGETS": BUDGETS, "AFTERWORD_BUDGET_PERIOD": "day"})
    names = ("budgets", "budget_period")
    return settings.model_copy(update={name: getattr(read, name) for name in names})


async def answer(ledger: Ledger, cost: int, **fields: Any) -> str:
    """Answer a job at this cost, in millionths of a US dollar."""
    job_id = await submit_job(ledger, **fields)
    claim = await claim_job(ledger, job_id)
    for _ in range(2):  # as after a lost reply
        await ledger.jobs.finish(claim, reply_to(claim), cost=cost)
    return job_id


async def spent(ledger: Ledger, tenant: str, user_id: str | None = None) -> tuple[float, float]:
    found = await ledger.spending.of(tenant, user_id)
    return found.in_all_usd, found.in_period_usd


async def refusal(ledger: Ledger, **fields: Any) -> BudgetSpent:
    with pytest.raises(BudgetSpent) as refused:
        await submit_job(ledger, **fields)
    return refused.value


# -- counting


async def test_a_reply_is_paid_once_by_its_user_and_its_tenant(ledger: Ledger) -> None:
    await answer(ledger, 200_000, user_id="ann", tenant="acme")
    await answer(ledger, 300_000, user_id="bob", tenant="acme")

    assert await spent(ledger, "acme", "ann") == (0.2, 0.2)
    assert await spent(ledger, "acme", "bob") == (0.3, 0.3)
    assert await spent(ledger, "acme") == (0.5, 0.5)
    assert await spent(ledger, "other") == (0, 0)


async def test_an_attempt_without_a_reply_is_paid_once(ledger: Ledger) -> None:
    claim = await claim_job(ledger, await submit_job(ledger))
    for _ in range(2):
        await ledger.jobs.count_usage(claim, Usage(input=5), 1000)

    assert await spent(ledger, "default", "ann") == (0.001, 0.001)
    assert await spent(ledger, "default") == (0.001, 0.001)
    usage = await ledger.queries.usage("default", "ann")
    assert (usage.cost_usd, usage.period_cost_usd) == (0.001, 0.001)


async def test_without_budgets_only_the_sum_is_kept(
    settings: Settings, inspector: LedgerInspector
) -> None:
    async with Ledger(settings.model_copy(update={"budgets": {}}), patience_s=5.0) as ledger:
        await answer(ledger, 1000)

        assert await spent(ledger, "default") == (0.001, 0)
        assert inspector.redis.keys(f"{inspector.keys.spent('')}*/day-*") == []
        assert (await ledger.queries.usage("default", None)).period_cost_usd is None


async def test_what_is_kept_ends_by_itself_but_the_sum_of_a_tenant(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    await answer(ledger, 1000)

    lives = {
        key.removeprefix(inspector.keys.spent("")): inspector.redis.pttl(key)
        for key in inspector.redis.keys(f"{inspector.keys.spent('')}*")
    }
    assert len(lives) == 6  # with tokens
    assert lives.pop(":default") == -1
    assert all(0 < life <= 90 * 86_400_000 for life in lives.values())


# -- the calendar


@pytest.mark.parametrize(
    "day",
    [datetime(year, month, day, tzinfo=UTC) for year in (1970, 1999, 2000, 2024, 2026, 2027, 2100)
     for month in range(1, 13) for day in (1, 28)]
    + [datetime(2024, 2, 29, tzinfo=UTC), datetime(2026, 12, 31, tzinfo=UTC)],
)  # fmt: skip
def test_periods_are_days_and_months_of_utc(inspector: LedgerInspector, day: datetime) -> None:
    following = (day.replace(day=28) + timedelta(days=5)).replace(day=1)
    for at in (day, day + timedelta(hours=23, minutes=59, milliseconds=1)):
        body = """
            now = tonumber(ARGV[2])
            local month, month_ends = period_now('month')
            local name, day_ends = period_now('day')
            return { month, month_ends, name, day_ends }"""
        found = evaluate(inspector, body, round(at.timestamp() * 1000))
        first = round(day.replace(day=1).timestamp()) // 86_400
        assert found == [
            f"month-{first}", round(following.timestamp() * 1000),
            f"day-{round(day.timestamp()) // 86_400}",
            round((day + timedelta(days=1)).timestamp() * 1000),
        ]  # fmt: skip


# -- refusing


async def test_a_user_who_has_spent_the_budget_is_refused_until_the_next_period(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    await answer(ledger, 499_999, user_id="ann")
    await answer(ledger, 1, user_id="ann")

    error = await refusal(ledger, user_id="ann")

    assert (error.scope, error.http_status, error.may_be_accepted) == ("user", 402, False)
    assert error.http_headers == {}
    assert error.resets_at is not None
    assert error.resets_at.hour == error.resets_at.minute == 0
    assert "AFTERWORD_BUDGETS" in str(error)
    assert inspector.redis.zcard(inspector.keys.open) == 0
    await submit_job(ledger, user_id="bob")


async def test_a_tenant_that_has_spent_the_budget_is_refused_for_all_its_users(
    ledger: Ledger,
) -> None:
    await answer(ledger, 600_000, user_id="ann", tenant="acme")
    await answer(ledger, 400_000, user_id="bob", tenant="acme")

    assert (await refusal(ledger, user_id="eve", tenant="acme")).scope == "tenant"
    await submit_job(ledger, user_id="eve", tenant="other")


async def test_an_entry_without_amounts_has_no_limit(ledger: Ledger) -> None:
    await answer(ledger, 10**9, tenant="free")

    await submit_job(ledger, tenant="free")


async def test_of_many_only_those_without_a_budget_left_are_refused(ledger: Ledger) -> None:
    await answer(ledger, 500_000, user_id="ann")
    requests = [chat_request(user_id=user) for user in ("ann", "bob", "ann", "eve")]

    found = await ledger.jobs.submit_many(
        [(ledger.jobs.new_id(request), request) for request in requests]
    )

    refused = [isinstance(one, AfterwordError) for one in found]
    assert refused == [True, False, True, False]


async def test_a_job_that_is_known_is_given_again_after_the_budget_is_spent(
    ledger: Ledger,
) -> None:
    job_id = await answer(ledger, 500_000, idempotency_key="k")

    assert await submit_job(ledger, idempotency_key="k") == job_id


async def test_an_erasure_removes_what_its_user_has_spent(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    from afterword.shared.ledger.erasures import _ERASED

    assert inspector.keys.spent(lane_of()) in {of(inspector.keys, lane_of()) for of in _ERASED}


async def test_a_share_of_a_budget_is_left_to_replies(ledger: Ledger) -> None:
    await answer(ledger, 400_000, user_id="ann")
    lane = lane_id(memory_key("default", "ann"), 0)

    assert (await ledger.spending.past(lane, 0.81)).over == ""
    found = await ledger.spending.past(lane, 0.8)
    assert isinstance(found, Spent)
    assert found.over == "user"
    await submit_job(ledger, user_id="ann")


# -- settings


@pytest.mark.parametrize(
    "text",
    ["[]", "{", '{"acme": 5}', '{"acme": {"tenant": 5}}', '{"acme": {"tenant_usd": -1}}',
     '{"acme": {"user_usd": "5"}}', '{"acme": {"user_usd": NaN}}', '{"acme": {"user_usd": 1e10}}'],
)  # fmt: skip
def test_budgets_that_are_none_are_refused_by_the_name_of_their_setting(text: str) -> None:
    with pytest.raises(Misconfigured) as refused:
        Settings.load({"AFTERWORD_BUDGETS": text})

    assert refused.value.setting == "AFTERWORD_BUDGETS"
    assert "acme" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [("AFTERWORD_BUDGET_PERIOD", "week"), ("AFTERWORD_BUDGET_SOFT", "1.5"),
     ("AFTERWORD_BUDGET_SOFT", "nan")],
)  # fmt: skip
def test_a_period_and_a_share_are_what_they_can_be(name: str, value: Any) -> None:
    with pytest.raises(Misconfigured) as refused:
        Settings.load({name: value})

    assert refused.value.setting == name


# -- several shards


@pytest.fixture
def sharded(settings: Settings) -> Settings:
    return settings.model_copy(update={"shards": 4, "budget_period": "month"})


def user_in(shard: int) -> str:
    """Return a user of acme in one of four shards."""
    names = (f"user-{number}" for number in range(1000))
    return next(one for one in names if shard_of(memory_key("acme", one), 4) == shard)


async def test_the_budget_of_a_tenant_is_one_of_all_shards(
    sharded: Settings, inspector: LedgerInspector
) -> None:
    async with Ledger(sharded, patience_s=5.0) as ledger:
        for shard in range(4):
            await answer(ledger, 200_000, user_id=user_in(shard), tenant="acme")
        await ledger.maintenance.balance_if_due()
        await answer(ledger, 200_000, user_id=user_in(1), tenant="acme")
        assert (await refusal(ledger, user_id=user_in(1), tenant="acme")).scope == "tenant"
        await answer(ledger, 100_000, user_id=user_in(2), tenant="acme")  # it does not know yet

        inspector.redis.delete(inspector.keys.balanced)
        await ledger.maintenance.balance_if_due()
        for shard in range(4):
            assert (await refusal(ledger, user_id=user_in(shard), tenant="acme")).scope == "tenant"
        await submit_job(ledger, tenant="other")

        found = await ledger.spending.of("acme", None)
        assert found.most_usd == 1.0
        assert found.in_period_usd == found.in_all_usd
        for key in inspector.redis.scan_iter(f"{inspector.keys.namespace}:*elsewhere"):
            assert inspector.redis.pexpiretime(key) == round(found.ends_at.timestamp() * 1000)


async def test_a_balance_tells_of_those_only_who_spent_something_since(
    sharded: Settings, inspector: LedgerInspector
) -> None:
    def told() -> set[str]:
        return {*inspector.redis.scan_iter(f"{inspector.keys.namespace}:*elsewhere")}

    async with Ledger(sharded, patience_s=5.0) as ledger:
        for tenant in ("acme", "free"):
            await answer(ledger, 50_000, tenant=tenant)
        await ledger.maintenance.balance_if_due()

        assert len(told()) == 8, "money and tokens in four shards"
        assert all(":acme/" in key for key in told()), "a tenant without a budget is left out"
        inspector.redis.delete(inspector.keys.balanced, *told())
        await ledger.maintenance.balance_if_due()
        assert told() == set()


async def test_a_telling_that_stopped_half_way_is_told_again(
    sharded: Settings, inspector: LedgerInspector, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Ledger(sharded, patience_s=5.0) as ledger:
        telling = ledger.maintenance.tenant_spending
        await answer(ledger, 50_000, user_id=user_in(1), tenant="acme")
        spenders = Keys(inspector.keys.namespace, 1).spenders

        async def stop(_: object) -> None:
            raise LedgerUnavailable("the worker dies here")

        with monkeypatch.context() as patched:
            patched.setattr(telling, "_tell", stop)
            with pytest.raises(LedgerUnavailable):
                await telling.tell_all()
        assert inspector.redis.zrange(spenders, 0, -1) == ["acme"]

        await telling.tell_all()
        assert not inspector.redis.exists(spenders)
        assert [*inspector.redis.scan_iter(f"{inspector.keys.root}:*elsewhere")]


async def test_who_spends_while_others_are_told_is_told_of_again(
    sharded: Settings, inspector: LedgerInspector, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Ledger(sharded, patience_s=5.0) as ledger:
        telling = ledger.maintenance.tenant_spending
        await answer(ledger, 50_000, user_id=user_in(1), tenant="acme")
        spenders = Keys(inspector.keys.namespace, 1).spenders
        tell = telling._tell

        async def spend(tenants: Sequence[str]) -> None:
            await tell(tenants)
            inspector.redis.zincrby(spenders, 1, "acme")

        monkeypatch.setattr(telling, "_tell", spend)
        await telling.tell_all()
        assert inspector.redis.zrange(spenders, 0, -1) == ["acme"]


async def test_one_shard_has_nothing_to_tell(ledger: Ledger, inspector: LedgerInspector) -> None:
    await answer(ledger, 50_000, tenant="acme")
    await ledger.maintenance.balance_if_due()

    assert not inspector.redis.exists(inspector.keys.spenders)
    assert not inspector.redis.exists(inspector.keys.balanced)
