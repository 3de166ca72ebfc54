"""The programs of `examples/`, as a user would start them, and workers that answer them."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from afterword.workers.local_stack.model_server import DEFAULTS
from tests.conftest import ROOT
from tests.kit.workers.fleet import MEMORY_FAULT_APP, Fleet

EXAMPLES = ROOT / "examples"
SECRET_KEY = "a secret of these tests"


@pytest.fixture(scope="session")
def fleet() -> Iterator[Fleet]:
    """Give real workers of both kinds, shared by all tests of examples.

    They recall as those of the local stack do, so that a chat looks as there.
    """
    least = DEFAULTS["recall_min_score"]
    with Fleet(SECRET_KEY=SECRET_KEY, AFTERWORD_RECALL_MIN_SCORE=least) as fleet:
        fleet.start("responses", "memories", app=MEMORY_FAULT_APP)
        yield fleet


@pytest.fixture(scope="module")
def environment(fleet: Fleet) -> Iterator[None]:
    """Give this process the settings of the fleet, for examples that are imported.

    For a module and no longer: other tests run in this process afterwards.
    """
    with pytest.MonkeyPatch.context() as patch:
        for name, value in fleet.variables.items():
            patch.setitem(os.environ, name, value)
        yield


def load(name: str, folder: Path = EXAMPLES) -> ModuleType:
    """Import one example, or another program, by its name."""
    spec = importlib.util.spec_from_file_location(name, folder / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # Django and dataclasses look for a module by its name
    spec.loader.exec_module(module)
    return module
