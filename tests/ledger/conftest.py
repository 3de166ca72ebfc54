"""What every test of the ledger asks for."""

from __future__ import annotations

from tests.standins.open_ledger import book, ledger, settings

__all__ = ["book", "ledger", "settings"]
