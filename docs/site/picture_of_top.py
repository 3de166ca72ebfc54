"""Draw `docs/images/top.svg`: what `afterword top` shows of an invented fleet.

    .venv/bin/python -m docs.site.picture_of_top

Needs no terminal: it draws the fragments that the screen is made of.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable
from html import escape
from pathlib import Path

from afterword.producer.checked_ledger import CheckedLedger
from afterword.producer.cli.top import Top
from afterword.producer.cli.top_screen import BAD, HEAD, LATE, PLAIN, Fragment, screen
from afterword.shared.settings import Settings
from docs.site.photograph import invent
from tests.kit.ledger.builder import submit_and_answer
from tests.kit.servers.valkey import Valkey

PICTURE = Path(__file__).parents[1] / "images" / "top.svg"

_LOOKS = 40
_MOST_REPLIES = 12

_COLOURS = {HEAD: "#ffffff", PLAIN: "#d6deeb", LATE: "#ecc48d", BAD: "#ff5874"}
_COLUMNS = 104
_LINE_PX, _MARGIN_PX, _CHARACTER_PX = 20, 16, 8.6
_FONT = "14px ui-monospace, SFMono-Regular, Menlo, Consolas, monospace"


async def fragments(settings: Settings) -> list[Fragment]:
    """Look at an invented fleet that replies, faster and slower; return what the screen shows."""
    await invent(settings)
    async with CheckedLedger.open(settings) as checked:
        await checked.for_reading()
        top = Top(checked, every_s=2.0, late_s=300.0)
        for look in range(_LOOKS):
            for number in range(round(_MOST_REPLIES * math.sin(look / 4) ** 2)):
                await submit_and_answer(checked.ledger, user_id=f"guest-{number}", tenant="acme")
            await top.look()
        return [*screen(top.history, every_s=top.every_s, paused=False)]


def picture(shown: Iterable[Fragment]) -> str:
    """Return the SVG: a row for each line, each fragment in its colour."""
    rows: list[str] = [""]
    for kind, text in shown:
        first, *others = (_span(kind, line) for line in text.split("\n"))
        rows[-1] += first
        rows += others
    width = round(2 * _MARGIN_PX + _COLUMNS * _CHARACTER_PX)
    height = 2 * _MARGIN_PX + len(rows) * _LINE_PX
    drawn = (
        f'<text x="{_MARGIN_PX}" y="{_MARGIN_PX + (number + 1) * _LINE_PX - 6}">{row}</text>'
        for number, row in enumerate(rows)
        if row
    )
    size = f'viewBox="0 0 {width} {height}" width="{width}"'
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" xml:space="preserve">',
        "<title>afterword top: queues, late users, a gate that is shut, workers, tenants</title>",
        f"<style>text {{ font: {_FONT}; white-space: pre; }}</style>",
        f'<rect width="{width}" height="{height}" rx="8" fill="#011627"/>',
        *drawn,
        "</svg>\n",
    ])  # fmt: skip


def _span(kind: str, text: str) -> str:
    if not text:
        return ""
    return f'<tspan fill="{_COLOURS[kind]}">{escape(text, quote=False)}</tspan>'


def main() -> None:
    """Invent, look, draw."""
    with Valkey() as valkey:
        settings = Settings(
            redis_url=valkey.url, namespace="picture", durability="none", memory="embedded"
        )
        PICTURE.write_text(picture(asyncio.run(fragments(settings))))


if __name__ == "__main__":
    main()
