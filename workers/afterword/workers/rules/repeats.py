"""When a memory says nothing new: it repeats another one, or the question itself."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence

from afterword.workers.ports import RecalledMemory


def folded(text: str) -> str:
    """Return a text without differences in case, width and spacing."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def without_repeats(memories: Iterable[RecalledMemory], query: str) -> Sequence[RecalledMemory]:
    """Return the memories, best first, without repeats and without what equals the query.

    Of several that say the same, the newest stays, at the place of the best.
    """
    asked = folded(query)
    newest: dict[str, RecalledMemory] = {}
    for memory in memories:
        text = folded(memory.text)
        kept = newest.get(text)
        if text != asked and (kept is None or _is_newer(memory, kept)):
            newest[text] = memory  # an assignment to a known key keeps its place
    return list(newest.values())


def _is_newer(one: RecalledMemory, other: RecalledMemory) -> bool:
    if one.created_at is None or other.created_at is None:
        return other.created_at is None and one.created_at is not None
    return one.created_at > other.created_at
