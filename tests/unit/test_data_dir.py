"""The data directory: private, or refused."""

from __future__ import annotations

import asyncio
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
from afterword.workers.local_stack import locks
from afterword.workers.local_stack.data_dir import MAX_SOCKET_PATH, DataDir

REFUSED = "^AFTERWORD_DATA_DIR: .*"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def deep(tmp_path: Path) -> Iterator[DataDir]:
    """A directory whose own path is too long for a socket."""
    data_dir = DataDir(tmp_path / ("d" * MAX_SOCKET_PATH))
    yield data_dir
    shutil.rmtree(data_dir.sockets, ignore_errors=True)


def test_everything_is_private_to_its_owner(tmp_path: Path) -> None:
    data_dir = DataDir.open(tmp_path / "far" / "away")
    for path in (data_dir.root, data_dir.valkey, data_dir.memory, data_dir.run, data_dir.logs):
        assert mode(path) == 0o700


def test_opening_again_changes_nothing(tmp_path: Path) -> None:
    (DataDir.open(tmp_path / "f").valkey / "kept").touch()
    assert (DataDir.open(tmp_path / "f").valkey / "kept").exists()


def test_a_relative_path_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert DataDir.open(Path("here")).root == tmp_path / "here"


@pytest.mark.parametrize("part", [".", "valkey", "run"])
@pytest.mark.parametrize("open_to", [0o720, 0o702])
def test_a_directory_that_others_may_write_to_is_refused(
    tmp_path: Path, part: str, open_to: int
) -> None:
    data_dir = DataDir.open(tmp_path / "f")
    (data_dir.root / part).chmod(open_to)
    with pytest.raises(Misconfigured, match=REFUSED + "writable by other users"):
        DataDir.open(data_dir.root)


def test_a_directory_of_someone_else_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data_dir = DataDir.open(tmp_path / "f")
    monkeypatch.setattr(os, "geteuid", lambda: data_dir.root.stat().st_uid + 1)
    with pytest.raises(Misconfigured, match=REFUSED + "belongs to another user"):
        DataDir.open(data_dir.root)


def test_a_file_in_its_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    with pytest.raises(Misconfigured, match=REFUSED + "cannot use"):
        DataDir.open(tmp_path / "f")


def test_sockets_are_in_the_directory_if_their_path_is_short_enough() -> None:
    assert DataDir(Path("/home/ana/afterword")).sockets == Path("/home/ana/afterword/run")


def test_sockets_of_a_long_path_are_in_a_short_private_one(deep: DataDir) -> None:
    data_dir = DataDir.open(deep.root)
    assert data_dir.sockets != data_dir.run
    assert mode(data_dir.sockets) == 0o700
    assert len(os.fsencode(data_dir.client_socket)) < MAX_SOCKET_PATH


def test_two_long_paths_share_no_sockets(deep: DataDir) -> None:
    assert DataDir(deep.root.with_name("e" * MAX_SOCKET_PATH)).sockets != deep.sockets


def test_a_socket_directory_that_others_may_write_to_is_refused(deep: DataDir) -> None:
    deep.sockets.mkdir()
    deep.sockets.chmod(0o777)
    with pytest.raises(Misconfigured, match=re.escape(str(deep.sockets))):
        DataDir.open(deep.root)


@pytest.mark.finding(18)
def test_a_link_in_the_place_of_the_socket_directory_is_refused(
    deep: DataDir, tmp_path: Path
) -> None:
    target = tmp_path / "theirs"
    target.mkdir(mode=0o700)
    deep.sockets.symlink_to(target)
    try:
        with pytest.raises(Misconfigured, match=REFUSED + "is a symbolic link"):
            DataDir.open(deep.root)
        assert list(target.iterdir()) == []
    finally:
        deep.sockets.unlink()


@pytest.mark.finding(18)
@pytest.mark.parametrize("part", ["", "valkey", "memory", "run", "logs"])
def test_a_link_of_someone_else_is_refused_and_one_of_ours_is_followed(
    tmp_path: Path, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data_dir, target = DataDir.open(tmp_path / "f"), tmp_path / "disk"
    (data_dir.root / part).rename(target)
    (data_dir.root / part).symlink_to(target)
    DataDir.open(data_dir.root)

    theirs = os.stat_result([stat.S_IFLNK, 0, 0, 1, os.geteuid() + 1, 0, 0, 0, 0, 0])
    lstat = Path.lstat
    monkeypatch.setattr(
        Path, "lstat", lambda path: theirs if path == data_dir.root / part else lstat(path)
    )
    with pytest.raises(Misconfigured, match=REFUSED + "is a symbolic link"):
        DataDir.open(data_dir.root)


@pytest.mark.finding(18)
def test_a_link_to_a_directory_that_others_may_write_to_is_refused(tmp_path: Path) -> None:
    target = tmp_path / "open"
    target.mkdir()
    target.chmod(0o777)
    (tmp_path / "f").symlink_to(target)
    with pytest.raises(Misconfigured, match=REFUSED + "writable by other users"):
        DataDir.open(tmp_path / "f")


@pytest.mark.finding(18)
def test_no_link_is_followed_inside(tmp_path: Path) -> None:
    data_dir, target = DataDir.open(tmp_path / "f"), tmp_path / "kept"
    target.write_text("kept")
    for path in (data_dir.logs / "part.log", data_dir.record.with_suffix(".draft"), data_dir.lock):
        path.symlink_to(target)
    with pytest.raises(OSError, match="symbolic links"):
        data_dir.open_log("part")
    with pytest.raises(OSError, match="symbolic links"):
        data_dir.write_record({})
    with pytest.raises(OSError, match="symbolic links"):
        asyncio.run(locks.acquire(data_dir.lock, 0.0, unless=lambda: True))
    assert target.read_text() == "kept"


def test_a_log_is_appended_to_and_private(tmp_path: Path) -> None:
    data_dir = DataDir.open(tmp_path / "f")
    for word in (b"one ", b"two"):
        with data_dir.open_log("part") as log:
            log.write(word)
    assert (data_dir.logs / "part.log").read_bytes() == b"one two"
    assert mode(data_dir.logs / "part.log") == 0o600


def test_a_log_that_is_too_long_is_renamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_LOG_BYTES", 3)
    data_dir = DataDir.open(tmp_path / "f")
    for word in (b"long", b"new"):
        with data_dir.open_log("part") as log:
            log.write(word)
    assert (data_dir.logs / "part.log").read_bytes() == b"new"
    assert (data_dir.logs / "part.old.log").read_bytes() == b"long"


def test_the_record_is_private_and_replaces_the_last_one(tmp_path: Path) -> None:
    data_dir = DataDir.open(tmp_path / "f")
    data_dir.write_record({"env": {"A": "a long first value"}})
    data_dir.write_record({"env": {"A": "1"}})
    assert json.loads(data_dir.record.read_text()) == {"env": {"A": "1"}}
    assert mode(data_dir.record) == 0o600
    assert [path.name for path in data_dir.run.iterdir()] == ["stack.json"]
