"""The command that installs an extra leads to where the distribution came from."""

from __future__ import annotations

import json
from importlib.metadata import Distribution
from pathlib import Path

import pytest

from afterword.shared import installation
from afterword.shared.installation import install_command

WHEEL = "afterword-0.1.0-py3-none-any.whl"


@pytest.fixture
def noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the file in which an installer notes where a distribution came from."""
    (tmp_path / "METADATA").write_text("Name: afterword\n")
    found = Distribution.at(tmp_path)
    monkeypatch.setattr(installation, "distribution", lambda _: found)
    return tmp_path / "direct_url.json"


def test_from_an_index_the_name_is_enough(noted: Path) -> None:
    assert not noted.exists()
    assert install_command("embedded") == "pip install 'afterword[embedded]'"


@pytest.mark.parametrize(
    ("origin", "command"),
    [
        (
            {"url": "https://h/a.git", "vcs_info": {"vcs": "git", "commit_id": "1a"}},
            "pip install 'afterword[workers] @ git+https://h/a.git@1a'",
        ),
        (
            {"url": f"https://h/{WHEEL}", "archive_info": {}},
            f"pip install 'afterword[workers] @ https://h/{WHEEL}'",
        ),
        (
            {"url": f"file:///gone/{WHEEL}", "archive_info": {}},
            f"pip install '{WHEEL}[workers]'",
        ),
    ],
)
def test_from_elsewhere_it_says_where(noted: Path, origin: dict[str, object], command: str) -> None:
    noted.write_text(json.dumps(origin))
    assert install_command("workers") == command


def test_a_wheel_that_is_still_there_is_named_with_its_folder(noted: Path, tmp_path: Path) -> None:
    wheel = tmp_path / "my wheels" / WHEEL
    wheel.parent.mkdir()
    wheel.touch()
    noted.write_text(json.dumps({"url": wheel.as_uri(), "archive_info": {}}))
    assert install_command("workers") == f"pip install '{wheel}[workers]'"


@pytest.mark.parametrize(("editable", "option"), [(True, "--editable "), (False, "")])
def test_a_folder_is_installed_as_it_was(
    noted: Path, tmp_path: Path, editable: bool, option: str
) -> None:
    origin = {"url": tmp_path.as_uri(), "dir_info": {"editable": editable}}
    noted.write_text(json.dumps(origin))
    assert install_command("workers") == f"pip install {option}'{tmp_path}[workers]'"
