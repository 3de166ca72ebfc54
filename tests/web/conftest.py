"""Fixtures of the console's tests."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from afterword.shared.settings import Settings
from tests.kit.console_client import Browser, console_client
from tests.kit.ledger.fixtures import inspector, ledger, settings

__all__ = ["inspector", "ledger", "settings"]


@pytest.fixture
async def browser(settings: Settings) -> AsyncIterator[Browser]:
    """Give a browser on this machine, where no key is asked for."""
    async with console_client(settings) as opened:
        yield opened
