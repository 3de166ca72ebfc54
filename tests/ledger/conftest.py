"""Fixtures that every test of the ledger uses."""

from __future__ import annotations

from tests.kit.ledger.fixtures import inspector, ledger, settings

__all__ = ["inspector", "ledger", "settings"]
