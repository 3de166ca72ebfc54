"""A Dockerfile as what it is made of: stages of instructions."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Instruction:
    """One instruction, its continued lines joined."""

    stage: int
    word: str
    rest: str


def instructions(text: str) -> Iterator[Instruction]:
    """Yield the instructions of a Dockerfile, each with the number of its stage, from 0."""
    bare = re.sub(r"^\s*#.*\n?", "", text, flags=re.MULTILINE)
    stage = -1
    for line in re.sub(r"\\\n\s*", "", bare).splitlines():
        if line.strip():
            word, _, rest = line.strip().partition(" ")
            stage += word == "FROM"
            yield Instruction(stage, word, rest.strip())
