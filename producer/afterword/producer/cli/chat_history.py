"""The file in which a chat keeps what one user typed, for the cursor keys of the next chat.

It holds messages as they are, so nobody else may read it: one file for each user, removed when the
user is erased from a chat.
"""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

from afterword.shared.settings import Settings

#: A longer history loses its older half when it is opened.
MAX_BYTES = 1024 * 1024

#: What begins an entry of prompt_toolkit's `FileHistory`.
_ENTRY = b"\n# "


def history_file(settings: Settings, tenant: str, user_id: str) -> Path | None:
    """Return the path for one user; None if `AFTERWORD_CHAT_HISTORY` is off."""
    if not settings.chat_history:
        return None
    name = hashlib.sha256(f"{tenant}\0{user_id}".encode()).hexdigest()[:32]
    return settings.state_dir / "chat-history" / name


def open_private(path: Path) -> None:
    """Make a history ready for use, so that only its owner can read it; raise `OSError`."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "r+b") as file:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
            raise PermissionError(0, "is not a file of yours", str(path))
        os.fchmod(descriptor, 0o600)
        if found.st_size > MAX_BYTES:
            file.seek(found.st_size - MAX_BYTES // 2)
            newest = file.read()
            file.seek(0)
            file.write(newest[max(0, newest.find(_ENTRY)) :])
            file.truncate()
