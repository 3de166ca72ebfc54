"""The data folder: where everything embedded lives, private to its owner."""

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

#: The longest socket path: 104 bytes on macOS, 108 on Linux, less what our names may need.
MAX_SOCKET_PATH = 100

#: A log longer than this is put aside when its part is started again.
MAX_LOG_BYTES = 10 * 1024 * 1024

_LONGEST_NAME = "memories.notify"
_WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH

# Not the TMPDIR of one shell: two shells of one user must find the same stack.
_SHORT = Path("/tmp")  # noqa: S108 - what is made there is checked like the data folder itself


@dataclass(frozen=True, slots=True)
class Folder:
    """The paths of one data folder; `Folder.open` makes them."""

    root: Path

    @classmethod
    def open(cls, root: Path) -> Folder:
        """Create what is missing of the folder, for our eyes only.

        Raises `Misconfigured` when it cannot be, is not ours, or others may write to it.
        """
        folder = cls(root.absolute())
        for path in (folder.root, folder.valkey, folder.memory, folder.run, folder.logs):
            _own(path)
        _own(folder.sockets)
        return folder

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
        """What belongs to the running stack."""
        return self.root / "run"

    @property
    def logs(self) -> Path:
        """What the parts of the stack print, a file each."""
        return self.root / "logs"

    def log(self, name: str) -> BinaryIO:
        """Open what one part prints, to append to; a log that is too long is put aside first."""
        path = self.logs / f"{name}.log"
        if path.exists() and path.stat().st_size > MAX_LOG_BYTES:
            path.replace(path.with_suffix(".old.log"))
        return open(path, "ab", opener=_for_our_eyes)

    @property
    def lock(self) -> Path:
        """Held by the one supervisor of this folder, for as long as it lives."""
        return self.run / "stack.lock"

    @property
    def record(self) -> Path:
        """How to reach the running stack, as JSON; there only while it is ready."""
        return self.run / "stack.json"

    def write_record(self, record: Mapping[str, Any]) -> None:
        """Write `record` for clients to find: all of it at once, readable by us alone."""
        draft = self.record.with_suffix(".draft")
        with open(draft, "w", opener=_for_our_eyes) as file:
            json.dump(record, file)
        draft.replace(self.record)

    @property
    def sockets(self) -> Path:
        """Where the sockets are: in `run`, or somewhere short if that path is too long."""
        if len(os.fsencode(self.run / _LONGEST_NAME)) <= MAX_SOCKET_PATH:
            return self.run
        mark = hashlib.sha256(os.fsencode(self.root)).hexdigest()[:16]
        return _SHORT / f"afterword-{os.geteuid()}-{mark}"

    @property
    def lifeline(self) -> Path:
        """Socket of the supervisor; who is connected keeps the stack alive."""
        return self.sockets / "stack.sock"


def _for_our_eyes(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _own(path: Path) -> None:
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = path.stat()
    except OSError as error:
        raise _refuse(path, f"cannot be used: {error.strerror}") from error
    if found.st_uid != os.geteuid():
        raise _refuse(path, "belongs to another user")
    if found.st_mode & _WRITABLE_BY_OTHERS:
        raise _refuse(path, "can be written to by others; chmod go-w it")


def _refuse(path: Path, reason: str) -> Misconfigured:
    return Misconfigured("AFTERWORD_DATA_DIR", f"{path} {reason}")
