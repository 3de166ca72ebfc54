"""What reaches a terminal: text whose every character can be seen.

Texts of users and models may hold escape sequences, which move the cursor, forge lines or set the
window's title, and characters that reverse or hide what follows. Every command prints through
`echo`, to a terminal, a file or a pipe alike.
"""

from __future__ import annotations

import errno
import json
import os
import unicodedata
from collections.abc import Callable
from typing import Any, Self

import click

#: Kept although `str.isprintable` says no: line breaks, tabs, and what joins letters and emoji.
_KEPT = frozenset("\t\u200c\u200d")


class OutputFailed(Exception):
    """What a command prints cannot be written, such as to a file on a full disk."""


def echo(text: object = "", *, err: bool = False, nl: bool = True) -> None:
    """Print a text of one or more lines; raises `OutputFailed`, unless its reader is gone."""
    try:
        click.echo(visible(str(text)), err=err, nl=nl)  # noqa: TID251 the one place
    except OSError as error:
        if error.errno == errno.EPIPE:
            raise  # as with `head`: click ends the command without a word
        raise OutputFailed(os.strerror(error.errno or errno.EIO)) from None


class WaitingMark:
    """Dots on a terminal while nothing else is printed; on one that cannot erase them, nothing."""

    def __init__(self, *, can_erase: bool = False) -> None:
        self._can_erase = can_erase
        self._shown = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.hide()

    def show(self) -> None:
        """Print the dots at the beginning of a line, unless they are there."""
        if self._can_erase and not self._shown:
            click.echo("...", nl=False)  # noqa: TID251 no text of anybody's
            self._shown = True

    def hide(self) -> None:
        """Take the dots away, if they are there."""
        if self._shown:
            click.echo("\r\x1b[K", nl=False)  # noqa: TID251 no text of anybody's
            self._shown = False


def json_text(value: Any, *, indent: int | None = None) -> str:
    """Return plain values as JSON; characters that cannot be seen are escaped as JSON does it."""
    return json_escaped(json.dumps(value, ensure_ascii=False, indent=indent))


def json_escaped(text: str) -> str:
    """Return JSON that means the same, with characters that cannot be seen escaped."""
    return _replaced(text, lambda one: json.dumps(one)[1:-1])


def visible(text: str) -> str:
    r"""Return a text with what cannot be seen as `\x1b` or `\u202e`; lines and tabs stay."""
    return _replaced(text, _escaped)


def one_line(text: str) -> str:
    r"""Return the same for a text that must not begin another line: line breaks become `\n`."""
    return visible(text).replace("\n", r"\n").replace("\t", r"\t")


def indented(text: str) -> str:
    """Return the same with its lines below the first indented, so that none looks like a field."""
    return visible(text).replace("\n", "\n    ")


def _replaced(text: str, escaped: Callable[[str], str]) -> str:
    return "\n".join(
        line
        if line.isprintable()
        else "".join(one if _can_be_seen(one) else escaped(one) for one in line)
        for line in text.split("\n")
    )


def _can_be_seen(one: str) -> bool:
    return one.isprintable() or one in _KEPT or unicodedata.category(one) == "Zs"


def _escaped(one: str) -> str:
    return one.encode("unicode_escape", "surrogatepass").decode("ascii")


def tell_of_dry_run(to: str, *, option: str = "--apply", err: bool = False) -> None:
    """Say that nothing was changed, and with which option the command does it."""
    echo(f"Nothing was changed. Add {option} to {to}.", err=err)
