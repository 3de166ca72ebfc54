"""Stores a data set in memory, as a worker does, and asks its questions."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import cast

from afterword.shared.contracts import ChatRequest
from afterword.shared.ledger.gates import Gates
from afterword.shared.settings import Settings
from afterword.workers.gate import GateClient
from afterword.workers.ports import AddOutcome, Memories, Turn
from afterword.workers.replies import prompt
from afterword.workers.replies.recall import RecallBudget, Recaller
from afterword.workers.rules.remembering import reason_to_skip
from benchmarks.recall.backends import opened
from benchmarks.recall.dataset import ASSISTANT, Dataset, Question, Said, User
from benchmarks.recall.extraction import Facts, check, lookup
from tests.kit.fakes.gates import FakeGates

#: As many memories are asked for as the deepest figure needs.
DEPTH = 10
_PATIENCE_S = 60.0


@dataclass(frozen=True)
class Asked:
    """A question of a user, and the place of the first answer in the prompt, if it was found.

    Places count from 0, best memory first. `own_place` is the place in the backend's own order,
    before the product did anything to its rows.
    """

    user: str
    question: Question
    place: int | None
    own_place: int | None = None


@dataclass(frozen=True)
class Share:
    """How many of so many questions were answered within the first memories."""

    found: int
    asked: int

    @classmethod
    def within(cls, depth: int, asked: Iterable[Asked]) -> Share:
        """Count the questions whose answer is among the first `depth` memories."""
        return cls.of(depth, [one.place for one in asked])

    @classmethod
    def of(cls, depth: int, places: Sequence[int | None]) -> Share:
        """Count the places within the first `depth`."""
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


async def measure(
    dataset: Dataset, backend: str = "embedded", facts: Facts | None = None
) -> Measured:
    """Store all turns of all users, then ask all questions; takes about 50 ms for each.

    A backend that extracts facts is given those recorded in `facts`; raises `NotRecorded` before
    anything is stored if some are missing.
    """
    find = lookup(facts or {})
    if backend != "embedded":
        check(dataset, find)
    async with opened(backend, find) as (settings, memories):
        storing = _Storing(settings, memories, find)
        skipped = [await storing.store(user) for user in dataset.users]
        asking = _Asking(settings, memories)
        asked = [one for user in dataset.users for one in await asking.ask(user)]
    return Measured(tuple(asked), sum(skipped))


@dataclass(frozen=True)
class _Storing:
    settings: Settings
    memories: Memories
    facts_of: Callable[[str], list[str]]

    async def store(self, user: User) -> int:
        """Store the turns of a user; return how many were not worth it."""
        skipped = 0
        for said, following in zip_longest(user.turns, user.turns[1:]):
            if said.speaker == ASSISTANT:
                continue
            request = ChatRequest(user_id=user.name, message=said.text)
            if reason_to_skip(request, "end_turn", memory=True, pleasantries=False):
                skipped += 1
                continue
            reply = following.text if following and following.speaker == ASSISTANT else ""
            await self._add(user.name, said, reply)
        return skipped

    async def _add(self, owner: str, said: Said, reply: str) -> None:
        turn = Turn(said.id, said.text, reply, said.at, said.conversation)
        if self.settings.backend == "selfhosted":
            rows = [{"text": fact} for fact in self.facts_of(said.text)]
            turn = replace(turn, facts=json.dumps({"memory": rows}))
        added = await self.memories.add(owner, turn)
        while added.outcome is AddOutcome.PENDING:
            assert added.event_id is not None
            added = await self.memories.follow(owner, added.event_id)


class _Asking:
    """Asks as a response worker does: recall, then a prompt with what it gave."""

    def __init__(self, settings: Settings, memories: Memories) -> None:
        gates = GateClient(cast("Gates", FakeGates()))
        budget = RecallBudget(_PATIENCE_S)
        self._memories = memories
        self._recaller = Recaller(memories, gates, budget=budget, limit=DEPTH, least_score=0.0)
        self._limits = prompt.Limits(
            prompt_tokens=settings.prompt_tokens,
            max_tokens=settings.max_tokens,
            model=settings.model,
            system=settings.system_prompt,
            fact_characters=settings.recall_memory_characters,
        )

    async def ask(self, user: User) -> list[Asked]:
        """Ask all questions of a user."""
        return [await self._ask(user, question) for question in user.questions]

    async def _ask(self, user: User, question: Question) -> Asked:
        own = await self._memories.search(user.name, question.text, DEPTH)
        recall = await self._recaller.recall(user.name, question.text)
        assert recall.memories is not None, "memory was not available"
        request = ChatRequest(user_id=user.name, message=question.text)
        built = prompt.build(
            request, recall, overlay=(), history=(), limits=self._limits, user_tag=""
        )
        turns = {memory.id: memory.turn_id for memory in recall.memories}
        shown = [turns[memory.id] for memory in built.recalled.memories]
        listed = [memory.turn_id for memory in own.memories]
        return Asked(user.name, question, _place(shown, question), _place(listed, question))


def _place(turns: Sequence[str | None], question: Question) -> int | None:
    return next((at for at, turn in enumerate(turns) if turn in question.evidence), None)
