"""An environment in which our wheel is installed, as a user has it."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from collections.abc import Iterator
from importlib.metadata import Distribution, distribution
from pathlib import Path

from packaging.requirements import Requirement


def make_environment(folder: Path, wheel: Path, *extras: str) -> Path:
    """Make an environment with the wheel and what it requires with these extras; return its Python.

    The requirements are linked from the environment of the tests, which spares the network and
    most of the time. What the wheel does not require is not there.
    """
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(packages)
    for required in _closure(next(packages.glob("afterword-*.dist-info")), set(extras)):
        link(required, packages)
    return folder / "bin" / "python"


def _closure(dist_info: Path, extras: set[str]) -> list[Distribution]:
    """Return what a distribution requires, and what that requires, and so on."""
    found: dict[tuple[str, ...], Distribution] = {}
    todo = list(_required(Distribution.at(dist_info), extras))
    while todo:
        requirement = todo.pop()
        wanted = (requirement.name, *sorted(requirement.extras))
        if wanted not in found:
            found[wanted] = distribution(requirement.name)
            todo += _required(found[wanted], requirement.extras)
    return list(found.values())


def _required(dist: Distribution, extras: set[str]) -> Iterator[Requirement]:
    for requirement in map(Requirement, dist.requires or []):
        environments = [{"extra": extra} for extra in ("", *extras)]
        if requirement.marker is None or any(map(requirement.marker.evaluate, environments)):
            yield requirement


def link(dist: Distribution, packages: Path) -> None:
    """Put a distribution into an environment, by links."""
    for top in {path.parts[0] for path in dist.files or ()} - {"..", "__pycache__"}:
        target = Path(str(dist.locate_file(top)))
        if not (packages / top).exists():
            (packages / top).symlink_to(target)
