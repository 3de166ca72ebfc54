"""Data sets in one JSON form: users, what they said and when, and questions with their evidence.

    {"users": [{
        "name": "ann",
        "turns": [
            {"id": "1", "at": "2026-05-08T20:00:00Z", "speaker": "ann", "text": "I live in Ghent.",
             "conversation": "monday"}
        ],
        "questions": [{"text": "Where is my home?", "evidence": ["1"], "group": "places"}]
    }]}

`evidence` names the turns that answer a question; one of them is enough. `conversation` and `group`
may be left out. A turn whose speaker is `assistant` is the reply to the one before it, and is not
stored; everybody else's words are stored as the user's.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, model_validator

ASSISTANT = "assistant"


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Said(_Strict):
    """One turn of a conversation."""

    id: str = Field(min_length=1)
    at: AwareDatetime
    speaker: str = Field(min_length=1)
    text: str = Field(min_length=1)
    conversation: str | None = None


class Question(_Strict):
    """A question, and the turns of which each answers it."""

    text: str = Field(min_length=1)
    evidence: tuple[str, ...] = Field(min_length=1)
    group: str = "all"


class User(_Strict):
    """One user: everything that was said, oldest first, and what is asked afterwards."""

    name: str = Field(min_length=1)
    turns: tuple[Said, ...]
    questions: tuple[Question, ...]

    @model_validator(mode="after")
    def _evidence_is_there(self) -> Self:
        counts = Counter(turn.id for turn in self.turns)
        twice = [turn_id for turn_id, count in counts.items() if count > 1]
        if twice:
            raise ValueError(f"user {self.name!r} has several turns with the id {twice[0]!r}")
        stored = {turn.id for turn in self.turns if turn.speaker != ASSISTANT}
        for question in self.questions:
            missing = set(question.evidence) - stored
            if missing:
                raise ValueError(
                    f"user {self.name!r}: evidence {min(missing)!r} of the question "
                    f"{question.text!r} is no turn of a user"
                )
        return self


class Dataset(_Strict):
    """A whole data set."""

    users: tuple[User, ...] = Field(min_length=1)


def read(path: Path) -> Dataset:
    """Read a data set; raise `pydantic.ValidationError`, which names the field that is wrong."""
    return Dataset.model_validate_json(path.read_bytes())
