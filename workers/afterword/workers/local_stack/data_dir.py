"""The data directory: everything the local stack keeps, readable by its owner only."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from afterword.shared.errors import Misconfigured

#: The longest socket path: 104 bytes on macOS, 108 on Linux, with a margin.
MAX_SOCKET_PATH = 100

#: A longer log is renamed to `.old.log` when its service is started again.
MAX_LOG_BYTES = 10 * 1024 * 1024

_LONGEST_NAME = "memories.notify"
_WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH

# Not TMPDIR, which may differ between two shells of one user: both must find the same stack.
_SHORT = Path("/tmp")  # noqa: S108 - directories made there are checked like the data directory


@dataclass(frozen=True, slots=True)
class DataDir:
    """The paths in one data directory. `DataDir.open` creates them."""

    root: Path

    @classmethod
    def open(cls, root: Path) -> DataDir:
        """Create the directories that are missing, with access for the owner only.

        Raises `Misconfigured` if one cannot be created, belongs to another user, or is writable by
        others.
        """
        data_dir = cls(root.absolute())
        for path in (data_dir.root, data_dir.valkey, data_dir.memory, data_dir.run, data_dir.logs):
            _create_private(path)
        if data_dir.sockets != data_dir.run:
            _create_private(data_dir.sockets, shared_parent=True)
        return data_dir

    @property
    def valkey(self) -> Path:
        """Valkey's append-only file."""
        return self.root / "valkey"

    @property
    def memory(self) -> Path:
        """The embedded memory store."""
        return self.root / "memory"

    @property
    def run(self) -> Path:
        """Locks, sockets and the record of the running stack."""
        return self.root / "run"

    @property
    def logs(self) -> Path:
        """The output of the services, one file each."""
        return self.root / "logs"

    def open_log(self, name: str) -> BinaryIO:
        """Open a service's log for appending; rename it first if it is too long."""
        path = self.logs / f"{name}.log"
        if path.exists() and path.stat().st_size > MAX_LOG_BYTES:
            path.replace(path.with_suffix(".old.log"))
        return open(path, "ab", opener=_open_private)

    @property
    def lock(self) -> Path:
        """Locked by the one supervisor of this directory for as long as it runs."""
        return self.run / "stack.lock"

    @property
    def record(self) -> Path:
        """How to reach the running stack, as JSON. Exists only while the stack is ready."""
        return self.run / "stack.json"

    def write_record(self, record: Mapping[str, Any]) -> None:
        """Replace the record in one step."""
        draft = self.record.with_suffix(".draft")
        with open(draft, "w", opener=_open_private) as file:
            json.dump(record, file)
        draft.replace(self.record)

    @property
    def sockets(self) -> Path:
        """Where the sockets are: in `run`, or in /tmp if that path is too long for a socket."""
        if len(os.fsencode(self.run / _LONGEST_NAME)) <= MAX_SOCKET_PATH:
            return self.run
        mark = hashlib.sha256(os.fsencode(self.root)).hexdigest()[:16]
        return _SHORT / f"afterword-{os.geteuid()}-{mark}"

    @property
    def client_socket(self) -> Path:
        """The supervisor's socket. A connection to it keeps the stack alive."""
        return self.sockets / "stack.sock"


def _open_private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o600)


def _create_private(path: Path, *, shared_parent: bool = False) -> None:
    """Create a directory, or check the one that is there; what was checked is what was opened.

    A link of the user's own may lead to it, but none where others can put links.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        if path.is_symlink():
            _check_link(path, shared_parent=shared_parent)
            path = path.resolve(strict=True)
        place = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise _refused(f"cannot use {path} as a directory: {error.strerror}") from error
    try:
        _check_private(path, os.fstat(place))
    finally:
        os.close(place)


def _check_link(path: Path, *, shared_parent: bool) -> None:
    if shared_parent or path.lstat().st_uid != os.geteuid():
        raise _refused(f"{path} is a symbolic link that someone else may have made; remove it")


def _check_private(path: Path, found: os.stat_result) -> None:
    if found.st_uid != os.geteuid():
        raise _refused(f"{path} belongs to another user; set a directory of your own")
    if found.st_mode & _WRITABLE_BY_OTHERS:
        raise _refused(f"{path} is writable by other users; run: chmod go-w '{path}'")


def _refused(reason: str) -> Misconfigured:
    return Misconfigured("AFTERWORD_DATA_DIR", reason)
