"""What the Claude stand-in extracts when mem0 asks it to: what a user states, word for word."""

from __future__ import annotations

import json

from afterword.workers.rules.relevance import is_question_only
from tests.kit.claude_api import wire_format as wire

_MARK = "You are a Memory Extractor"
_BEFORE = "## New Messages\nuser: "
_BETWEEN = "\nuser: "
_AFTER = "\n\n\n## Observation Date\n"


def asks_to_extract(body: wire.Json) -> bool:
    """Return whether a request is mem0's."""
    return bool(body.get("system")) and _MARK in wire.told(body)[0]


def extracted(body: wire.Json) -> str:
    """Return the facts of a batch, as the model is told to: none in a message that only asks."""
    said = wire.told(body)[-1].partition(_BEFORE)[2].rpartition(_AFTER)[0].split(_BETWEEN)
    return memory_of(*(text for text in said if not is_question_only(text)))


def memory_of(*facts: str) -> str:
    """Return facts in the form that mem0 wants them in."""
    rows = [{"id": str(at), "text": fact} for at, fact in enumerate(facts)]
    return json.dumps({"memory": rows}, ensure_ascii=False)
