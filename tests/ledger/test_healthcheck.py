"""The health check of one worker process is not satisfied by another."""

from __future__ import annotations

import asyncio
import socket

import pytest

from afterword.shared.ledger.ledger import Ledger
from afterword.shared.settings import Settings
from tests.kit.command_line import afterword

pytestmark = [pytest.mark.redis, pytest.mark.finding(36)]


async def _beat(ledger: Ledger) -> None:
    await ledger.maintenance.record_heartbeat("replies", f"{socket.gethostname()}:11", [])
    await ledger.maintenance.record_heartbeat("replies", "elsewhere:12", [])


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["responses"], 0),
        (["responses", "--pid", "11"], 0),
        (["responses", "--pid", "12"], 1),
        (["memories"], 1),
    ],
)
async def test_only_the_named_process_counts(
    ledger: Ledger, settings: Settings, arguments: list[str], code: int
) -> None:
    await _beat(ledger)
    env = {
        "AFTERWORD_REDIS_URL": str(settings.redis_url),
        "AFTERWORD_NAMESPACE": settings.namespace,
    }
    printed = await asyncio.to_thread(lambda: afterword("healthcheck", *arguments, env=env))
    assert printed.code == code, printed.everything
