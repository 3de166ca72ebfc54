"""Writes lanes of a real ledger to a fake memory, as a memory worker does."""

from __future__ import annotations

from collections.abc import Callable

from afterword.shared.errors import ProviderError
from afterword.shared.ledger.ledger import Ledger
from afterword.shared.settings import Settings
from afterword.workers.gate import GateClient
from afterword.workers.leases import Leases
from afterword.workers.memories.erase import Eraser
from afterword.workers.memories.lane import LaneProcessor
from afterword.workers.memories.store_turns import TurnWriter
from tests.kit.fakes.memory import FakeMemories, Verb
from tests.kit.ledger.builder import lane_of

VERSION = "9.9.9"


class FailingMemories(FakeMemories):
    """A memory whose next call but one can be told to fail."""

    def fail_second(self, verb: Verb, error: ProviderError) -> None:
        self.hang(verb).released.set()
        self.fail(verb, error)


class LaneWriter:
    """Writes lanes; `calls` are those that its memory was given."""

    def __init__(
        self,
        settings: Settings,
        ledger: Ledger,
        memories: FailingMemories,
        has_room: Callable[[], bool] = lambda: False,
    ) -> None:
        self.memories = memories
        self.leases = Leases(ledger.jobs.renew_leases, settings.lease_s)
        self.gates = GateClient(ledger.gates)
        turn_writer = TurnWriter(
            settings,
            ledger.turns,
            memories,
            self.leases,
            VERSION,
            self.gates,
            spending=ledger.spending,
            has_room=has_room,
        )
        eraser = Eraser(ledger.erasures, memories, 30)
        self._processor = LaneProcessor(ledger.turns, self.leases, turn_writer, eraser)

    async def write(self, lane: str | None = None) -> None:
        await self._processor.process(lane or lane_of())

    @property
    def calls(self) -> list[Verb]:
        return [call.verb for call in self.memories.calls]
