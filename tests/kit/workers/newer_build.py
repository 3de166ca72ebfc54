"""Lets a process be a build of the next record version, as it will be some day."""

from __future__ import annotations

import sys
from types import ModuleType

from afterword.shared import contracts

NEWER_VERSION = contracts.RECORD_VERSION + 1


def modules_that_know_a_version() -> list[ModuleType]:
    """Return the modules of ours that have the record version by its name."""
    ours = [module for name, module in sys.modules.items() if name.startswith("afterword.")]
    return [module for module in ours if hasattr(module, "RECORD_VERSION")]


def become_newer() -> None:
    """Know the next record version in every module that was imported."""
    for module in modules_that_know_a_version():
        vars(module)["RECORD_VERSION"] = NEWER_VERSION
