"""Two probes: short facts among chatter in twelve languages, asked for in other words.

Each language is a user. `probe/LANGUAGE.json` has facts, each with a question in the language and
one in English; facts that change, as they were before and after; and chatter. The second probe has
the same form, and other texts: what helps the first one must not harm it.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from benchmarks.recall.dataset import Dataset, Question, Said, User

PROBE = Path(__file__).with_name("probe")
SECOND = Path(__file__).with_name("second_probe")

_BEGAN = datetime(2026, 1, 5, 9, tzinfo=UTC)
_TURNS_A_DAY = 4
_BETWEEN_TURNS = timedelta(minutes=3)


def languages() -> Sequence[str]:
    """Return the languages of the probes."""
    return sorted(path.stem for path in PROBE.glob("*.json"))


def source(language: str, folder: Path = PROBE) -> Mapping[str, Any]:
    """Return the texts of one language as they are written down."""
    found: Mapping[str, Any] = json.loads((folder / f"{language}.json").read_text("utf-8"))
    return found


def build(*chosen: str, folder: Path = PROBE) -> Dataset:
    """Return a probe as a data set, of some languages or of all: always the same one."""
    return Dataset(users=tuple(_user(language, folder) for language in chosen or languages()))


def _user(language: str, folder: Path) -> User:
    texts = source(language, folder)
    order = _order(language, texts)
    turns = tuple(_said(place, *one) for place, one in enumerate(order))
    return User(name=language, turns=turns, questions=tuple(_questions(texts)))


def _order(language: str, texts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return ids and texts in the order in which they are said: a change after what it changes."""
    order = [(f"fact-{n}", one["said"]) for n, one in enumerate(texts["facts"])]
    order += [(f"chatter-{n}", one) for n, one in enumerate(texts["chatter"])]
    order += [(f"before-{n}", one["before"]) for n, one in enumerate(texts["changed"])]
    chance = random.Random(language)
    chance.shuffle(order)
    for number, one in enumerate(texts["changed"]):
        changed = next(at for at, said in enumerate(order) if said[0] == f"before-{number}")
        place = chance.randint(changed + 1, len(order))
        order.insert(place, (f"after-{number}", one["after"]))
    return order


def _said(place: int, turn_id: str, text: str) -> Said:
    day, step = divmod(place, _TURNS_A_DAY)
    at = _BEGAN + timedelta(days=day) + step * _BETWEEN_TURNS
    return Said(id=turn_id, at=at, speaker="user", text=text, conversation=f"day-{day}")


def _questions(texts: Mapping[str, Any]) -> list[Question]:
    asked = []
    for kind, answer in (("facts", "fact"), ("changed", "after")):
        for number, one in enumerate(texts[kind]):
            evidence = (f"{answer}-{number}",)
            asked.append(Question(text=one["asked"], evidence=evidence, group=kind))
            if "in_english" in one:
                group = f"{kind}, in English"
                asked.append(Question(text=one["in_english"], evidence=evidence, group=group))
    return asked
