"""When a memory says nothing new: it repeats another one, or the question itself."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from afterword.shared.same_text import same_text_key
from afterword.workers.ports import RecalledMemory
from afterword.workers.rules.dates import without_dates


def without_repeats(memories: Iterable[RecalledMemory], query: str) -> Sequence[RecalledMemory]:
    """Return the memories, best first, without repeats and without what equals the query.

    Of several that say the same, the newest stays, at the place of the best, and counts them.
    """
    asked = _bare(query)
    newest: dict[str, RecalledMemory] = {}
    for memory in memories:
        key = same_text_key(memory.text)
        if (_bare(memory.text) if "[" in key else key) != asked:
            newest[key] = _merged(newest.get(key), memory)  # a known key keeps its place
    return list(newest.values())


def _bare(text: str) -> str:
    """Return the key of a text without the dates that were written beside its words."""
    return same_text_key(without_dates(text))


def _merged(kept: RecalledMemory | None, other: RecalledMemory) -> RecalledMemory:
    if kept is None:
        return other
    latest = other if _is_newer(other, kept) else kept
    return replace(latest, times_said=kept.times_said + other.times_said)


def _is_newer(one: RecalledMemory, other: RecalledMemory) -> bool:
    if one.created_at is None or other.created_at is None:
        return other.created_at is None and one.created_at is not None
    return one.created_at > other.created_at
