"""Where the messages of a chat come from: a terminal with line editing, a plain one, or a pipe."""

from __future__ import annotations

import os
import sys
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING

from afterword.producer.cli.terminal import echo
from afterword.shared.errors import InvalidRequest

if TYPE_CHECKING:
    from prompt_toolkit import PromptSession
    from prompt_toolkit.key_binding.key_processor import KeyPressEvent

PROMPT = "You: "

#: A terminal that edits lines itself cuts them at so many bytes, and says nothing.
_LINE_BYTES = 4095


class ChatInput(ABC):
    """Gives what a user says, message by message.

    Attributes:
        interactive: whether a person sits there, who may interrupt a reply and be asked.
        edits: whether lines can be edited and erased, and what was entered is offered again.

    """

    interactive = True
    edits = False

    @abstractmethod
    def read(self) -> str | None:
        """Return the next message, None at the end; raise `KeyboardInterrupt` on Ctrl-C.

        Raises `InvalidRequest` for what cannot be a message.
        """

    @abstractmethod
    def ask(self, question: str) -> str | None:
        """Return the answer to a question, None at the end."""

    def remember_in(self, history: Path | None) -> None:  # noqa: B027 most remember nothing
        """Keep the messages from now on in this file, or forget them with the chat."""


class Pipe(ChatInput):
    """A pipe or a file: each line is a message in UTF-8, whatever the locale is."""

    interactive = False

    def __init__(self) -> None:
        self._line = 0

    def read(self) -> str | None:
        """Return the next line, and show it as if it had been typed."""
        return self.ask(PROMPT)

    def ask(self, question: str) -> str | None:
        """Return the next line, too."""
        echo(question, nl=False)
        read = sys.stdin.buffer.readline()
        self._line += 1
        try:
            line = read.decode()
        except UnicodeDecodeError:
            echo()
            raise InvalidRequest("standard input", f"line {self._line} is not UTF-8") from None
        echo(line.rstrip("\r\n"))
        return line or None


class PlainTerminal(ChatInput):
    """A terminal that knows no cursor keys (`TERM=dumb`), or whose output goes elsewhere."""

    def read(self) -> str | None:
        """Return the next line."""
        return self.ask(PROMPT)

    def ask(self, question: str) -> str | None:
        """Return the next line, too."""
        echo(question, nl=False)
        line = sys.stdin.readline()
        if not line:
            echo()
        if len(line.rstrip("\n").encode(sys.stdin.encoding, "surrogateescape")) >= _LINE_BYTES:
            limit = f"{_LINE_BYTES:,}"
            raise InvalidRequest("message", f"this terminal cuts it at {limit} bytes; use a pipe")
        return line or None


class EditingTerminal(ChatInput):
    """A terminal with line editing and history; what is pasted at once is one message."""

    edits = True

    def __init__(self) -> None:
        self._session = _session(None)

    def read(self) -> str | None:
        """Return what was entered."""
        return _entered(self._session, PROMPT)

    def ask(self, question: str) -> str | None:
        """Return the answer, which no history keeps."""
        return _entered(_session(None), question)

    def remember_in(self, history: Path | None) -> None:
        """Offer the messages of this file again, and add those that follow to it."""
        self._session = _session(history)


def _session(history: Path | None) -> PromptSession[str]:
    from prompt_toolkit import PromptSession
    from prompt_toolkit.history import FileHistory, InMemoryHistory
    from prompt_toolkit.key_binding import KeyBindings

    bindings = KeyBindings()
    bindings.add("escape", "enter")(_break_line)
    return PromptSession(
        history=FileHistory(history) if history else InMemoryHistory(),
        key_bindings=bindings,
        enable_suspend=True,
        reserve_space_for_menu=0,
    )


def _entered(session: PromptSession[str], prompt: str) -> str | None:
    try:
        return session.prompt(prompt)
    except EOFError:
        return None


def _break_line(event: KeyPressEvent) -> None:
    event.current_buffer.insert_text("\n")


def open_input() -> ChatInput:
    """Return what reads standard input best."""
    if not sys.stdin.isatty():
        return Pipe()
    if not sys.stdout.isatty() or os.environ.get("TERM") in (None, "", "dumb"):
        return PlainTerminal()
    return EditingTerminal()
