"""What the tests of the use cases ask for: they stand on a real ledger."""

from __future__ import annotations

from tests.kit.ledger.fixtures import inspector, ledger, settings

__all__ = ["inspector", "ledger", "settings"]
