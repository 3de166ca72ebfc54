"""A pipeline whose replies count only once replicas have what was written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from afterword.shared.errors import NotReplicated
from afterword.shared.transport.connection import Command, OnReplies
from afterword.shared.transport.pipeline import Pipeline

#: The share of `patience_s` that one `WAIT` may take: there must be time for two, since a command
#: may come while the one before it waits, or before Redis knows the script.
_SHARE = 0.4


class ReplicatedPipeline(Pipeline):
    """Ends each round trip with one `WAIT`, so that many submits wait for their replicas together.

    Raises `NotReplicated` for what Redis did but fewer than `replicas` have confirmed in time.
    `write` is a command that is replicated, and changes nothing that anyone reads.
    """

    def __init__(self, url: str, *, patience_s: float, replicas: int, write: Command) -> None:
        super().__init__(url, patience_s=patience_s)
        self._replicas = replicas
        # `WAIT` counts from this connection's own last write, and a script that finds its work done
        # writes nothing.
        self._write = write
        self._wait = ("WAIT", replicas, round(patience_s * _SHARE * 1000))

    def _send(self, commands: Sequence[Command], on_replies: OnReplies) -> None:
        all_commands = [*commands, self._write, self._wait]
        super()._send(all_commands, lambda replies: on_replies(self._confirmed(replies)))

    def _confirmed(self, replies: Sequence[Any]) -> list[Any]:
        *replies, _, confirmed = replies
        if isinstance(confirmed, Exception):  # the connection broke before its end, or a replica
            return [one if isinstance(one, Exception) else confirmed for one in replies]
        if confirmed >= self._replicas:
            return replies
        error = NotReplicated(
            f"AFTERWORD_REPLICAS: {confirmed} of {self._replicas} replicas confirmed in time; "
            "it may have been accepted: send it again with the same idempotency key"
        )
        return [one if isinstance(one, Exception) else error for one in replies]
