"""The workers of the next record version: they take what those of today hold."""

from __future__ import annotations

from afterword.workers.app import app
from tests.kit.workers.newer_build import become_newer

__all__ = ["app"]

become_newer()
