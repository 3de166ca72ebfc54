"""Where the embedded stack of this machine is, if one is running."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Mapping
from pathlib import Path

from afterword.shared.errors import Misconfigured
from afterword.shared.settings import Settings

#: The supervisor of the embedded stack listens here and says what its clients need there.
SOCKET = Path("run") / "stack.sock"
RECORD = Path("run") / "stack.json"


def running_stack(data_dir: Path) -> dict[str, str] | None:
    """Return the environment that a running embedded stack serves, None if there is none."""
    try:
        record = json.loads((data_dir / RECORD).read_text())
    except (FileNotFoundError, PermissionError):
        return None
    except ValueError:
        raise Misconfigured("AFTERWORD_DATA_DIR", f"{RECORD} is no JSON") from None
    return dict(record["env"]) if _answers(record.get("socket")) else None


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
        except OSError:
            return False
    return True
