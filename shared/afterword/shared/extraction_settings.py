"""When memories are extracted, and whether that is kept."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from afterword.shared.setting_record import Record
from afterword.shared.setting_types import PositiveSeconds


class ExtractionSettings(Record):
    """When the memory backend `selfhosted` extracts what a turn says."""

    extraction: Literal["now", "batch"] = Field(
        "now",
        description="`batch`: `selfhosted` extracts in Anthropic's message batches, at half the "
        "price and with rate limits of their own; memories come up to a day later",
    )
    extraction_gather_s: PositiveSeconds = Field(
        60.0, description="seconds for which a worker gathers what it sends as one message batch"
    )
    pin_extraction: bool = Field(
        default=True,
        description="`selfhosted` keeps what it extracted in the ledger until the turn is stored, "
        "so that another attempt does not pay for it again",
    )
