"""How far a replay run has come, on standard error: a bar on a terminal, lines elsewhere."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Iterator
from typing import Any

import click

from afterword.producer.cli import render
from afterword.producer.cli.checks.finding import Finding
from afterword.producer.cli.terminal import echo, one_line
from afterword.shared.errors import LedgerUnavailable
from afterword.shared.ledger.dead_letter_records import ReplayOutcome, ReplayRun

_LINE_EVERY_S = 5.0


class Progress:
    """Prints a line at the start of a run, and one every few seconds."""

    def __init__(self) -> None:
        self.run = ""
        self._printed_s = float("-inf")
        self._advanced_s = float("inf")

    def __call__(self, run: ReplayRun) -> None:
        """Print how far a run is that has advanced."""
        self._advanced_s = now_s = asyncio.get_running_loop().time()
        if not self.run:
            what = "resumed" if run.left < run.dead_letters else "started"
            echo(f"run {run.id}: {what}; press Ctrl-C to abort it", err=True)
        if now_s - self._printed_s >= _LINE_EVERY_S:
            echo(f"run {run.id}: {render.replay_progress(run)}", err=True)
            self._printed_s = now_s
        self.run = run.id

    def stands_still(self, for_s: float) -> bool:
        """Return whether the run has begun and not advanced for so many seconds."""
        return asyncio.get_running_loop().time() - self._advanced_s >= for_s

    def say(self, finding: Finding) -> None:
        """Print what holds the run up, and what to do."""
        echo(f"run {self.run}: held up by {finding.check}: {finding.detail}", err=True)
        echo(f"  -> {finding.remedy}", err=True)


class _Bar(Progress):
    """Shows a progress bar."""

    def __init__(self) -> None:
        super().__init__()
        self._bar: Any = None

    def __call__(self, run: ReplayRun) -> None:
        """Show how far a run is that has advanced."""
        self._advanced_s = asyncio.get_running_loop().time()
        if self._bar is None:
            self._bar = click.progressbar(
                length=run.dead_letters, label=one_line(run.id), file=sys.stderr
            )
        self.run = run.id
        done = run.dead_letters - run.left - run.outcomes.get(ReplayOutcome.WAITING, 0)
        self._bar.update(done - self._bar.pos, render.counts(run.outcomes))

    def say(self, finding: Finding) -> None:
        """Print it below the bar, which goes on below that."""
        echo(err=True)
        super().say(finding)

    def close(self) -> None:
        """End the line of the bar."""
        if self._bar is not None:
            self._bar.render_finish()


@contextlib.contextmanager
def progress_of(*, quiet: bool) -> Iterator[Progress]:
    """Show progress meanwhile; if it is interrupted, print how to continue."""
    lines = _Bar() if sys.stderr.isatty() and not quiet else Progress()
    try:
        yield lines
    except (asyncio.CancelledError, LedgerUnavailable):
        if lines.run:
            echo(f"To continue: afterword dead resume {lines.run}", err=True)
        raise
    finally:
        if isinstance(lines, _Bar):
            lines.close()
