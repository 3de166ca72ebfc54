"""Discovery: a stack that runs is found, one that is gone is not believed."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from afterword.shared.discovery import RECORD, SOCKET, running_stack, settings_in_use
from afterword.shared.errors import Misconfigured
from tests.kit.fuzz.broken import Broken, broken
from tests.kit.fuzz.doors import door

SERVED = {"AFTERWORD_REDIS_URL": "unix:///run/valkey.sock", "ANTHROPIC_API_KEY": "local"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "run").mkdir()
    return tmp_path


@pytest.fixture
def stack(folder: Path) -> Iterator[Path]:
    """Give the folder of a stack that listens and has said what it serves."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(folder / SOCKET))
        server.listen()
        record = {"env": SERVED, "socket": str(folder / SOCKET)}
        (folder / RECORD).write_text(json.dumps(record))
        yield folder


def test_a_running_stack_says_what_it_serves(stack: Path) -> None:
    assert running_stack(stack) == SERVED


def test_an_empty_folder_has_none(tmp_path: Path) -> None:
    assert running_stack(tmp_path) is None


@pytest.mark.parametrize("address", ["gone.sock", None])
def test_a_record_without_anyone_behind_it_is_not_believed(
    folder: Path, address: str | None
) -> None:
    place = None if address is None else str(folder / address)
    (folder / RECORD).write_text(json.dumps({"env": SERVED, "socket": place}))

    assert running_stack(folder) is None


def test_a_socket_that_nobody_listens_on_is_not_believed(folder: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(folder / SOCKET))
    record = {"env": SERVED, "socket": str(folder / SOCKET)}
    (folder / RECORD).write_text(json.dumps(record))

    assert running_stack(folder) is None


def test_a_record_that_is_no_json_is_a_wrong_folder(folder: Path) -> None:
    (folder / RECORD).write_text("half a rec")

    with pytest.raises(Misconfigured) as caught:
        running_stack(folder)
    assert caught.value.setting == "AFTERWORD_DATA_DIR"


@pytest.mark.finding(18)
def test_a_record_of_someone_else_is_refused(stack: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (stack / RECORD).chmod(0o666)
    with pytest.raises(Misconfigured, match="belongs to someone else"):
        running_stack(stack)
    (stack / RECORD).rename(stack / "theirs")
    (stack / RECORD).symlink_to(stack / "theirs")
    with pytest.raises(Misconfigured, match="AFTERWORD_DATA_DIR"):
        running_stack(stack)


EXAMPLE = {"env": SERVED, "socket": "/run/stack.sock", "pid": 1, "services": {"valkey": 2}}


@door("records of a stack", record=broken(EXAMPLE))
def test_a_malformed_record_is_a_wrong_folder(
    tmp_path_factory: pytest.TempPathFactory, record: Broken
) -> None:
    folder = tmp_path_factory.getbasetemp()
    (folder / RECORD).parent.mkdir(exist_ok=True)
    (folder / RECORD).write_text(json.dumps(record.value))
    (folder / RECORD).chmod(0o600)
    try:
        assert running_stack(folder) is None
    except Misconfigured as error:
        assert error.setting == "AFTERWORD_DATA_DIR"  # noqa: PT017 both are fine


def test_a_ledger_that_is_named_is_used_whatever_runs(stack: Path) -> None:
    environ = {"AFTERWORD_DATA_DIR": str(stack), "AFTERWORD_REDIS_URL": "redis://elsewhere/0"}

    settings = settings_in_use(environ)

    assert settings.redis_url == "redis://elsewhere/0"
    assert settings.anthropic_api_key is None


def test_without_one_the_running_stack_is_used(stack: Path) -> None:
    settings = settings_in_use({"AFTERWORD_DATA_DIR": str(stack)})

    assert settings.redis_url == SERVED["AFTERWORD_REDIS_URL"]
    assert settings.anthropic_api_key is not None


def test_the_environment_wins_over_the_settings_of_the_stack(stack: Path) -> None:
    environ = {"AFTERWORD_DATA_DIR": str(stack), "ANTHROPIC_API_KEY": "mine"}

    key = settings_in_use(environ).anthropic_api_key

    assert key is not None
    assert key.get_secret_value() == "mine"


def test_with_neither_it_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured) as caught:
        settings_in_use({"AFTERWORD_DATA_DIR": str(tmp_path)})

    assert caught.value.setting == "AFTERWORD_REDIS_URL"
    assert "afterword up" in str(caught.value)
