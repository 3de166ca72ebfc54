"""What a user gets: the distribution, built once from this tree, and a stack that runs."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from afterword.shared.settings import Settings
from tests.conftest import ROOT


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the wheel of this tree, which is built once even if several processes run tests."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    folder = shared / "wheel"
    with (shared / "wheel.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            _build(folder)
    (built,) = folder.glob("*.whl")
    return built


def _build(folder: Path) -> None:
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder)]
    ended = subprocess.run([*build, str(ROOT)], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Run the embedded stack that the code in our documents meets; give the way to it."""
    from afterword.workers.local_stack.client import attach

    here = {"AFTERWORD_DATA_DIR": str(tmp_path_factory.mktemp("data"))}
    # Replies are cut short: what a document shows is how to ask, not what a small model says. None
    # is without memory because a busy machine searches slowly: `status` would have another line.
    unhurried = {"AFTERWORD_MAX_TOKENS": "24", "AFTERWORD_RECALL_BUDGET_MS": "30000"}
    with attach(Settings.load(here | unhurried)):
        yield here
