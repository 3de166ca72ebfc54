"""A door whose answers count only once replicas have what was written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from afterword.shared.errors import NotReplicated
from afterword.shared.transport.connection import Answered, Command
from afterword.shared.transport.pipeline import Pipeline

#: Of the patience: there is time for two, since a call may come while the pipeline before it waits,
#: or before Redis knows the script.
_SHARE = 0.4


class ReplicatedPipeline(Pipeline):
    """Ends each pipeline with one `WAIT`, so that many submits wait for their replicas together.

    Raises `NotReplicated` for what Redis did but too few replicas have confirmed in time.
    """

    def __init__(self, url: str, *, patience_s: float, replicas: int, channel: str) -> None:
        """Take how many replicas must confirm, and a channel that nobody listens to."""
        super().__init__(url, patience_s=patience_s)
        self._replicas = replicas
        # `WAIT` counts from this connection's own last write, and a step that finds everything
        # done writes nothing. A message is replicated like a write, and leaves nothing behind.
        self._write = ("PUBLISH", channel, "")
        self._wait = ("WAIT", replicas, round(patience_s * _SHARE * 1000))

    def _exchange(self, commands: Sequence[Command], answered: Answered) -> None:
        asked = [*commands, self._write, self._wait]
        super()._exchange(asked, lambda replies: answered(self._confirmed(replies)))

    def _confirmed(self, replies: Sequence[Any]) -> list[Any]:
        *replies, _, confirmed = replies
        if isinstance(confirmed, Exception):  # by its end the pipeline was broken
            return [confirmed] * len(replies)
        if confirmed >= self._replicas:
            return replies
        error = NotReplicated(
            f"AFTERWORD_REPLICAS: {confirmed} of {self._replicas} replicas confirmed in time; "
            "it may have been accepted: send it again with the same idempotency key"
        )
        return [one if isinstance(one, Exception) else error for one in replies]
