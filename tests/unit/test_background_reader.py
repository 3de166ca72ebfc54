"""What takes long is read beside the pages that show it: once, and again when it is old."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from afterword.producer.web.background import BackgroundReader
from afterword.shared.errors import LedgerUnavailable
from tests.kit.waiting import until

PATIENCE_S = 30.0


class Source:
    """Something that is read slowly: each reading ends when the test says so."""

    def __init__(self) -> None:
        self.read: list[str] = []
        self.answers: asyncio.Queue[int | Exception] = asyncio.Queue()

    async def __call__(self, name: str) -> int:
        self.read.append(name)
        answer = await self.answers.get()
        if isinstance(answer, Exception):
            raise answer
        return answer


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def source() -> Source:
    return Source()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def reader(source: Source, clock: Clock) -> AsyncIterator[BackgroundReader[int]]:
    async with BackgroundReader(source, clock) as opened:
        yield opened


async def test_a_page_does_not_wait_and_finds_it_later(
    reader: BackgroundReader[int], source: Source
) -> None:
    assert await reader.get("acme", wait_s=0) is None
    source.answers.put_nowait(7)
    assert await reader.get("acme", wait_s=PATIENCE_S) == 7
    assert await reader.get("acme", wait_s=0) == 7
    assert source.read == ["acme"], "it was read once"


async def test_what_is_old_is_shown_while_it_is_read_again(
    reader: BackgroundReader[int], source: Source, clock: Clock
) -> None:
    source.answers.put_nowait(7)
    assert await reader.get("acme", wait_s=PATIENCE_S) == 7
    clock.now = 60
    assert await reader.get("acme", wait_s=0) == 7
    source.answers.put_nowait(8)
    assert await reader.get("acme", wait_s=PATIENCE_S) == 8


async def test_what_has_changed_is_read_again(
    reader: BackgroundReader[int], source: Source
) -> None:
    for value in (7, 8):
        source.answers.put_nowait(value)
        assert await reader.get("acme", wait_s=PATIENCE_S) == value
        reader.forget("acme")


async def test_what_changes_while_it_is_read_is_read_again(
    reader: BackgroundReader[int], source: Source
) -> None:
    assert await reader.get("acme", wait_s=0) is None
    await until(lambda: source.read, "it is read")
    reader.forget("acme")
    source.answers.put_nowait(7)
    source.answers.put_nowait(8)
    assert await reader.get("acme", wait_s=PATIENCE_S) == 8
    assert await reader.get("acme", wait_s=0) == 8


async def test_one_is_read_at_a_time(reader: BackgroundReader[int], source: Source) -> None:
    for name in ("acme", "globex", "acme"):
        assert await reader.get(name, wait_s=0) is None
    await until(lambda: source.read, "the first is read")
    assert source.read == ["acme"]
    for value in (7, 8):
        source.answers.put_nowait(value)
    assert await reader.get("globex", wait_s=PATIENCE_S) == 8
    assert source.read == ["acme", "globex"]


async def test_an_error_is_told_and_not_kept(reader: BackgroundReader[int], source: Source) -> None:
    source.answers.put_nowait(LedgerUnavailable("away"))
    with pytest.raises(LedgerUnavailable):
        await reader.get("acme", wait_s=PATIENCE_S)
    source.answers.put_nowait(7)
    assert await reader.get("acme", wait_s=PATIENCE_S) == 7


async def test_few_are_kept(reader: BackgroundReader[int], source: Source) -> None:
    for number in range(40):
        source.answers.put_nowait(number)
        await reader.get(f"t{number}", wait_s=PATIENCE_S)
    assert await reader.get("t39", wait_s=0) == 39
    assert await reader.get("t0", wait_s=0) is None


async def test_nothing_is_read_once_it_is_closed(source: Source, clock: Clock) -> None:
    async with BackgroundReader(source, clock) as reader:
        assert await reader.get("acme", wait_s=0) is None
        (task,) = reader._reading.values()
    assert task.cancelled()
