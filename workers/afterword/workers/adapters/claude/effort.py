"""How hard a model is told to think before it replies."""

from __future__ import annotations

import re
from typing import Literal

Effort = Literal["low", "medium", "high"]
Setting = Literal["auto", "none", "low", "medium", "high"]

#: The families that take the setting whatever their minor version; those before refuse it.
_TAKES_IT = re.compile(r"claude-[a-z]+-(?:[5-9]|\d{2,})(?:-|$)")


def effort_for(setting: Setting, model: str) -> Effort | None:
    """Return what to send for a model, None to leave it to the model.

    `auto` is low, as suits a chat, where that is known to be taken, and nothing elsewhere.
    """
    if setting == "auto":
        return "low" if _TAKES_IT.match(model) else None
    return None if setting == "none" else setting
