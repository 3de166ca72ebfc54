"""The workers of `tests.standins.pliable`, who look every second whether what is ours is mended."""

from __future__ import annotations

from tests.standins.pliable import app
from workers import policy

__all__ = ["app"]

policy.OURS_PAUSE_S = 1.0
