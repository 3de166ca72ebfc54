"""Deltas: gathered for a moment, in order, nothing lost and nothing said twice."""

from __future__ import annotations

import asyncio

import pytest

from afterword.shared.errors import LeaseLost
from afterword.workers.replies.delta_buffer import DeltaBuffer
from tests.kit.waiting import until

NEVER_S = 3600.0


class Stream:
    """Keeps what is published; may be slow or refuse."""

    def __init__(self) -> None:
        self.published: list[tuple[int, str]] = []
        self.open = asyncio.Event()
        self.open.set()
        self.error: Exception | None = None
        self.at_once = 0

    async def publish(self, number: int, text: str) -> None:
        self.at_once += 1
        assert self.at_once == 1, "two at once would be out of order"
        await self.open.wait()
        self.at_once -= 1
        if self.error is not None:
            raise self.error
        self.published.append((number, text))


@pytest.fixture
def stream() -> Stream:
    return Stream()


async def test_the_first_piece_goes_at_once(stream: Stream) -> None:
    deltas = DeltaBuffer(stream.publish, NEVER_S)
    deltas.push("Hel")

    await until(lambda: stream.published == [(1, "Hel")], "it is published")
    deltas.stop()


async def test_deltas_after_the_first_are_gathered(stream: Stream) -> None:
    deltas = DeltaBuffer(stream.publish, NEVER_S)
    deltas.push("Hel")
    await until(lambda: stream.published, "the first is published")
    for piece in ("lo", ", ", "Ann"):
        deltas.push(piece)

    assert await deltas.take_unpublished() == (2, "lo, Ann")
    assert stream.published == [(1, "Hel")]


async def test_gathered_deltas_are_published_after_the_interval(stream: Stream) -> None:
    deltas = DeltaBuffer(stream.publish, 0.01)
    deltas.push("Hel")
    await until(lambda: stream.published, "the first is published")
    deltas.push("lo")

    await until(lambda: stream.published == [(1, "Hel"), (2, "lo")], "so is the second")
    assert await deltas.take_unpublished() == (3, "")


async def test_a_slow_stream_gathers_more_and_keeps_the_order(stream: Stream) -> None:
    stream.open.clear()
    deltas = DeltaBuffer(stream.publish, 0.001)
    loop = asyncio.get_running_loop()
    for number in range(5):
        deltas.push(f"{number} ")
        due = loop.time() + 0.01
        await until(lambda due=due: loop.time() > due, "it is time to publish again")  # type: ignore[misc]
    assert stream.at_once == 1
    stream.open.set()

    number, text = await deltas.take_unpublished()
    told = "".join(piece for _, piece in stream.published) + text
    assert told == "".join(f"{n} " for n in range(5))
    assert [n for n, _ in stream.published] == list(range(1, number))


async def test_without_published_deltas_the_rest_is_the_first_delta(stream: Stream) -> None:
    assert await DeltaBuffer(stream.publish, NEVER_S).take_unpublished() == (1, "")


async def test_a_short_answer_is_one_piece(stream: Stream) -> None:
    deltas = DeltaBuffer(stream.publish, NEVER_S)
    deltas.push("Yes.")

    assert await deltas.take_unpublished() == (1, "Yes.")
    assert stream.published == []


async def test_a_lost_lease_is_raised_at_the_next_delta(
    stream: Stream,
) -> None:
    stream.error = LeaseLost("overtaken")
    deltas = DeltaBuffer(stream.publish, NEVER_S)
    deltas.push("Hel")
    await until(lambda: deltas._failed is not None, "it was refused")

    with pytest.raises(LeaseLost):
        deltas.push("lo")
    with pytest.raises(LeaseLost):
        await deltas.take_unpublished()


async def test_a_refusal_at_the_very_end_is_heard_too(stream: Stream) -> None:
    stream.open.clear()
    stream.error = LeaseLost("overtaken")
    deltas = DeltaBuffer(stream.publish, NEVER_S)
    deltas.push("Hel")
    await until(lambda: stream.at_once, "it is being published")
    stream.open.set()

    with pytest.raises(LeaseLost):
        await deltas.take_unpublished()


async def test_after_a_stop_nothing_more_goes_out(stream: Stream) -> None:
    deltas = DeltaBuffer(stream.publish, 0.001)
    deltas.push("Hel")
    deltas.stop()

    assert await deltas.take_unpublished() == (1, "Hel")
    assert stream.published == []
