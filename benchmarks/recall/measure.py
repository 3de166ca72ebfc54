"""Stores a data set in the embedded memory, as a worker does, and asks its questions."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import zip_longest
from typing import cast

from afterword.shared.contracts import ChatRequest
from afterword.shared.ledger.gates import Gates
from afterword.shared.settings import Settings
from afterword.workers.gate import GateClient
from afterword.workers.ports import Memories, Turn
from afterword.workers.replies.recall import RecallBudget, Recaller
from afterword.workers.rules.remembering import reason_to_skip
from afterword.workers.wiring import open_memories
from benchmarks.recall.dataset import ASSISTANT, Dataset, Question, User
from tests.kit.fakes.gates import FakeGates

#: As many memories are asked for as the deepest figure needs.
DEPTH = 10
_PATIENCE_S = 60.0


@dataclass(frozen=True)
class Asked:
    """A question of a user and the place of the first answer among the memories, if it was found.

    Places count from 0.
    """

    user: str
    question: Question
    place: int | None


@dataclass(frozen=True)
class Share:
    """How many of so many questions were answered within the first memories."""

    found: int
    asked: int

    @classmethod
    def within(cls, depth: int, asked: Iterable[Asked]) -> Share:
        """Count the questions whose answer is among the first `depth` memories."""
        places = [one.place for one in asked]
        return cls(sum(place is not None and place < depth for place in places), len(places))

    @property
    def percent(self) -> float:
        """Return the share in per cent."""
        return 100 * self.found / self.asked

    @property
    def interval(self) -> tuple[float, float]:
        """Return Wilson's 95 % confidence interval, in per cent."""
        z, n, share = 1.96, self.asked, self.found / self.asked
        middle = share + z * z / (2 * n)
        half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
        scale = 100 / (1 + z * z / n)
        return scale * (middle - half), scale * (middle + half)


@dataclass(frozen=True)
class Measured:
    """All questions of a data set, and how many of its turns were not worth storing."""

    asked: tuple[Asked, ...]
    skipped: int


async def measure(dataset: Dataset) -> Measured:
    """Store all turns of all users, then ask all questions; takes about 50 ms for each."""
    with tempfile.TemporaryDirectory() as folder:
        memories = await open_memories(Settings(memory="embedded", data_dir=folder))
        assert memories is not None
        try:
            skipped = [await _store(memories, user) for user in dataset.users]
            asked = [one for user in dataset.users for one in await _ask(memories, user)]
        finally:
            await memories.aclose()
    return Measured(tuple(asked), sum(skipped))


async def _store(memories: Memories, user: User) -> int:
    """Store the turns of a user; return how many were not worth it."""
    skipped = 0
    for said, following in zip_longest(user.turns, user.turns[1:]):
        if said.speaker == ASSISTANT:
            continue
        request = ChatRequest(user_id=user.name, message=said.text)
        if reason_to_skip(request, "end_turn", memory=True, pleasantries=False, questions=False):
            skipped += 1
            continue
        reply = following.text if following and following.speaker == ASSISTANT else ""
        turn = Turn(said.id, said.text, reply, said.at, said.conversation)
        await memories.add(user.name, turn)
    return skipped


async def _ask(memories: Memories, user: User) -> list[Asked]:
    gates = GateClient(cast("Gates", FakeGates()))
    budget = RecallBudget(_PATIENCE_S)
    recaller = Recaller(memories, gates, budget=budget, limit=DEPTH, least_score=0.0)
    asked = []
    for question in user.questions:
        recall = await recaller.recall(user.name, question.text)
        assert recall.memories is not None, "memory was not available"
        ids = [memory.turn_id for memory in recall.memories]
        places = [ids.index(one) for one in question.evidence if one in ids]
        asked.append(Asked(user.name, question, min(places, default=None)))
    return asked
