"""Fixtures: a ledger on the real Valkey, under a namespace of its own, and a look at its keys."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING

import pytest

from afterword.shared.ledger.ledger import Ledger
from afterword.shared.settings import Settings
from tests.kit.ledger.builder import LedgerInspector

if TYPE_CHECKING:
    from tests.kit.servers.valkey import Valkey


@pytest.fixture
def settings(valkey: Valkey, namespace: str) -> Settings:
    return Settings(redis_url=valkey.url, namespace=namespace, durability="none", memory="embedded")


@pytest.fixture
async def ledger(settings: Settings) -> AsyncIterator[Ledger]:
    async with Ledger(settings, patience_s=5.0) as opened:
        yield opened


@pytest.fixture
def inspector(settings: Settings) -> Iterator[LedgerInspector]:
    opened = LedgerInspector(settings)
    yield opened
    opened.close()
