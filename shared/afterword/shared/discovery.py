"""Where the embedded stack of this machine is, if one is running."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from pathlib import Path
from stat import S_IWGRP, S_IWOTH

from pydantic import BaseModel

from afterword.shared.errors import Misconfigured
from afterword.shared.settings import Settings

#: The supervisor of the embedded stack listens here and says what its clients need there.
SOCKET = Path("run") / "stack.sock"
RECORD = Path("run") / "stack.json"

_MOST_BYTES = 1_000_000


class _Record(BaseModel):
    """What the supervisor writes for those who look for its stack."""

    env: dict[str, str]
    socket: str | None = None


def running_stack(data_dir: Path) -> dict[str, str] | None:
    """Return the environment that a running embedded stack serves, None if there is none.

    Raises `Misconfigured` if its record belongs to someone else or is malformed.
    """
    try:
        record = _Record.model_validate_json(_read_own(data_dir / RECORD))
    except (FileNotFoundError, PermissionError):
        return None
    except (OSError, ValueError):
        raise Misconfigured("AFTERWORD_DATA_DIR", f"{RECORD} in it is malformed") from None
    return record.env if _answers(record.socket) else None


def _read_own(path: Path) -> bytes:
    """Read a file of this user or of root: what it says decides where messages are sent."""
    with open(path, "rb", opener=_open_without_waiting) as file:
        found = os.fstat(file.fileno())
        if found.st_uid not in (0, os.geteuid()) or found.st_mode & (S_IWGRP | S_IWOTH):
            raise Misconfigured("AFTERWORD_DATA_DIR", f"{RECORD} in it belongs to someone else")
        return file.read(_MOST_BYTES)


def _open_without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)


def settings_in_use(environ: Mapping[str, str] | None = None) -> Settings:
    """Read the settings; with no ledger named, take that of the running embedded stack.

    Raises `Misconfigured` if there is neither.
    """
    env = dict(os.environ if environ is None else environ)
    settings = Settings.load(env)
    if settings.redis_url is not None:
        return settings
    served = running_stack(settings.data_dir)
    if served is None:
        raise Misconfigured(
            "AFTERWORD_REDIS_URL",
            "is not set and no embedded stack is running; set it, or start `afterword up`",
        )
    return Settings.load(served | env)


def _answers(address: str | None) -> bool:
    if address is None:
        return False
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(address)
        except (OSError, ValueError):
            return False
    return True
