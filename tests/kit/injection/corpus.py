"""Messages and replies in which others try to become what is known about a user."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Injection:
    """A message and its reply.

    `claim` is what must not become a fact about the user, `own` what the user does say. If it is
    not `decided`, no rule can tell it from what a user says about themselves.
    """

    kind: str
    language: str
    message: str
    claim: str
    decided: bool
    reply: str
    own: str


_LINES = Path(__file__).with_name("injections.jsonl").read_text(encoding="utf-8").splitlines()
CORPUS = [Injection(**json.loads(line)) for line in _LINES]

#: Those that must not become facts, and those that the prompt can only quote.
DECIDED = [one for one in CORPUS if one.decided]
UNDECIDED = [one for one in CORPUS if one.kind == "undecidable"]
ORDINARY = [one for one in CORPUS if one.kind == "ordinary"]
