"""What of one user's memories differs between the backend they are in and the one they go to."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from afterword.workers.ports import RecalledMemory


@dataclass(frozen=True, slots=True)
class Difference:
    """What it takes to make the target hold what the source holds, and what it cannot change.

    `missing` are memories of the source, oldest first. `edited` are ids in the target with the text
    of the source. `surplus` are ids in the target: copies of what the source has no more, and
    second copies. `present` counts memories of the source that the target has, `own` those of the
    target that are nobody's copies.
    """

    missing: Sequence[RecalledMemory] = ()
    edited: Sequence[tuple[str, str]] = ()
    surplus: Sequence[str] = ()
    present: int = 0
    own: int = 0


def compare(source: Sequence[RecalledMemory], target: Iterable[RecalledMemory]) -> Difference:
    """Compare all memories that both backends have of one user, those stored last first.

    A memory is known again by the id it was copied from, in either direction. Where no id says so,
    one with the same text counts as the same.
    """
    rows = {row.id: row for row in target}
    copies = defaultdict[str, list[RecalledMemory]](list)
    for row in rows.values():
        copies[row.copied_from or ""].append(row)
    pairs, unpaired, surplus = [], list[RecalledMemory](), list[str]()
    for memory in source:
        origin = rows.get(memory.copied_from or "")
        found = [*([origin] if origin else []), *copies.get(memory.id, ())]
        if found:
            pairs.append((memory, found[0]))
            surplus += [row.id for row in found[1:]]
        else:
            unpaired.append(memory)
        for row in found:
            rows.pop(row.id, None)
    own = [row for row in rows.values() if not row.copied_from]
    surplus += [row.id for row in rows.values() if row.copied_from]
    missing, alike = _without_alike(unpaired, own)
    edited = [
        (row.id, one.text) for one, row in pairs if _without_layout(one) != _without_layout(row)
    ]
    return Difference(missing[::-1], edited, surplus, len(pairs) + alike, len(own) - alike)


def _without_alike(
    unpaired: Iterable[RecalledMemory], own: Iterable[RecalledMemory]
) -> tuple[list[RecalledMemory], int]:
    """Return what no memory of the target's own equals, and how many one does."""
    texts = defaultdict[str, int](int)
    for row in own:
        texts[_without_layout(row)] += 1
    missing, alike = list[RecalledMemory](), 0
    for memory in unpaired:
        if texts[_without_layout(memory)] > 0:
            texts[_without_layout(memory)] -= 1
            alike += 1
        else:
            missing.append(memory)
    return missing, alike


def _without_layout(memory: RecalledMemory) -> str:
    """Return a text without what a backend may change of it."""
    return " ".join(memory.text.split())
