"""The picture on the README's first screen is what a chat looks like today."""

from __future__ import annotations

import os
import re
from types import ModuleType
from xml.etree import ElementTree as ET

import pytest

from tests.conftest import ROOT
from tests.examples.conftest import load
from tests.kit.workers.fleet import COMMAND, Fleet
from tests.packaging.blocks import blocks

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def recorder() -> ModuleType:
    return load("record", ROOT / "docs/site")


def lines(svg: str) -> list[str]:
    """Return the lines of the terminal that a picture shows, without what the stack reports."""
    found: list[str] = []
    for row in ET.fromstring(svg).iter(f"{SVG}text"):
        text = "".join(row.itertext())
        if row.get("data-goes-on") is None:
            found.append(text)
        else:
            found[-1] += text
    return [line.strip() for line in found if line and not re.match(r"\[\w+\] \w+", line)]


def shape(shown: list[str]) -> list[str]:
    """Return the lines without what a model said, and how fast memory was."""
    told = ["Agent: ..." if line.startswith("Agent: ") else line for line in shown]
    return [re.sub(r"^\[Memory (queued|skipped)\]$", "[Memory ...]", line) for line in told]


@pytest.mark.slow
@pytest.mark.system
@pytest.mark.redis
def test_a_chat_still_looks_as_in_the_picture(recorder: ModuleType, fleet: Fleet) -> None:
    pieces = recorder.record([*COMMAND, "chat", "--user", "recorded"], os.environ | fleet.variables)
    shown = lines(recorder.PICTURE.read_text())
    anew = "a chat looks otherwise now: python docs/site/record.py"
    assert shape(lines(recorder.picture(pieces))) == shape(shown), anew
    assert "[Retrieved 1 memories]" in shown


@pytest.mark.parametrize("page", ["README.md", "docs/tutorial.md"])
def test_the_transcripts_are_those_of_the_picture(recorder: ModuleType, page: str) -> None:
    said = [line for line in lines(recorder.PICTURE.read_text()) if line != "$ make chat"]
    shown = [block.text for block in blocks(ROOT / page) if block.text.startswith("You: ")]
    assert "\n".join(shown).splitlines() == said


def test_the_picture_is_small_and_loads_nothing(recorder: ModuleType) -> None:
    picture = recorder.PICTURE.read_text()
    assert len(picture) < 20_000
    assert re.findall(r"https?://[^\"\s]+", picture) == ["http://www.w3.org/2000/svg"]
