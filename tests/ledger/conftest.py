"""What every test of the ledger asks for."""

from __future__ import annotations

from tests.kit.ledger.fixtures import book, ledger, settings

__all__ = ["book", "ledger", "settings"]
