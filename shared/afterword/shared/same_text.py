"""When two memories say the same, word for word."""

from __future__ import annotations

import unicodedata


def same_text_key(text: str) -> str:
    """Return a text without differences in case, width and spacing; accents stay.

    Two texts say the same if their keys are equal. The embedded memory stores digests of keys: a
    changed rule no longer finds what is stored.
    """
    plain = text if text.isascii() else unicodedata.normalize("NFKC", text)
    return " ".join(plain.casefold().split())
