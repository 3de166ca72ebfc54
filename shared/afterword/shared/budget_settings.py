"""How much tenants and users may spend."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from afterword.shared.setting_record import Record
from afterword.shared.setting_types import Budgets, TenantClasses


class BudgetSettings(Record):
    """How much tenants and users may cost in a day or a month, and which kinds are told apart."""

    budgets: Budgets = Field(
        default_factory=dict,
        description="most US dollars and tokens that a tenant, and each of its users, may spend in "
        'a period, as JSON: `{"*": {"user_usd": 5}, "acme": {"tenant_usd": 800, "user_tokens": '
        "200000}}`; `*` is every tenant without an entry; an order of `afterword limits` comes "
        "before them",
    )
    budget_period: Literal["day", "month"] = Field(
        "month", description="when budgets begin anew: each day or each month, at midnight UTC"
    )
    budget_soft: float = Field(
        0.8,
        ge=0,
        le=1,
        description="share of a budget after which nothing is extracted into memory until the next "
        "period: replies go on until all of it is spent",
    )
    tenant_classes: TenantClasses = Field(
        default_factory=dict,
        description="kinds of tenants, told apart by the metrics of tokens and cost, as JSON: "
        '`{"acme": "enterprise", "*": "free"}`; `*` is all that are not named',
    )
