"""How far a replay run has come, on standard error: a bar on a terminal, lines elsewhere."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Iterator
from typing import Any

import click

from afterword.producer.admin.replay_driver import ProgressCallback
from afterword.producer.cli import render
from afterword.producer.cli.terminal import echo, one_line
from afterword.shared.errors import LedgerUnavailable
from afterword.shared.ledger.dead_letter_records import ReplayOutcome, ReplayRun

_LINE_EVERY_S = 5.0


class _Lines:
    """Prints a line at the start of a run, and one every few seconds."""

    def __init__(self) -> None:
        self.run = ""
        self._printed_s = float("-inf")

    def __call__(self, run: ReplayRun) -> None:
        now_s = asyncio.get_running_loop().time()
        if not self.run:
            echo(f"run {run.id}: started; press Ctrl-C to abort it", err=True)
        if now_s - self._printed_s >= _LINE_EVERY_S:
            echo(f"run {run.id}: {render.replay_progress(run)}", err=True)
            self._printed_s = now_s
        self.run = run.id


class _Bar(_Lines):
    """Shows a progress bar."""

    def __init__(self) -> None:
        super().__init__()
        self._bar: Any = None

    def __call__(self, run: ReplayRun) -> None:
        if self._bar is None:
            self._bar = click.progressbar(
                length=run.dead_letters, label=one_line(run.id), file=sys.stderr
            )
        self.run = run.id
        done = run.dead_letters - run.left - run.outcomes.get(ReplayOutcome.WAITING, 0)
        self._bar.update(done - self._bar.pos, render.counts(run.outcomes))

    def close(self) -> None:
        """End the line of the bar."""
        if self._bar is not None:
            self._bar.render_finish()


@contextlib.contextmanager
def progress_of(*, quiet: bool) -> Iterator[ProgressCallback]:
    """Show progress meanwhile; if it is interrupted, print how to continue."""
    lines = _Bar() if sys.stderr.isatty() and not quiet else _Lines()
    try:
        yield lines
    except (asyncio.CancelledError, LedgerUnavailable):
        if lines.run:
            echo(f"To continue: afterword dead resume {lines.run}", err=True)
        raise
    finally:
        if isinstance(lines, _Bar):
            lines.close()
