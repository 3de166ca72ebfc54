"""The classes of tenants: what an installation calls the kinds of its customers.

Metrics tell classes apart, not tenants, of which there may be any number.
"""

from __future__ import annotations

from collections.abc import Mapping

from afterword.shared.by_tenant import of_tenant

#: The class of tenants of which nothing is said.
DEFAULT = "default"

#: How many classes there may be: each is a value of a label of metrics.
MOST_CLASSES = 20


def class_of(tenant: str, classes: Mapping[str, str]) -> str:
    """Return the class of a tenant: its own, else that of `*`, else `default`."""
    return of_tenant(tenant, classes) or DEFAULT
