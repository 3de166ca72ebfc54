"""Counts what writes that are under way pay for the extraction of facts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from afterword.shared.contracts import Usage
from afterword.shared.events import ExtractionPaid, tokens_told
from afterword.shared.ledger.records import LaneClaim
from afterword.shared.ledger.spending import ExtractionCost
from afterword.shared.observer import emit
from afterword.shared.prices import Prices, micro_usd
from afterword.workers.rules.token_meter import NOTHING, TokenMeter


class ExtractionMeters:
    """A meter for each claimed lane: it stores one batch after the other.

    `prices` come before the list prices of models.
    """

    def __init__(self, prices: Prices) -> None:
        self._prices = prices
        self._meters: dict[str, TokenMeter] = {}

    @contextmanager
    def measuring(self, claim: LaneClaim) -> Iterator[None]:
        """Count for one batch while the context is open, then tell what each call used."""
        meter = self._meters[claim.fence] = TokenMeter()
        try:
            yield
        finally:
            del self._meters[claim.fence]
            for model, usage in meter.calls:
                if usage != NOTHING:
                    emit_paid(model, usage)

    def of(self, claim: LaneClaim) -> TokenMeter:
        """Return the meter of the batch that is being stored."""
        return self._meters[claim.fence]

    def paid(self, claim: LaneClaim) -> ExtractionCost | None:
        """Return what the batch has cost in this attempt so far; None if that is nothing."""
        meter = self._meters.get(claim.fence)
        if meter is None or meter.unanswered == NOTHING:
            return None
        return ExtractionCost(meter.unanswered, micro_usd(meter.calls, self._prices))


def emit_paid(model: str, usage: Usage, *, in_batch: bool = False) -> None:
    """Tell what one call of a model used to extract facts."""
    emit(
        ExtractionPaid,
        model=model,
        **tokens_told(usage),
        in_batch=in_batch,
    )
