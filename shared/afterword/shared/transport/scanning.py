"""Reads what is too large for one reply with SCAN, SSCAN and HSCAN: the only code that does."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

from afterword.shared.errors import LedgerUnavailable
from afterword.shared.transport.pipeline import Pipeline

#: Entries that one step looks at.
SCAN_STEP: Final = 1000

#: How often one scan begins again before it is given up.
MAX_RESTARTS: Final = 50


async def scan_keys(
    pipeline: Pipeline, pattern: str, *, slot_key: str | None
) -> AsyncIterator[Sequence[str]]:
    """Yield pages of all keys of that pattern, some keys twice.

    `slot_key` is given in a cluster: a key of the slot, which never exists. A node answers SCAN for
    any slot, also for one that it never had or is giving away. So that key is asked for before and
    after: such a node answers with an error instead.
    """
    async for page in _scan(pipeline, ("SCAN",), ("MATCH", pattern), slot_key):
        yield page


async def scan_members(pipeline: Pipeline, key: str) -> AsyncIterator[str]:
    """Yield each member of a set once."""
    seen = set[str]()
    async for page in _scan(pipeline, ("SSCAN", key)):
        for one in page:
            if one not in seen:
                seen.add(one)
                yield one


async def scan_fields(pipeline: Pipeline, key: str) -> AsyncIterator[tuple[str, str]]:
    """Yield each field of a hash once, with its value."""
    seen = set[str]()
    async for page in _scan(pipeline, ("HSCAN", key)):
        for name, value in page.items():
            if name not in seen:
                seen.add(name)
                yield name, value


async def _scan(
    pipeline: Pipeline,
    before: Sequence[str],
    after: Sequence[str] = (),
    slot_key: str | None = None,
) -> AsyncIterator[Any]:
    """Yield the pages of a whole scan, as redis-py parses them.

    `before` and `after` stand around the cursor. A cursor means nothing to a server that was
    started again, or to the one that took its place: it would skip entries. So after a new
    connection, whoever caused it, the scan begins again. Raises `LedgerUnavailable` if connections
    break too often for it to end.
    """
    for _ in range(1 + MAX_RESTARTS):
        await _check_slot(pipeline, slot_key)
        used = pipeline.connection or 1  # or the one that the first command opens
        cursor = ""
        while cursor != "0":
            following, page = await pipeline.send_command(
                *before, cursor or "0", *after, "COUNT", SCAN_STEP
            )
            if pipeline.connection != used:
                break  # nobody knows which server gave this cursor
            yield page
            cursor = str(following)
        else:
            await _check_slot(pipeline, slot_key)
            if slot_key is None or pipeline.connection == used:
                return
    raise LedgerUnavailable("its connections break too often to read all keys", cause="closed")


async def _check_slot(pipeline: Pipeline, slot_key: str | None) -> None:
    """Wait until the pipeline's node has the slot of a key, and gives none of its keys away."""
    if slot_key is not None:
        await pipeline.send_command("EXISTS", slot_key)
