"""What memory is to store of the turns of a batch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from functools import partial

from afterword.shared.ledger.records import LaneClaim, WaitingTurn
from afterword.shared.ledger.turns import Turns
from afterword.shared.names import user_of
from afterword.shared.observer import emit_internal_error
from afterword.workers.kept_text import KeptText
from afterword.workers.memories.extraction_meters import ExtractionMeters
from afterword.workers.ports import Exchange, Turn
from afterword.workers.rules.batching import Batch

#: Most counts of secrets that are kept at a time, of batches that are being stored.
MOST_COUNTS = 1000


class TurnComposer:
    """Composes one turn out of a batch: what its user said, without the secrets in it.

    With `pins`, what is extracted from it is noted in its lane. `stored_by` names the worker.
    """

    def __init__(
        self,
        lanes: Turns,
        kept: KeptText,
        meters: ExtractionMeters,
        *,
        pins: bool,
        stored_by: str,
    ) -> None:
        self._lanes = lanes
        self._kept = kept
        self._meters = meters
        self._pins = pins
        self._stored_by = stored_by
        self._secrets: dict[tuple[str, str], Mapping[str, int]] = {}

    def turn_of(self, claim: LaneClaim, batch: Batch) -> Turn | None:
        """Return what is to be stored; None if the user said nothing of their own."""
        tenant = user_of(claim.lane)[0]
        secrets = Counter[str]()
        exchanges = [self._exchange(tenant, each, secrets) for each in batch]
        self._keep_count(claim, batch, secrets)
        said = [one for one in exchanges if one.user_text]
        if not said:
            return None
        turn, first, *others = batch[0], *said
        facts = self._facts(tenant, turn)
        alike = {each.conversation_id for each in batch} == {turn.conversation_id}
        return Turn(
            id=turn.id,
            user_text=first.user_text,
            reply_text=first.reply_text,
            at=turn.at,
            conversation_id=turn.conversation_id if alike else None,
            timezone=turn.timezone,
            attempt=claim.fence,
            stored_by=self._stored_by,
            facts=facts,
            note_facts=partial(self._note_facts, claim, turn.id) if self._pins else None,
            meter=self._meters.of(claim),
            followed_by=tuple(others),
            alone=turn.alone or turn.facts != facts,  # a batch would note the same
        )

    def secrets_in(self, claim: LaneClaim, batch: Batch) -> Mapping[str, int]:
        """Return how many secrets of each kind a batch holds.

        They are searched for once an attempt. If nobody can say, that is reported, and none are
        counted.
        """
        known = self._secrets.pop((claim.fence, batch[0].id), None)
        if known is not None:
            return known
        tenant, found = user_of(claim.lane)[0], Counter[str]()
        try:
            for each in batch:
                self._exchange(tenant, each, found)
        except Exception as error:  # noqa: BLE001 a redactor of the user's own may raise anything
            emit_internal_error(error)
        return found

    async def _note_facts(self, claim: LaneClaim, turn_id: str, facts: str) -> None:
        await self._lanes.record_facts(claim, turn_id, facts, paid=self._meters.paid(claim))

    def _exchange(self, tenant: str, turn: WaitingTurn, secrets: Counter[str]) -> Exchange:
        """Return what is kept of a turn, and count the secrets in it."""
        said = self._kept.of_message(tenant, turn.user_text)
        reply = self._kept.without_secrets(tenant, turn.reply_text)
        secrets.update(said.found)
        secrets.update(reply.found)
        return Exchange(said.text, reply.text)

    def _keep_count(self, claim: LaneClaim, batch: Batch, secrets: Mapping[str, int]) -> None:
        """Keep a count until the batch is settled; one that fails leaves its own, up to a bound."""
        if len(self._secrets) >= MOST_COUNTS:
            del self._secrets[next(iter(self._secrets))]
        self._secrets[claim.fence, batch[0].id] = secrets

    def _facts(self, tenant: str, turn: WaitingTurn) -> str:
        """Return the facts that an earlier attempt noted, unless it had read a secret."""
        if not self._pins or self._kept.without_secrets(tenant, turn.facts).text != turn.facts:
            return ""
        return turn.facts
