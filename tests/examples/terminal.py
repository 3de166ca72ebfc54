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
    return [line.rstrip() for line in found if line.strip() and not re.match(r"\[\w+\] \w+", line)]


def shape(shown: list[str]) -> list[str]:
    """Return the lines without what a model said, and without those that are luck.

    Whether a turn is stored before the next message or after it depends on the machine.
    """
    told = ["Agent: ..." if line.startswith("Agent: ") else line for line in shown]
    return [line for line in told if line != "[Memories updated]"]
