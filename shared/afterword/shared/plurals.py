"""Numbers of things, with what they are in its singular or plural."""

from __future__ import annotations

import re

#: The singular of what lines of the log count.
_SINGULAR = {
    "bytes": "byte",
    "copies": "copy",
    "facts": "fact",
    "inconsistencies": "inconsistency",
    "leases": "lease",
    "memories": "memory",
    "shards": "shard",
    "spans": "span",
    "times": "time",
    "tokens": "token",
    "turns": "turn",
}

_ONE = re.compile(rf"(?<![\w.,])1 ((?:late|input|output) )?({'|'.join(_SINGULAR)})\b")


def quantity(count: int, noun: str, plural: str = "") -> str:
    """Return a number of things; the plural is the noun with an s unless it is given."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def in_number(text: str) -> str:
    """Return the text of a line that was written for many, with the singular behind a 1."""
    return _ONE.sub(lambda found: f"1 {found[1] or ''}{_SINGULAR[found[2]]}", text)
