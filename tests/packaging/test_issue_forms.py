"""The issue forms are what GitHub accepts, by the schemas that `check-jsonschema` ships."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.conftest import ROOT

FOLDER = ROOT / ".github/ISSUE_TEMPLATE"
FORMS = sorted(path.name for path in FOLDER.glob("*.yml") if path.name != "config.yml")


@pytest.mark.parametrize(
    ("schema", "names"), [("issue-forms", FORMS), ("issue-config", ["config.yml"])]
)
def test_the_forms_are_valid(schema: str, names: list[str]) -> None:
    check = [sys.executable, "-m", "check_jsonschema"]
    check += ["--builtin-schema", f"vendor.github-{schema}"]
    files = [str(FOLDER / name) for name in names]
    ended = subprocess.run([*check, *files], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
