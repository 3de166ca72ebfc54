"""Past turns, which were answered elsewhere, on their way into memory."""

from __future__ import annotations

import hashlib
from enum import StrEnum

from afterword.shared.contracts import ChatRequest, Reply, Timings, Usage
from afterword.shared.history import HistoryTurn
from afterword.shared.ledger import steps
from afterword.shared.ledger.shard import Shards, milliseconds
from afterword.shared.names import lane_id, memory_key, new_job_id, shard_of

#: How long it is known of a user which turns were imported, after the last of them.
KEYS_S = 90 * 24 * 3600.0

#: How many turns of a tenant may wait in one shard before an import waits for them.
MOST_WAITING = 500

#: What stands in the place of the model of a reply that no worker made.
IMPORTED = "imported"


class ImportOutcome(StrEnum):
    """What became of one past turn."""

    NEW = "new"
    """It is in its user's lane."""

    SAME = "same"
    """It was imported before."""

    WAIT = "wait"
    """Nothing was written: too many turns are to be stored first."""

    ERASED = "erased"
    """Nothing was written: its user is about to be erased."""


class Imports:
    """Puts past turns into the lanes of their users, each once."""

    def __init__(self, shards: Shards) -> None:
        self._shards = shards

    async def add(self, turn: HistoryTurn) -> ImportOutcome:
        """Import one turn; repeat it after `WAIT`, or if the ledger gave no answer."""
        owner = memory_key(turn.tenant, turn.user_id)
        shard = shard_of(owner, self._shards.settings.shards)
        job_id, request = new_job_id(shard), turn.request()
        arguments = steps.ImportTurn(
            id=job_id,
            lane=lane_id(owner, shard),
            tenant=turn.tenant,
            version=request.record_version,
            body=request.body(),
            reply=_reply(job_id, request, turn.reply or "").model_dump_json(),
            key=_key(turn),
            key_ms=milliseconds(KEYS_S),
            limit=MOST_WAITING,
        )
        return ImportOutcome(await self._shards.run_for_word(arguments))


def _reply(job_id: str, request: ChatRequest, text: str) -> Reply:
    return Reply(
        job_id=job_id,
        user_id=request.user_id,
        conversation_id=request.conversation_id,
        text=text,
        stop_reason=IMPORTED,
        model=IMPORTED,
        usage=Usage(),
        memory="off",
        attempts=0,
        timings_ms=Timings(queued=0, recall=0, model=0, total=0),
    )


def _key(turn: HistoryTurn) -> str:
    """Return what tells a turn from the others of its user: its key, or all that it says."""
    said = f"key {turn.key}" if turn.key is not None else turn.model_dump_json()
    return hashlib.sha256(said.encode()).hexdigest()[:32]
