"""Copies the memories of all users to another backend, and compares both until they are equal."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Literal, TypeAlias, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from afterword.shared.errors import (
    BadAnswer,
    IllegalStep,
    ProviderError,
    RateLimited,
    Rejected,
    Unavailable,
)
from afterword.shared.ledger.erasures import Erasures
from afterword.shared.ledger.records import Erasure, ErasureState
from afterword.shared.names import is_memory_key, lane_id, shard_of
from afterword.workers.ports import MigratableMemories, OwnerPage, RecalledMemory
from afterword.workers.rules.memory_copies import Difference, compare

Result = TypeVar("Result")

#: Lets nobody write to the source; calls what it is given while that takes time.
PauseMemories: TypeAlias = Callable[[Callable[[], Awaitable[object]]], Awaitable[object]]

#: Users, and memories of one user, that are listed at a time.
OWNERS_PAGE = 50
MEMORIES_PAGE = 200

#: Passes of one run. Each goes over all users; the last one has nothing to do if nobody writes.
MOST_PASSES = 3

#: How often a user is tried while a backend is away, and the longest wait in between.
TRIES = 6
LONGEST_WAIT_S = 60.0

#: The progress is recorded at least this often, which keeps the right to work at it.
KEEP_EVERY_S = 20.0


class Counts(BaseModel):
    """What one pass over all users found and did.

    `memories` are those of the source, `present` those of them that the target has by now. `own`
    memories of the target are no copies, `unreadable` ones of either cannot be compared, `refused`
    ones the target does not take, `dropped` ones it holds already with the same text. `erased`
    users are being erased and are left out; `strangers` are owners that are no users of ours.
    """

    users: int = 0
    memories: int = 0
    present: int = 0
    copied: int = 0
    edited: int = 0
    removed: int = 0
    dropped: int = 0
    own: int = 0
    unreadable: int = 0
    refused: int = 0
    erased: int = 0
    strangers: int = 0

    @property
    def changes(self) -> int:
        """Return how many memories of the target the pass has changed, or would change."""
        return self.copied + self.edited + self.removed

    @property
    def equal(self) -> bool:
        """Return whether the target has just what the source has."""
        wrong = self.changes + self.own + self.unreadable + self.refused
        return not wrong and self.present == self.memories

    def add(self, other: Counts) -> None:
        """Add what was found of another user."""
        for name in type(self).model_fields:
            setattr(self, name, getattr(self, name) + getattr(other, name))


@dataclass(frozen=True, slots=True)
class Planned:
    """What the tries of one user were about to change. What is not needed any more was done.

    A try that fails cannot say what it did: the answer to its last write may be lost.
    """

    copies: set[str] = field(default_factory=set)
    edits: set[str] = field(default_factory=set)
    removals: set[str] = field(default_factory=set)

    def done(self, needed: Difference, in_source: Iterable[str]) -> Counts:
        """Return what was done of it, as far as it shows in what is needed now."""
        copied = self.copies.intersection(in_source).difference(one.id for one in needed.missing)
        return Counts(
            copied=len(copied),
            edited=len(self.edits.difference(memory_id for memory_id, _ in needed.edited)),
            removed=len(self.removals.difference(needed.surplus)),
        )

    def add(self, needed: Difference) -> None:
        """Note what is about to be changed."""
        self.copies.update(one.id for one in needed.missing)
        self.edits.update(memory_id for memory_id, _ in needed.edited)
        self.removals.update(needed.surplus)


class Progress(BaseModel):
    """How far a migration has come: in which pass, on which side's list of users, and where."""

    model_config = ConfigDict(extra="ignore")

    number: int = 1
    side: Literal["source", "target"] = "source"
    cursor: str | None = None
    counts: Counts = Field(default_factory=Counts)
    over: bool = False

    @classmethod
    def read(cls, text: str) -> Progress:
        """Read what an earlier run recorded; a new beginning, if it was over or cannot be read."""
        try:
            found = cls.model_validate_json(text or "{}")
        except ValueError:
            return cls()
        return cls() if found.over else found


@dataclass(frozen=True, slots=True)
class Rules:
    """What a migration may do: at most `per_second` calls of the backends.

    Without `apply`, it is only counted what would be done. `visible_s` is how long a write whose
    outcome is unknown may stay unseen. `now` and `sleep` tell and spend time. `on_wait` is told for
    how long the work waits for a backend, and the code of its error.
    """

    per_second: float
    shards: int
    apply: bool
    visible_s: float = 0.0
    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep
    on_wait: Callable[[float, str], None] = lambda _seconds, _code: None


class MemoryMigration:
    """Makes the target hold what the source holds, user by user.

    The source is not changed. Whatever is interrupted can be run again: each user is compared
    before anything is copied, so nothing is copied twice. `keep` records the progress,
    `on_difference` is told of users whose memories no copying makes equal.
    """

    def __init__(
        self,
        source: MigratableMemories,
        target: MigratableMemories,
        erasures: Erasures,
        rules: Rules,
        keep: Callable[[Progress], Awaitable[None]] | None = None,
        on_difference: Callable[[str, Counts], None] | None = None,
    ) -> None:
        self._source = source
        self._target = target
        self._erasures = erasures
        self._rules = rules
        self._keep = keep
        self._on_difference = on_difference
        self._next_call = self._kept = rules.now()
        self._progress = Progress()

    async def run(
        self, progress: Progress, pause_memories: PauseMemories | None = None
    ) -> Progress:
        """Go on from there, and pass over all users until both are equal or nothing helps.

        With `pause_memories` there are two passes at least. It is called before each but the first
        one: what is stored behind the last pass is in the source only. Raises the error of a
        backend that stays away. The progress was kept then.
        """
        self._progress = progress
        while True:
            if pause_memories is not None and progress.number > 1:
                await pause_memories(self._record)
            await self._pass_over_users()
            unsure = progress.counts.changes or (
                pause_memories is not None and progress.number == 1
            )
            again = self._rules.apply and unsure and progress.number < MOST_PASSES
            progress.over = not again
            if again:
                progress.number += 1
                progress.side, progress.counts = "source", Counts()
            await self._record()
            if not again:
                return progress

    async def _pass_over_users(self) -> None:
        """Compare the users of the source, then those that only the target has."""
        progress = self._progress
        while True:
            side = self._source if progress.side == "source" else self._target
            page = await self._patiently(partial(self._list_owners, side))
            for owner in page.owners:
                await self._settle_owner(owner)
            progress.cursor = page.next
            if page.next is None and progress.side == "target":
                return
            if page.next is None:
                self._begin_with_target()
            await self._record()

    def _begin_with_target(self) -> None:
        """Go over the users of the target next; their copies are removed if the source has none.

        So a source without anything, which may be a wrong one, is refused.
        """
        if not self._progress.counts.users + self._progress.counts.erased:
            raise IllegalStep("the source holds no memories of any user: nothing was changed")
        self._progress.side = "target"

    async def _list_owners(self, side: MigratableMemories) -> OwnerPage:
        await self._turn()
        return await side.list_owners(OWNERS_PAGE, self._progress.cursor)

    async def _settle_owner(self, owner: str) -> None:
        in_source = self._progress.side == "source"
        if not is_memory_key(owner):
            self._progress.counts.strangers += in_source
            return
        settle = self._compare if in_source else self._clear
        found = await self._patiently(partial(settle, owner, Planned()))
        self._progress.counts.add(found)
        if self._on_difference and (found.own or found.unreadable or found.refused):
            self._on_difference(owner, found)

    async def _patiently(self, step: Callable[[], Awaitable[Result]]) -> Result:
        """Take a step that may be repeated, again and again while a backend is away."""
        tried = 1
        while True:
            try:
                return await step()
            except (Unavailable, RateLimited, BadAnswer) as error:
                if tried == TRIES:
                    raise
                await self._wait_out(error, tried)
            tried += 1

    async def _wait_out(self, error: ProviderError, tried: int) -> None:
        wait_s = max(error.retry_after_s or 0.0, 2.0 ** (tried - 1))
        if error.unknown_outcome:
            wait_s = max(wait_s, self._rules.visible_s)
        wait_s = min(wait_s, LONGEST_WAIT_S)
        self._rules.on_wait(wait_s, error.code)
        await self._rules.sleep(wait_s)
        await self._record()

    async def _compare(self, owner: str, planned: Planned) -> Counts:
        """Make the target hold what the source holds of one user."""
        before = await self._receipt(owner)
        if before is not None and before.state is not ErasureState.ERASED:
            return await self._leave_out(owner)
        source, lost = await self._all(self._source, owner)
        target, lost_there = await self._all(self._target, owner)
        found = compare(source, target)
        counts = Counts(
            users=1,
            memories=len(source),
            present=found.present,
            own=found.own,
            unreadable=lost + lost_there,
        )
        if not self._rules.apply:
            counts.copied, counts.edited = len(found.missing), len(found.edited)
            counts.removed = len(found.surplus)
            return counts
        counts.add(planned.done(found, (one.id for one in source)))
        planned.add(found)
        await self._change(owner, found, counts)
        # Whoever asked to be forgotten meanwhile is in no backend: not in this one either.
        return counts if await self._receipt(owner) == before else await self._leave_out(owner)

    async def _change(self, owner: str, found: Difference, counts: Counts) -> None:
        for memory in found.missing:
            await self._copy(owner, memory, counts)
        for memory_id, text in found.edited:
            await self._turn()
            counts.edited += await self._target.edit(owner, memory_id, text)
        for memory_id in found.surplus:
            await self._turn()
            await self._target.remove(owner, [memory_id])
            counts.removed += 1

    async def _copy(self, owner: str, memory: RecalledMemory, counts: Counts) -> None:
        await self._turn()
        try:
            copied = await self._target.copy(owner, memory)
        except Rejected:
            counts.refused += 1
            return
        counts.present += 1
        if copied:
            counts.copied += 1
        else:
            counts.dropped += 1

    async def _clear(self, owner: str, planned: Planned) -> Counts:
        """Remove what was copied of a user of whom the source has nothing any more."""
        await self._turn()
        page = await self._source.list_page(owner, 1)
        if page.memories or page.malformed:
            return Counts()  # was compared as one of the source's
        target, _ = await self._all(self._target, owner)
        copies = [row.id for row in target if row.copied_from]
        planned.removals.update(copies)
        if self._rules.apply and copies:
            await self._change(owner, Difference(surplus=copies), Counts())
        return Counts(removed=len(planned.removals))

    async def _leave_out(self, owner: str) -> Counts:
        """Leave nothing in the target of a user who is being erased."""
        if self._rules.apply:
            await self._turn()
            await self._target.forget(owner)
        return Counts(erased=1)

    async def _receipt(self, owner: str) -> Erasure | None:
        return await self._erasures.receipt(lane_id(owner, shard_of(owner, self._rules.shards)))

    async def _all(
        self, memories: MigratableMemories, owner: str
    ) -> tuple[list[RecalledMemory], int]:
        """Return all memories of one user, those stored last first, and how many are unreadable."""
        rows, malformed, after = dict[str, RecalledMemory](), 0, None
        while True:
            await self._turn()
            page = await memories.list_page(owner, MEMORIES_PAGE, after)
            rows |= {row.id: row for row in page.memories if row.owner == owner}
            malformed += page.malformed
            after = page.next
            if after is None:
                return list(rows.values()), malformed

    async def _turn(self) -> None:
        """Wait for the time of the next call; keep the progress from time to time."""
        now = self._rules.now()
        if self._next_call > now:
            await self._rules.sleep(self._next_call - now)
        self._next_call = max(now, self._next_call) + 1 / self._rules.per_second
        if now - self._kept >= KEEP_EVERY_S:
            await self._record()

    async def _record(self) -> None:
        self._kept = self._rules.now()
        if self._keep is not None:
            await self._keep(self._progress)
