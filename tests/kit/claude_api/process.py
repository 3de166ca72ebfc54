"""The Claude stand-in in a process of its own, for tests with real workers."""

from __future__ import annotations

import json
import urllib.request
from dataclasses import asdict
from typing import Any

from tests.kit.claude_api.scripted_answers import ClaudeAnswer
from tests.kit.servers.stand_in_process import StandInProcess


class ClaudeProcess(StandInProcess):
    """Starts the stand-in, scripts it and reads what it was asked."""

    module = "tests.kit.claude_api.server"

    def will_answer(self, *answers: ClaudeAnswer) -> None:
        """Add to the script."""
        self.order(answers=[asdict(play) for play in answers])

    def forget(self) -> None:
        """Drop the script and the requests so far."""
        self.order(forget=True)

    def will_only_answer(self, *answers: ClaudeAnswer) -> None:
        """Drop the script and begin another at once: no request finds none in between."""
        self.order(forget=True, answers=[asdict(play) for play in answers])

    def release(self, count: int | None = None) -> None:
        """Let held answers go on."""
        self.order(release=count)

    def end_batches(self) -> None:
        """Let all message batches end, with an answer to each request."""
        self.order(end_batches=True)

    def held(self) -> int:
        """Return how many answers wait for a release."""
        return int(self.order()["held"])

    def in_flight(self) -> int:
        """Return how many answers are under way."""
        return int(self.order()["in_flight"])

    def abandoned(self) -> int:
        """Return how many answers lost their reader before the end."""
        return int(self.order()["abandoned"])

    def requests(self) -> list[dict[str, Any]]:
        """Return every request so far: `path`, `headers`, `body`."""
        with urllib.request.urlopen(f"{self.url}/_requests", timeout=60) as answer:
            requests: list[dict[str, Any]] = json.load(answer)
        return requests
