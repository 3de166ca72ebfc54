"""Settings that say something of tenants by their names, and of all that are not named."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

Value = TypeVar("Value")

#: Stands for all tenants that are not named.
OTHERS = "*"


def of_tenant(tenant: str, by_tenant: Mapping[str, Value]) -> Value | None:
    """Return what is said of a tenant: its own entry, else that of `*`, None without either."""
    return by_tenant.get(tenant, by_tenant.get(OTHERS))
