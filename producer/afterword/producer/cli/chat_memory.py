"""The turns of a chat that are on their way into memory."""

from __future__ import annotations

import time

from afterword.producer.cli import render
from afterword.producer.cli.terminal import echo
from afterword.producer.client.sync_client import Job
from afterword.shared.lifecycle import TurnState

_LOOK_AGAIN_S = 0.1


class QueuedTurns:
    """Says once what has become of queued turns."""

    def __init__(self) -> None:
        self._jobs: list[Job] = []

    def add(self, job: Job) -> None:
        """Follow the turn of one more job."""
        self._jobs.append(job)

    def print_settled(self) -> None:
        """Look once, and say whether memory has changed since the last look."""
        seen = [(job, job.status()) for job in self._jobs]
        self._jobs = [job for job, status in seen if not status.turn.settled]
        if any(status.turn is TurnState.STORED for _, status in seen):
            echo("[Memories updated]")
        for _, status in seen:
            if status.turn is TurnState.DEAD:
                echo(f"[Not stored: {status.turn_code}; it is kept as a dead letter]")

    def wait(self, seconds: float) -> None:
        """Give the memory workers so much time, so that the next chat finds these turns."""
        give_up = time.monotonic() + seconds
        while any(not job.status().turn.settled for job in self._jobs):
            if time.monotonic() > give_up:
                break
            time.sleep(_LOOK_AGAIN_S)  # noqa: TID251 nothing announces that a turn is stored
        self.print_settled()
        if self._jobs:
            left = render.quantity(len(self._jobs), "turn")
            echo(f"[Not in memory yet: {left}; memory workers will store them]")
