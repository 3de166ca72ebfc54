"""The data folder: private, or refused."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from afterword.shared.errors import Misconfigured
from afterword.workers.local_stack import data_dir as module
from afterword.workers.local_stack.data_dir import MAX_SOCKET_PATH, Folder

REFUSED = "^AFTERWORD_DATA_DIR: .*"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def deep(tmp_path: Path) -> Iterator[Folder]:
    """A folder whose own path is too long for a socket."""
    folder = Folder(tmp_path / ("d" * MAX_SOCKET_PATH))
    yield folder
    shutil.rmtree(folder.sockets, ignore_errors=True)


def test_everything_is_made_for_our_eyes_only(tmp_path: Path) -> None:
    folder = Folder.open(tmp_path / "far" / "away")
    for path in (folder.root, folder.valkey, folder.memory, folder.run, folder.logs):
        assert mode(path) == 0o700


def test_opening_again_changes_nothing(tmp_path: Path) -> None:
    (Folder.open(tmp_path / "f").valkey / "kept").touch()
    assert (Folder.open(tmp_path / "f").valkey / "kept").exists()


def test_a_relative_folder_stays_where_it_was_meant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert Folder.open(Path("here")).root == tmp_path / "here"


@pytest.mark.parametrize("part", [".", "valkey", "run"])
@pytest.mark.parametrize("open_to", [0o720, 0o702])
def test_a_folder_that_others_may_write_to_is_refused(
    tmp_path: Path, part: str, open_to: int
) -> None:
    folder = Folder.open(tmp_path / "f")
    (folder.root / part).chmod(open_to)
    with pytest.raises(Misconfigured, match=REFUSED + "written to by others"):
        Folder.open(folder.root)


def test_a_folder_of_someone_else_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Folder.open(tmp_path / "f")
    monkeypatch.setattr(os, "geteuid", lambda: folder.root.stat().st_uid + 1)
    with pytest.raises(Misconfigured, match=REFUSED + "belongs to another user"):
        Folder.open(folder.root)


def test_a_file_in_its_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    with pytest.raises(Misconfigured, match=REFUSED + "cannot be used"):
        Folder.open(tmp_path / "f")


def test_sockets_are_inside_if_their_path_is_short_enough() -> None:
    assert Folder(Path("/home/ana/afterword")).sockets == Path("/home/ana/afterword/run")


def test_sockets_of_a_long_path_are_somewhere_short_and_private(deep: Folder) -> None:
    folder = Folder.open(deep.root)
    assert folder.sockets != folder.run
    assert mode(folder.sockets) == 0o700
    assert len(os.fsencode(folder.lifeline)) < MAX_SOCKET_PATH


def test_two_long_paths_share_no_sockets(deep: Folder) -> None:
    assert Folder(deep.root.with_name("e" * MAX_SOCKET_PATH)).sockets != deep.sockets


def test_a_place_for_sockets_that_others_may_write_to_is_refused(deep: Folder) -> None:
    deep.sockets.mkdir()
    deep.sockets.chmod(0o777)
    with pytest.raises(Misconfigured, match=re.escape(str(deep.sockets))):
        Folder.open(deep.root)


def test_a_log_is_appended_to_and_private(tmp_path: Path) -> None:
    folder = Folder.open(tmp_path / "f")
    for word in (b"one ", b"two"):
        with folder.log("part") as log:
            log.write(word)
    assert (folder.logs / "part.log").read_bytes() == b"one two"
    assert mode(folder.logs / "part.log") == 0o600


def test_a_log_that_is_too_long_is_put_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_LOG_BYTES", 3)
    folder = Folder.open(tmp_path / "f")
    for word in (b"long", b"new"):
        with folder.log("part") as log:
            log.write(word)
    assert (folder.logs / "part.log").read_bytes() == b"new"
    assert (folder.logs / "part.old.log").read_bytes() == b"long"


def test_the_record_is_private_and_replaces_the_last_one(tmp_path: Path) -> None:
    folder = Folder.open(tmp_path / "f")
    folder.write_record({"env": {"A": "a long first value"}})
    folder.write_record({"env": {"A": "1"}})
    assert json.loads(folder.record.read_text()) == {"env": {"A": "1"}}
    assert mode(folder.record) == 0o600
    assert [path.name for path in folder.run.iterdir()] == ["stack.json"]
