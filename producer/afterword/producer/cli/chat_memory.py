"""The turns of a chat that are on their way into memory."""

from __future__ import annotations

import time
from collections.abc import Sequence

from afterword.producer.cli.chat_output import nothing_to_remember
from afterword.producer.cli.terminal import echo
from afterword.producer.client.sync_client import Job
from afterword.shared.contracts import JobStatus
from afterword.shared.errors import JobNotFound, LedgerUnavailable
from afterword.shared.lifecycle import TurnState
from afterword.shared.plurals import quantity

_LOOK_AGAIN_S = 0.1

#: How long the end of a chat may wait without a word.
_SILENT_S = 1.0


class QueuedTurns:
    """Says once what has become of queued turns."""

    def __init__(self) -> None:
        self._jobs: list[Job] = []

    def add(self, job: Job) -> None:
        """Follow the turn of one more job."""
        self._jobs.append(job)

    def print_settled(self) -> None:
        """Look once, and say whether memory has changed since the last look."""
        self._print(self._look())

    def _print(self, seen: Sequence[JobStatus]) -> None:
        if any(status.turn is TurnState.STORED for status in seen):
            echo("[Memories updated]")
        for status in seen:
            if status.turn is TurnState.DEAD:
                echo(f"[Not stored: {status.turn_code}; it is kept as a dead letter]")
            elif status.turn is TurnState.NOTHING:
                echo(f"[{nothing_to_remember(status.turn_code or '')}]")

    def _look(self) -> list[JobStatus]:
        """Return the status of each turn that is settled, and follow only the others.

        One whose job is gone is followed no more; while Redis is away, all are.
        """
        followed, self._jobs, settled = self._jobs, [], []
        for job in followed:
            try:
                status = job.status()
            except JobNotFound:
                continue
            except LedgerUnavailable:
                self._jobs.append(job)
                continue
            if status.turn.settled:
                settled.append(status)
            else:
                self._jobs.append(job)
        return settled

    def wait(self, seconds: float) -> None:
        """Give the memory workers so much time, so that the next chat finds these turns."""
        began = time.monotonic()
        told, seen = False, self._look()
        while self._jobs and time.monotonic() < began + seconds:
            if not told and time.monotonic() > began + _SILENT_S:
                echo("[Storing what you said; Ctrl-C does not wait for it]", err=True)
                told = True
            time.sleep(_LOOK_AGAIN_S)  # noqa: TID251 nothing announces that a turn is stored
            seen += self._look()
        self._print(seen)
        if self._jobs:
            left = quantity(len(self._jobs), "turn")
            echo(f"[Not in memory yet: {left}; memory workers will store them]")
