"""The workers of `tests.standins.pliable`, who look every second whether what is ours is mended."""

from __future__ import annotations

from afterword.workers.rules import retry_policy as policy
from tests.standins.pliable import app

__all__ = ["app"]

policy.OPERATOR_PAUSE_S = 1.0
