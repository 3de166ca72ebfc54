"""A worker's presence: it begins to drain once, and says when it has ended."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from celery.worker import state

from afterword.shared.errors import LedgerUnavailable
from afterword.shared.ledger.maintenance import Maintenance
from afterword.workers.background.presence import Presence
from afterword.workers.celery_runtime.drain import Drain


class Heard:
    """Takes heartbeats as the ledger does, and answers what a test says."""

    def __init__(self) -> None:
        self.drains = False
        self.away = False
        self.beats: list[tuple[str, str, str, bool]] = []
        self.left: list[tuple[str, str]] = []

    async def record_heartbeat(
        self, queues: str, worker: str, _tasks: Sequence[Any], *, instance: str, draining: bool
    ) -> bool:
        self.beats.append((queues, worker, instance, draining))
        return self.drains

    async def forget_worker(self, queues: str, worker: str) -> None:
        if self.away:
            raise LedgerUnavailable
        self.left.append((queues, worker))


def presence_of(heard: Heard, drained: list[str]) -> Presence:
    return Presence(cast("Maintenance", heard), "host:1", lambda: drained.append("now"))


async def test_an_order_to_drain_is_obeyed_once_and_told_from_then_on() -> None:
    heard, drained = Heard(), list[str]()
    presence = presence_of(heard, drained)
    await presence.beat("replies", [])
    heard.drains = True
    for _ in range(3):
        await presence.beat("replies", [])

    assert drained == ["now"]
    assert [draining for *_, draining in heard.beats] == [False, False, True, True]
    assert len({instance for _, _, instance, _ in heard.beats}) == 1


async def test_two_processes_of_one_name_have_two_instances() -> None:
    heard = Heard()
    for _ in range(2):
        await presence_of(heard, []).beat("replies", [])

    assert heard.beats[0][2] != heard.beats[1][2]


async def test_who_leaves_says_so_if_redis_listens() -> None:
    heard = Heard()
    presence = presence_of(heard, [])
    await presence.leave()
    assert heard.left == [], "it was never there"
    await presence.beat("memories+replies", [])
    heard.away = True
    await presence.leave()
    heard.away = False
    await presence.leave()

    assert heard.left == [("memories+replies", "host:1")]


def test_a_signal_during_a_drain_ends_its_patience() -> None:
    before = state.should_stop
    try:
        drain = Drain()
        assert not drain.has_time
        drain.begin(600.0)
        assert (drain.has_time, drain.longest_s) == (True, 600.0)
        assert int(cast("int", state.should_stop)) == 0
        state.should_stop = 0  # type: ignore[assignment]  # as Celery's handler of SIGTERM does
        assert not drain.has_time
    finally:
        state.should_stop = before
