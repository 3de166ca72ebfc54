"""What tenants and users have used, as clients read it."""

from __future__ import annotations

from datetime import datetime

from afterword.shared.contracts import Contract, Extraction, Usage


class UsageSum(Contract):
    """What the jobs of a tenant, or of one of its users, have used so far."""

    tenant: str
    """The tenant."""

    user_id: str | None = None
    """The user; None for the whole tenant."""

    replies: int = 0
    """How many replies there were."""

    usage: Usage = Usage()
    """The tokens of these replies, and of attempts that gave none; of those, what Claude had not
    told is estimated."""

    cost_usd: float = 0.0
    """What these and `extraction` cost in US dollars, as far as prices of models are known."""

    period_cost_usd: float | None = None
    """What of it was spent in the running period; None without any budget."""

    period_tokens: int | None = None
    """How many tokens were spent in it, of all kinds together."""

    most_usd: float | None = None
    """How many US dollars may be spent in it, in all shards; None without such a budget."""

    most_tokens: int | None = None
    """How many tokens may be spent in it, in all shards; None without such a budget."""

    resets_at: datetime | None = None
    """When the period ends and budgets begin anew."""

    extraction: Extraction = Extraction()
    """What the extraction of facts into memory has used; its cost is part of `cost_usd`."""
