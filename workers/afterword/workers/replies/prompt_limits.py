"""The limits of prompts, out of the settings; `prompt` itself is pure."""

from __future__ import annotations

from afterword.shared.settings import Settings
from afterword.workers.replies.prompt import Limits


def limits_of(settings: Settings) -> Limits:
    """Return the defaults and bounds of prompts that the settings say."""
    return Limits(
        prompt_tokens=settings.prompt_tokens,
        max_tokens=settings.max_tokens,
        model=settings.model,
        system=settings.system_prompt,
        history_turns=settings.history_turns,
        fact_characters=settings.recall_memory_characters,
    )
