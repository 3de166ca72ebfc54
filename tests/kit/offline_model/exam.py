"""Examines the offline model: what it makes of memories that the embedded memory finds.

Each case tells some facts and asks a question. The answer counts if it has the pattern `wanted` and
not `unwanted`. Cases of the set `tuning` may be looked at while the template is written; those of
the set `test` are there to be counted.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from afterword.shared.contracts import ChatRequest
from afterword.workers.local_stack import model_server
from afterword.workers.ports import Answer, Memories, Model, Recall, Turn
from afterword.workers.replies import prompt

_FIRST_DAY = datetime(2026, 11, 1, tzinfo=UTC)

#: Kinds of cases in which the right unit has to be named, and those in which nothing is known.
UNITS = frozenset({"metric", "imperial"})
UNKNOWN = frozenset({"unknown"})


@dataclass(frozen=True, slots=True)
class Case:
    """Facts that a user told, oldest first, and a question."""

    set: str
    kind: str
    told: Sequence[str]
    asked: str
    wanted: str
    unwanted: str

    def passes(self, text: str) -> bool:
        """Return whether an answer counts."""
        unwanted = self.unwanted and re.search(self.unwanted, text, re.IGNORECASE)
        return bool(re.search(self.wanted, text, re.IGNORECASE)) and not unwanted


def cases(which: str) -> list[Case]:
    """Return the cases of one set."""
    loaded = json.loads(Path(__file__).with_name("cases.json").read_text())
    return [Case(**one) for one in loaded if one["set"] == which]


@dataclass
class Conversation:
    """A user who talks to the model: what they say is remembered, and recalled as by a worker."""

    user: str
    memories: Memories
    model: Model
    replies: list[str] = field(default_factory=list)
    _turns: int = 0

    async def remember(self, said: str) -> None:
        """Store something that the user said, a day after what they said before."""
        self._turns += 1
        at = _FIRST_DAY + timedelta(days=self._turns)
        turn = Turn(f"{self.user}-{self._turns:08}", said, "Noted.", at)
        await self.memories.add(self.user, turn)

    async def say(self, message: str) -> str:
        """Return the reply to a message, given the memories that the offline stack gives."""
        defaults = model_server.DEFAULTS
        found = await self.memories.search(self.user, message, int(defaults["recall_top_k"]))
        least = float(defaults["recall_min_score"])
        relevant = tuple(one for one in found.memories if (one.score or 0.0) >= least)
        built = prompt.build(
            ChatRequest(user_id=self.user, message=message),
            Recall(relevant),
            overlay=(),
            history=(),
            limits=prompt.Limits(
                int(defaults["prompt_tokens"]), int(defaults["max_tokens"]), "any", None
            ),
            user_tag=self.user,
        )
        answers = [piece async for piece in self.model.stream_answer(built.prompt)]
        (answer,) = (piece for piece in answers if isinstance(piece, Answer))
        self.replies.append(answer.text.strip())
        return self.replies[-1]


async def results(
    examined: Sequence[Case], memories: Memories, model: Model
) -> Mapping[str, Sequence[bool]]:
    """Return for each kind of case which answers count; each case is a user of its own."""
    found: dict[str, list[bool]] = {}
    for number, case in enumerate(examined):
        talk = Conversation(f"case-{number}", memories, model)
        for fact in case.told:
            await talk.remember(fact)
        found.setdefault(case.kind, []).append(case.passes(await talk.say(case.asked)))
    return found
