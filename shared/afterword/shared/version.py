"""The version, told by the code itself: a checkout that is not installed has one too."""

from __future__ import annotations

__version__ = "0.1.0"
