"""Record `docs/images/chat.svg`: two sessions of `make chat`, played on a real terminal.

    .venv/bin/python docs/site/record.py

Each session runs in a pseudo-terminal, on a data folder of its own that both share. What it prints
is kept with its time; waits longer than `LONGEST_WAIT_S` are shortened. What a chat says because
something takes long is left out: a picture shows replies, however busy the machine was.
"""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import chain
from pathlib import Path

ROOT = Path(__file__).parents[2]
PICTURE = ROOT / "docs" / "images" / "chat.svg"

SESSIONS = (
    ("I prefer all temperatures in Celsius.", "My dog is called Otto."),
    ("What's a comfortable room temperature?", "What is my dog called?"),
)

PROMPT = "You: "
PATIENCE_S = 120.0

#: On a terminal without cursor keys a chat prints what it says, and nothing that edits a line.
PLAIN = {"TERM": "dumb"}

#: What a chat says while it waits, which another time it would not.
LATE = re.compile(r"^\[(?:Waiting: |Storing what you said; )[^\n]*\n", re.MULTILINE)

COLUMNS = 88
LONGEST_WAIT_S = 0.5
BETWEEN_SESSIONS_S = 1.5
TYPING_S = 1.0


@dataclass(frozen=True)
class Piece:
    """Text that came at once, and how long after the piece before it."""

    text: str
    wait_s: float


def play(command: Sequence[str], env: Mapping[str, str], messages: Sequence[str]) -> list[Piece]:
    """Run one session: say a message at each prompt and `quit` at the last."""
    ours, theirs = pty.openpty()
    running = subprocess.Popen(  # noqa: S603 ours
        command, cwd=ROOT, env={**env, **PLAIN}, stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    to_say = [*messages, "quit"]
    pieces: list[Piece] = []
    for piece in _read(ours):
        pieces.append(piece)
        if to_say and "".join(one.text for one in pieces).endswith(PROMPT):
            os.write(ours, f"{to_say.pop(0)}\n".encode())
    os.close(ours)
    if code := running.wait():
        raise SystemExit(f"{command} ended with {code}: {''.join(p.text for p in pieces)}")
    return _without_waits(pieces)


def _without_waits(pieces: Sequence[Piece]) -> list[Piece]:
    """Return the pieces without the lines that are `LATE`, whose ends may be in other pieces."""
    late = [found.span() for found in LATE.finditer("".join(one.text for one in pieces))]
    kept: list[Piece] = []
    at = 0
    for piece in pieces:
        text = "".join(
            character
            for place, character in enumerate(piece.text, at)
            if not any(start <= place < end for start, end in late)
        )
        kept.append(Piece(text, piece.wait_s))
        at += len(piece.text)
    return kept


def _read(terminal: int) -> Iterator[Piece]:
    """Give what the terminal shows, until its program ends."""
    last_s = time.monotonic()
    while select.select([terminal], [], [], PATIENCE_S)[0]:
        try:
            text = os.read(terminal, 65536).decode()
        except OSError:  # the other end is closed
            return
        now_s = time.monotonic()
        yield Piece(text.replace("\r\n", "\n"), now_s - last_s)
        last_s = now_s
    raise SystemExit(f"nothing was shown for {PATIENCE_S:g} s")


def record(command: Sequence[str], env: Mapping[str, str]) -> list[Piece]:
    """Play all sessions, each under the line that a user types."""
    pieces: list[Piece] = []
    for messages in SESSIONS:
        pieces.append(Piece("\n$ make chat\n" if pieces else "$ make chat\n", BETWEEN_SESSIONS_S))
        pieces += play(command, env, messages)
    return pieces


# --- the picture

STYLE = """
text { font: 14px ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; fill: #d6deeb;
       white-space: pre; animation: show 1ms both; }
tspan { animation: show 1ms both; }
.typed { font-weight: bold; fill: #ffffff; }
.you { fill: #7fdbca; }
.agent { fill: #c792ea; }
.note { fill: #7f8ea3; }
@keyframes show { from { fill-opacity: 0; } to { fill-opacity: 1; } }
@media (prefers-reduced-motion) { text, tspan { animation: none; } }
"""
SPEAKERS = {PROMPT: "you", "Agent: ": "agent"}
LINE_PX = 20
MARGIN_PX = 16
CHARACTER_PX = 8.6


def picture(pieces: Sequence[Piece]) -> str:
    """Return the SVG: a row for each line, and each piece of text at its time."""
    rows = [_row(number, row) for number, row in enumerate(_rows(pieces))]
    width = round(2 * MARGIN_PX + COLUMNS * CHARACTER_PX)
    height = 2 * MARGIN_PX + len(rows) * LINE_PX
    size = f'viewBox="0 0 {width} {height}" width="{width}"'
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" xml:space="preserve">',
        "<title>Two sessions of make chat: the second remembers what the first was told</title>",
        f"<style>{STYLE}</style>",
        f'<rect width="{width}" height="{height}" rx="8" fill="#011627"/>',
        *rows,
        "</svg>\n",
    ])  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One row of the terminal: its pieces, each with its time, and whether it begins a line."""

    pieces: list[tuple[str, float]]
    begins: bool

    @property
    def text(self) -> str:
        """Return what it shows."""
        return "".join(text for text, _ in self.pieces)


def _rows(pieces: Sequence[Piece]) -> list[Row]:
    rows = [Row([], begins=True)]
    now_s = 0.0
    for piece in pieces:
        now_s += _shown_after_s(piece)
        for text in re.split(r"(\n)", piece.text):
            if text == "\n":
                rows.append(Row([], begins=True))
                continue
            for word in re.findall(r"\S+\s*|\s+", text):
                if len(rows[-1].text) + len(word.rstrip()) > COLUMNS:
                    rows.append(Row([], begins=False))
                rows[-1].pieces.append((word, now_s))
    return rows[:-1] if not rows[-1].pieces else rows


def _shown_after_s(piece: Piece) -> float:
    """Return how long after the piece before it a piece is shown: a person takes time to type."""
    if piece.text.lstrip().startswith("$"):
        return piece.wait_s
    return (
        TYPING_S
        if piece.text.startswith((*chain(*SESSIONS), "quit"))
        else min(piece.wait_s, LONGEST_WAIT_S)
    )


def _row(number: int, row: Row) -> str:
    y = MARGIN_PX + (number + 1) * LINE_PX - 6
    begins = "" if row.begins else ' data-goes-on=""'
    spans: dict[tuple[float, str], str] = {}
    for text, at_s in row.pieces:
        key = at_s, SPEAKERS.get(text, _kind(row.text))
        spans[key] = spans.get(key, "") + text
    shown = "".join(
        f'<tspan class="{kind}" style="animation-delay:{at_s:.2f}s">'
        f"{escape(text, quote=False)}</tspan>"
        for (at_s, kind), text in spans.items()
    )
    return f'<text x="{MARGIN_PX}" y="{y}"{begins}>{shown}</text>'


def _kind(line: str) -> str:
    """Return what stands on a line: what a person typed, what the stack notes, what is said."""
    if line.startswith(("$", PROMPT)):
        return "typed"
    return "note" if line.startswith(("[", "  - ")) else "said"


def main() -> None:
    """Record, and write the picture."""
    if any(name.startswith(("AFTERWORD_", "ANTHROPIC_", "MEM0_")) for name in os.environ):
        sys.exit("take AFTERWORD_*, ANTHROPIC_* and MEM0_* out of the environment first")
    with tempfile.TemporaryDirectory(prefix="afterword-recording-") as folder:
        env = os.environ | {"AFTERWORD_DATA_DIR": folder}
        pieces = record([str(ROOT / ".venv/bin/afterword"), "chat"], env)
    PICTURE.parent.mkdir(exist_ok=True)
    PICTURE.write_text(picture(pieces))


if __name__ == "__main__":
    main()
