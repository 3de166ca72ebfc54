"""A memory in plain Python, with faults to order."""

from __future__ import annotations

import asyncio
import itertools
import re
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Literal

from afterword.shared.errors import IllegalStep, ProviderError
from afterword.shared.same_text import same_text_key
from afterword.workers.ports import (
    NO_FACT,
    AddOutcome,
    AddResult,
    BadCursor,
    MemoryPage,
    OwnerPage,
    RecalledMemory,
    SearchResult,
    Turn,
)

Verb = Literal[
    "search",
    "add",
    "find",
    "follow",
    "copies",
    "page",
    "get",
    "repeats",
    "edit",
    "remove",
    "forget",
    "owners",
    "copy",
]


@dataclass(frozen=True)
class Call:
    """One call as it came in; `about` is the query, the turn's id or the event's."""

    verb: Verb
    owner: str
    about: str = ""


@dataclass
class Hang:
    """A call that hangs: wait for `reached`, then set `released` to let it go on."""

    reached: asyncio.Event = field(default_factory=asyncio.Event)
    released: asyncio.Event = field(default_factory=asyncio.Event)

    async def strike(self) -> None:
        self.reached.set()
        await self.released.wait()


@dataclass
class Failure:
    """A call that raises."""

    error: ProviderError

    async def strike(self) -> None:
        raise self.error


class FakeMemories:
    """Keeps memories in a list; adding a turn twice makes two of it, as it may with mem0.

    With `polls`, an add answers `PENDING` and is there only after it was followed so many times;
    it then ends as `outcome`. Each search drops `malformed` rows.
    While `silent`, it does not say what an add stored that was followed.
    """

    def __init__(
        self,
        *,
        polls: int = 0,
        outcome: AddOutcome = AddOutcome.STORED,
        takes_batches: bool = False,
    ) -> None:
        self.rows: list[RecalledMemory] = []
        self.calls: list[Call] = []
        self.closed = False
        self.malformed = 0
        self.silent = False
        self.polls = polls
        self.outcome = outcome
        self.takes_batches = takes_batches
        self.added: list[tuple[str, ...]] = []
        self._attempts: dict[str, str] = {}
        self._strays: dict[str, list[RecalledMemory]] = defaultdict(list)
        self._pending: dict[str, tuple[str, Turn, int]] = {}
        self._before: dict[Verb, deque[Hang | Failure]] = defaultdict(deque)
        self._after: dict[Verb, deque[Hang | Failure]] = defaultdict(deque)
        self._numbers = itertools.count(1)

    def fail(self, verb: Verb, error: ProviderError, times: int = 1) -> None:
        """Let the next calls fail before they do anything."""
        self._before[verb].extend(Failure(error) for _ in range(times))

    def fail_after(self, verb: Verb, error: ProviderError, times: int = 1) -> None:
        """Let the next calls fail after they did it all."""
        self._after[verb].extend(Failure(error) for _ in range(times))

    def recover(self) -> None:
        """Fail no more calls."""
        self._before.clear()
        self._after.clear()

    def hang(self, verb: Verb) -> Hang:
        """Let the next call hang before it does anything."""
        hang = Hang()
        self._before[verb].append(hang)
        return hang

    def plant(self, asked: str, row: RecalledMemory) -> None:
        """Let this memory come back, first, whenever `asked` is searched, whoever owns it."""
        self._strays[asked].append(row)

    def finish(self) -> None:
        """Let every pending add end when it is followed next."""
        self._pending = {
            event: (owner, turn, 1) for event, (owner, turn, _) in self._pending.items()
        }

    def turns(self, owner: str) -> list[str | None]:
        """Return the turns that the owner's memories came from, oldest first."""
        return [row.turn_id for row in self.rows if row.owner == owner]

    async def search(self, owner: str, query: str, limit: int) -> SearchResult:
        async with self._call("search", owner, query):
            own = [_scored(row, query) for row in self.rows if row.owner == owner]
            newest_first = own[::-1]
            best_first = sorted(newest_first, key=lambda row: -(row.score or 0.0))
            found = tuple([*self._strays[owner], *best_first][:limit])
            return SearchResult(found, self.malformed)

    async def add(self, owner: str, turn: Turn) -> AddResult:
        self.added.append(tuple(each.user_text for each in turn.exchanges))
        async with self._call("add", owner, turn.id):
            if not self.polls:
                return self._settle(owner, turn)
            event_id = f"event-{next(self._numbers)}"
            self._pending[event_id] = (owner, turn, self.polls)
            return AddResult(AddOutcome.PENDING, event_id=event_id)

    async def find(self, owner: str, turn_id: str) -> Sequence[str]:
        async with self._call("find", owner, turn_id):
            return [row.id for row in self.rows if (row.owner, row.turn_id) == (owner, turn_id)]

    async def follow(self, owner: str, event_id: str) -> AddResult:
        async with self._call("follow", owner, event_id):
            if event_id not in self._pending:
                raise IllegalStep("no add answered pending with this event")
            asked_by, turn, left = self._pending.pop(event_id)
            assert asked_by == owner, "followed by someone else"
            if left > 1:
                self._pending[event_id] = (owner, turn, left - 1)
                return AddResult(AddOutcome.PENDING, event_id=event_id)
            settled = self._settle(owner, turn)
            return AddResult(AddOutcome.STORED) if self.silent else settled

    async def find_copies(self, owner: str, turn_id: str) -> Sequence[Sequence[str]]:
        async with self._call("copies", owner, turn_id):
            attempts: dict[str, list[str]] = {}
            for row in self.rows:
                if (row.owner, row.turn_id) == (owner, turn_id):
                    attempts.setdefault(self._attempts[row.id], []).append(row.id)
            return list(attempts.values())

    async def list_page(self, owner: str, limit: int, after: str | None = None) -> MemoryPage:
        async with self._call("page", owner):
            if after is not None and not re.fullmatch("[0-9]{1,9}", after):
                raise BadCursor
            begin = int(after or 0)
            own = [row for row in reversed(self.rows) if row.owner == owner]
            page = tuple(replace(row, score=None) for row in own[begin : begin + limit])
            following = str(begin + limit) if len(own) > begin + limit else None
            return MemoryPage(page, following, self.malformed)

    async def get(self, owner: str, memory_id: str) -> RecalledMemory | None:
        async with self._call("get", owner, memory_id):
            mine = (row for row in self.rows if (row.owner, row.id) == (owner, memory_id))
            found = next(mine, None)
            return found and replace(found, score=None)

    async def repeats(self, owner: str, text: str) -> Sequence[str]:
        async with self._call("repeats", owner):
            mine = (row for row in self.rows if row.owner == owner)
            return [row.id for row in mine if same_text_key(row.text) == same_text_key(text)]

    async def edit(self, owner: str, memory_id: str, text: str) -> bool:
        async with self._call("edit", owner, memory_id):
            for at, row in enumerate(self.rows):
                if (row.owner, row.id) == (owner, memory_id):
                    self.rows[at] = replace(row, text=text)
                    return True
            return False

    async def remove(self, owner: str, memory_ids: Sequence[str]) -> None:
        async with self._call("remove", owner):
            self.rows = [row for row in self.rows if row.owner != owner or row.id not in memory_ids]

    async def forget(self, owner: str) -> None:
        async with self._call("forget", owner):
            self.rows = [row for row in self.rows if row.owner != owner]

    async def list_owners(self, limit: int, after: str | None = None) -> OwnerPage:
        async with self._call("owners", ""):
            if after is not None and not re.fullmatch("[0-9]{1,9}", after):
                raise BadCursor
            names, begin = sorted({row.owner for row in self.rows}), int(after or 0)
            following = str(begin + limit) if len(names) > begin + limit else None
            return OwnerPage(tuple(names[begin : begin + limit]), following)

    async def copy(self, owner: str, memory: RecalledMemory) -> Sequence[str]:
        async with self._call("copy", owner, memory.id):
            row = replace(
                memory,
                id=f"memory-{next(self._numbers)}",
                owner=owner,
                score=0.0,
                times_said=1,
                updated_at=None,
                copied_from=memory.id,
            )
            self._attempts[row.id] = ""
            self.rows.append(row)
            return [row.id]

    async def aclose(self) -> None:
        self.closed = True

    def _settle(self, owner: str, turn: Turn) -> AddResult:
        if self.outcome is not AddOutcome.STORED:
            return NO_FACT
        new = [self._row(owner, turn, each.user_text) for each in turn.exchanges]
        self.rows += new
        return AddResult(AddOutcome.STORED, tuple(row.id for row in new))

    def _row(self, owner: str, turn: Turn, text: str) -> RecalledMemory:
        row_id = f"memory-{next(self._numbers)}"
        self._attempts[row_id] = turn.attempt
        return RecalledMemory(
            row_id,
            owner,
            text,
            0.0,
            turn.at,
            turn.id,
            conversation_id=turn.conversation_id,
            stored_by=turn.stored_by or None,
        )

    @asynccontextmanager
    async def _call(self, verb: Verb, owner: str, about: str = "") -> AsyncIterator[None]:
        self.calls.append(Call(verb, owner, about))
        if self._before[verb]:
            await self._before[verb].popleft().strike()
        yield
        if self._after[verb]:
            await self._after[verb].popleft().strike()


def _scored(row: RecalledMemory, query: str) -> RecalledMemory:
    asked, held = _words(query), _words(row.text)
    return replace(row, score=len(asked & held) / max(len(asked | held), 1))


def _words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.lower()))
