"""What is known of a provider's rate limit, and of what is reserved of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

#: What a rate limit counts; `tokens` are input and output together.
Part: TypeAlias = Literal["requests", "input", "output", "tokens"]


@dataclass(frozen=True, slots=True)
class QuotaLevel:
    """What one part of a rate limit has left; all of it refills within `refill_s` seconds."""

    part: Part
    limit: int
    remaining: int
    refill_s: float = 60.0


@dataclass(frozen=True, slots=True)
class Reserved:
    """A call that was admitted: its number, its slot, and which share of the limit is left."""

    number: int
    slot: str
    left: float


@dataclass(frozen=True, slots=True)
class Refused:
    """A call that was not admitted, and when to ask again, in seconds."""

    retry_after_s: float


@dataclass(frozen=True, slots=True)
class QuotaChange:
    """What is no longer open of the reservations of a slot, and what of it was not used."""

    slot: str
    part: Part
    less: int
    back: int
