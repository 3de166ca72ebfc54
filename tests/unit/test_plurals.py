"""What is counted stands in the right number: in lines of the log, the shell and pages."""

from __future__ import annotations

import re
import typing
from dataclasses import fields

import pytest

from afterword.shared.events import ObserverEvent
from afterword.shared.logs import LINES, Line
from afterword.shared.plurals import in_number, quantity

#: Words that end with an s and are no plurals.
NO_PLURALS = {"is", "gives", "lets", "opens", "ends", "works", "has", "was"}


@pytest.mark.parametrize(("count", "text"), [(0, "0 turns"), (1, "1 turn"), (1234, "1,234 turns")])
def test_a_quantity_has_its_noun_in_the_right_number(count: int, text: str) -> None:
    assert quantity(count, "turn") == text


def test_a_plural_of_its_own_is_given() -> None:
    assert quantity(1, "memory", "memories") == "1 memory"
    assert quantity(2, "memory", "memories") == "2 memories"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("1 turns stored: 1 memories", "1 turn stored: 1 memory"),
        ("removed 1 late copies of memories", "removed 1 late copy of memories"),
        ("21 turns, 0.1 turns, 1,001 turns", "21 turns, 0.1 turns, 1,001 turns"),
        ("answered 1 of 2 turns", "answered 1 of 2 turns"),
        ("failed 1 times in a row", "failed 1 time in a row"),
        ("v1 turns", "v1 turns"),
    ],
)
def test_a_line_of_one_is_in_the_singular(text: str, shown: str) -> None:
    assert in_number(text) == shown


@pytest.mark.parametrize(
    ("kind", "line"), LINES.items(), ids=lambda one: getattr(one, "__name__", "")
)
def test_no_line_of_the_log_counts_one_in_the_plural(kind: type[ObserverEvent], line: Line) -> None:
    types = typing.get_type_hints(kind)
    numbers = {one.name for one in fields(kind) if types[one.name] is int}
    template = re.sub(r"\{(\w+)[^}]*\}", lambda found: f"{{{found[1]}}}", line.text)
    text = in_number(
        template.format_map({one.name: 1 if one.name in numbers else "x" for one in fields(kind)})
    )
    words = re.findall(r"(?<![\w.,])1 ((?:late |input |output )?\w+s)\b", text)
    assert [word for word in words if word.split()[-1] not in NO_PLURALS] == []
