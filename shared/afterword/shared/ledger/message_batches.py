"""Message batches: which turns wait for one, and what is known of it at the provider."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from afterword.shared.ledger import message_batch_steps as steps
from afterword.shared.ledger.shard import Shards, milliseconds
from afterword.shared.ledger.spending import ExtractionCost, paid_argument
from afterword.shared.ledger.turns import LONGEST_WAIT_S
from afterword.shared.names import Keys, new_message_batch

#: Most message batches of one shard that are looked at, and most turns that one script touches.
MOST_LISTED, MOST_TURNS = 100, 50


@dataclass(frozen=True, slots=True)
class OpenMessageBatch:
    """One message batch; `provider_id` is '' while it is not known to be sent.

    `turns` of it still wait. `not_ours` are batches of the provider that were looked at and are
    others. If it is `claimed`, the caller looks what became of it, and nobody else meanwhile. One
    without turns is only to be deleted at the provider.
    """

    name: str
    provider_id: str
    not_ours: tuple[str, ...]
    age_s: float
    turns: int
    claimed: bool = False


class MessageBatches:
    """Opens, follows and closes message batches; each has turns of one shard only.

    A turn is in one batch at most, so that it is paid for once. Every step can be repeated.
    """

    def __init__(self, shards: Shards) -> None:
        self._shards = shards

    def new_name(self, shard: int) -> str:
        """Return the name of a batch for turns of that shard."""
        return new_message_batch(shard)

    async def open(self, name: str, ids: Sequence[str], look_s: float) -> Sequence[str]:
        """Record that a batch is about to be sent; return which of the turns are in it.

        Unless more is noted within `look_s` seconds, somebody looks whether it was sent.
        """
        taken: list[str] = []
        for at in range(0, len(ids), MOST_TURNS):
            arguments = steps.OpenMessageBatch(
                batch=name,
                look_ms=milliseconds(look_s),
                wait_ms=milliseconds(LONGEST_WAIT_S),
                ids=ids[at : at + MOST_TURNS],
            )
            (found,) = await self._shards.run_script(self._shards.keys_of(name), arguments)
            taken += found
        return taken

    async def note(
        self, name: str, provider_id: str, look_s: float, not_ours: Sequence[str] = ()
    ) -> None:
        """Note the provider's id of a batch, '' if none is known, and when to look again."""
        await self._shards.run_for_word(
            steps.NoteMessageBatch(
                batch=name,
                provider=provider_id,
                not_ours=" ".join(not_ours),
                look_ms=milliseconds(look_s),
            )
        )

    async def claim_due(self, lease_s: float) -> Sequence[OpenMessageBatch]:
        """Return all batches; those that are due are claimed for that long."""
        found: list[OpenMessageBatch] = []
        for keys in self._shards.all:
            if batches := await self._list(keys):
                arguments = steps.TakeMessageBatches(
                    lease_ms=milliseconds(lease_s), limit=MOST_LISTED
                )
                (names,) = await self._shards.run_script(keys, arguments)
                found += [replace(one, claimed=one.name in names) for one in batches]
        return found

    async def all(self) -> Sequence[OpenMessageBatch]:
        """Return all batches that have turns, or are still to be deleted at the provider."""
        return [one for keys in self._shards.all for one in await self._list(keys)]

    async def answer(
        self, name: str, turn_id: str, facts: str, paid: ExtractionCost | None = None
    ) -> str | None:
        """Record what was extracted from a turn, and wake its lane; '' if that cannot be used.

        `paid` is counted for the turn. Returns the tenant of the turn; None if the turn is not in
        the batch any more.
        """
        arguments = steps.AnswerFromMessageBatch(
            batch=name,
            id=turn_id,
            facts=facts,
            paid=paid_argument(paid, self._shards.settings),
        )
        _, *tenant = await self._shards.run_script(self._shards.keys_of(name), arguments)
        return str(tenant[0]) if tenant else None

    async def close(
        self, name: str, *, alone: bool, delay_s: float = 0.0, kept: bool = False
    ) -> None:
        """Forget a batch. Turns that are left are extracted `alone`, or by the next batch.

        With `kept`, it stays listed without turns: the provider has it still.
        """
        arguments = steps.CloseMessageBatch(
            batch=name, alone=alone, delay_ms=round(delay_s * 1000), kept=kept, limit=MOST_TURNS
        )
        while await self._shards.run_for_word(arguments) == "more":
            pass

    async def _list(self, keys: Keys) -> Sequence[OpenMessageBatch]:
        arguments = steps.ListMessageBatches(limit=MOST_LISTED)
        (rows,) = await self._shards.run_script(keys, arguments)
        return [_batch(row) for row in rows]


def _batch(row: Sequence[Any]) -> OpenMessageBatch:
    name, provider_id, not_ours, age_ms, turns = row
    others, age_s = tuple(not_ours.split()), int(age_ms) / 1000
    return OpenMessageBatch(name, provider_id, others, age_s, int(turns))
