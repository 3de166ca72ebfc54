"""Budgets: whose applies, as scripts of the ledger take it, and the error of one that is spent."""

from __future__ import annotations

from datetime import UTC, datetime

from afterword.shared.budget_settings import BudgetSettings
from afterword.shared.by_tenant import of_tenant
from afterword.shared.errors import BudgetSpent
from afterword.shared.setting_types import Budget
from afterword.shared.settings import Settings

MICRO = 1_000_000

#: How scripts take it that a tenant has no budgets in the settings.
_NO_BUDGETS = {period: f"- - - - {period}" for period in ("day", "month")}


def budget_of(tenant: str, settings: BudgetSettings) -> Budget | None:
    """Return what a tenant and each of its users may spend, None if nothing is said of it."""
    return of_tenant(tenant, settings.budgets)


def budgets_argument(tenant: str, settings: BudgetSettings) -> str:
    """Return the budgets of a tenant as scripts take them; an order comes before them."""
    found = budget_of(tenant, settings)
    if not found:
        return _NO_BUDGETS[settings.budget_period]
    money = (_micro(found.get("tenant_usd")), _micro(found.get("user_usd")))
    tokens = (str(found.get(name, "-")) for name in ("tenant_tokens", "user_tokens"))
    return " ".join((*money, *tokens, settings.budget_period))


def period_argument(settings: Settings) -> str:
    """Return the period in which spending is counted, as scripts take it: see `add_spending`."""
    return f"{'' if settings.budgets else '?'}{settings.budget_period}{'+' * (settings.shards > 1)}"


def share_spent(
    usd: float, most_usd: float | None, tokens: int, most_tokens: int | None
) -> float | None:
    """Return which share of a budget is spent, of money or tokens; None without a budget."""
    shares = [
        spent / most if most else 1.0
        for spent, most in ((usd, most_usd), (tokens, most_tokens))
        if most is not None
    ]
    return max(shares, default=None)


def budget_spent(told: str) -> BudgetSpent:
    """Return the error for '<whose> <ms since the epoch when the period ends>'."""
    whose, _, ends = told.partition(" ")
    at = datetime.fromtimestamp(int(ends) / 1000, UTC)
    until = f"{at:%Y-%m-%d %H:%M} UTC"
    reason = f"AFTERWORD_BUDGETS, or an order: the budget of the {whose} is spent until {until}"
    return BudgetSpent(reason, scope=whose, resets_at=at)


def _micro(amount: float | None) -> str:
    return "-" if amount is None else str(round(amount * MICRO))
