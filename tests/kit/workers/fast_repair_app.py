"""The workers of `memory_fault_app`, which retry what an operator must fix every second."""

from __future__ import annotations

from afterword.workers.rules import retry_policy as policy
from tests.kit.workers.memory_fault_app import app

__all__ = ["app"]

policy.OPERATOR_PAUSE_S = 1.0
