"""A program that gives up a call during an outage, and closes no producer, hears no more of it.

asyncio reports an exception that nobody reads when its task or future is collected.
"""

from __future__ import annotations

import asyncio
import gc
import socket
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from afterword.producer import AsyncProducer
from afterword.producer.client.ledger_job_service import LedgerJobService
from afterword.shared.errors import LedgerUnavailable
from afterword.shared.settings import Settings
from afterword.shared.transport.pipeline import Pipeline
from afterword.shared.transport.scripts import ScriptCall
from tests.kit.waiting import until

OVERVIEW = ScriptCall("maintenance/overview", "afterword:{00}", ("", 1, 1, 10))


@pytest.fixture
def url() -> Iterator[str]:
    """Give the address of a Redis that is away."""
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))  # and does not listen
        yield f"redis://127.0.0.1:{deaf.getsockname()[1]}/0"


@pytest.fixture
async def unread() -> AsyncIterator[list[dict[str, Any]]]:
    """Collect what asyncio reports."""
    found: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: found.append(context))
    yield found
    gc.collect()
    asyncio.get_running_loop().set_exception_handler(None)


async def test_a_check_that_fails_after_its_caller_has_left(
    url: str, unread: list[dict[str, Any]]
) -> None:
    await leave_during_the_check(LedgerJobService.open(Settings(redis_url=url)))
    gc.collect()
    assert unread == []


async def leave_during_the_check(service: LedgerJobService) -> None:
    checked = service._checked
    pinging = asyncio.create_task(service.ping())
    await until(lambda: checked._check is not None, "it waits for the check")
    pinging.cancel()
    with pytest.raises(asyncio.CancelledError):
        await pinging
    await until(lambda: checked._check is not None and checked._check.done(), "the check is over")


async def test_requests_that_fail_after_their_caller_has_left(
    url: str, unread: list[dict[str, Any]]
) -> None:
    pipeline = Pipeline(url, patience_s=0.2)
    running = pipeline.run_scripts([OVERVIEW] * 3)
    running.send(None)  # until all are posted
    with pytest.raises(asyncio.CancelledError):
        running.throw(asyncio.CancelledError)
    with pytest.raises(LedgerUnavailable):
        await pipeline.send_command("PING")

    del running
    gc.collect()

    assert unread == []
    await pipeline.aclose()


async def test_a_producer_that_is_dropped_after_an_outage(
    url: str, unread: list[dict[str, Any]]
) -> None:
    producer = AsyncProducer(Settings(redis_url=url, submit_timeout_s=0.2))
    for ask in (producer.ping, producer.usage):
        with pytest.raises(LedgerUnavailable):
            await ask()
    results = await producer.submit_many([{"user_id": "ann", "message": "hello"}] * 3)
    assert {type(one) for one in results} == {LedgerUnavailable}

    del producer, ask
    gc.collect()

    assert unread == []
