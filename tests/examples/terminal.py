"""What the picture of a terminal shows."""

from __future__ import annotations

import re
from xml.etree import ElementTree as ET

SVG = "{http://www.w3.org/2000/svg}"


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
