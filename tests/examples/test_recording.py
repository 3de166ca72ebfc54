"""The picture on the README's first screen; `test_programs.py` plays its chat again."""

from __future__ import annotations

import re
from types import ModuleType

import pytest

from tests.conftest import ROOT
from tests.examples.conftest import load
from tests.examples.terminal import lines
from tests.packaging.blocks import blocks


@pytest.fixture(scope="module")
def recorder() -> ModuleType:
    return load("record", ROOT / "docs/site")


@pytest.mark.parametrize("page", ["README.md", "docs/tutorial.md"])
def test_the_transcripts_are_those_of_the_picture(recorder: ModuleType, page: str) -> None:
    drawn = lines(recorder.PICTURE.read_text())
    # What a terminal is told before the first message is in the picture only.
    said = [line for line in drawn if line != "$ make chat" and not line.startswith("[/memories ")]
    shown = [block.text for block in blocks(ROOT / page) if block.text.startswith("You: ")]
    assert "\n".join(shown).splitlines() == said


def test_the_picture_is_small_and_loads_nothing(recorder: ModuleType) -> None:
    picture = recorder.PICTURE.read_text()
    assert len(picture) < 20_000
    assert re.findall(r"https?://[^\"\s]+", picture) == ["http://www.w3.org/2000/svg"]
