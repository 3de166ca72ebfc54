"""Servers of a test module's own, empty at the start of every test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.kit.servers.valkey import Valkey


@pytest.fixture(scope="module")
def _own_server() -> Iterator[Valkey]:
    with Valkey() as server:
        yield server


@pytest.fixture
def server(_own_server: Valkey) -> Valkey:
    """Give a Valkey that nobody else uses meanwhile."""
    with _own_server.client() as client:
        client.flushall()
    return _own_server
