"""The memories of a fake producer: what its turns were stored as, and what a test has put there."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from afterword.producer.client.memory_calls import MemoryCall, Owner
from afterword.shared.memory_contracts import Memory, MemoryPage
from afterword.shared.same_text import same_text_key

#: What a memory worker says: a result, or why there is none.
Answer = Mapping[str, Any]

_NOT_FOUND: Answer = {"code": "not_found", "may_be_done": False}


class FakeMemories:
    """Answers calls about memories as a memory worker does.

    `given` returns the jobs whose reply was given a memory, the newest first.
    """

    def __init__(self, given: Callable[[str], Sequence[str]]) -> None:
        self._given = given
        self._memories: dict[Owner, dict[str, Memory]] = {}
        self._numbers = itertools.count(1)

    def store(
        self,
        owner: Owner,
        text: str,
        at: datetime,
        *,
        job_id: str | None = None,
        conversation_id: str | None = None,
    ) -> Memory:
        """Store one more memory of a user."""
        memory = Memory(
            id=f"fake-memory-{next(self._numbers)}",
            text=text,
            created_at=at,
            updated_at=at,
            job_id=job_id,
            conversation_id=conversation_id,
            stored_by="fake" if job_id else None,
        )
        self._memories.setdefault(owner, {})[memory.id] = memory
        return memory

    def of_job(self, job_id: str) -> tuple[str, ...]:
        """Return the ids of the memories that came from a job and were not deleted."""
        every = (memory for mine in self._memories.values() for memory in mine.values())
        return tuple(memory.id for memory in every if memory.job_id == job_id)

    def answer(self, call: MemoryCall, now: datetime) -> Answer:
        """Carry out a call."""
        mine, said = self._memories.get(call.owner, {}), call.arguments
        if call.action == "list":
            return _listed(list(mine.values())[::-1], said["limit"], said["after"])
        if call.action == "search":
            return _found(list(mine.values())[::-1], said["query"], said["limit"])
        memory = mine.get(said["id"])
        if call.action == "edit":
            return _edited(mine, memory, said["text"], now)
        if memory is None:
            return _NOT_FOUND
        if call.action == "delete":
            _remove(mine, memory.text)
            return {"result": {}}
        given = {"given_to": tuple(self._given(memory.id))[:100]}
        return {"result": memory.model_copy(update=given).model_dump()}


def _edited(mine: dict[str, Memory], memory: Memory | None, text: str, now: datetime) -> Answer:
    if not any(map(_is_seen, text)):
        return {"code": "blank_text", "may_be_done": False}
    if memory is None:
        return _NOT_FOUND
    if memory.text != text:
        _remove(mine, memory.text)
    edited = mine[memory.id] = memory.model_copy(update={"text": text, "updated_at": now})
    return {"result": edited.model_dump()}


def _remove(mine: dict[str, Memory], text: str) -> None:
    """Remove all memories that say a text: a reply is given one of them."""
    key = same_text_key(text)
    for repeat in [one for one in mine.values() if same_text_key(one.text) == key]:
        del mine[repeat.id]


def _is_seen(letter: str) -> bool:
    return letter.isprintable() and not letter.isspace()


def _listed(newest_first: Sequence[Memory], limit: int, after: str | None) -> Answer:
    if after is not None and not re.fullmatch("[0-9]{1,9}", after):
        return {"code": "bad_cursor", "may_be_done": False}
    begin = int(after or 0)
    page = tuple(newest_first[begin : begin + limit])
    following = str(begin + limit) if len(newest_first) > begin + limit else None
    return {"result": MemoryPage(memories=page, next=following).model_dump()}


def _found(newest_first: Sequence[Memory], query: str, limit: int) -> Answer:
    asked = _words(query)
    scored = [
        memory.model_copy(update={"score": len(asked & _words(memory.text)) / max(len(asked), 1)})
        for memory in newest_first
    ]
    best = sorted(scored, key=lambda memory: -(memory.score or 0.0))[:limit]
    return {"result": MemoryPage(memories=tuple(best)).model_dump()}


def _words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.lower()))
