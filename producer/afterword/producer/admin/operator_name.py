"""The name that the audit shows for an operator who gives none."""

from __future__ import annotations

import getpass
import os
import socket

from afterword.shared.contracts import MAX_ID_CHARACTERS


def user_and_host() -> str:
    """Return who runs this where, from an environment that may hold anything."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a user without a name, as in a container
        user = f"uid{os.getuid()}"
    named = f"{user}@{socket.gethostname()}"[:MAX_ID_CHARACTERS]
    return "".join(one if one.isprintable() else "?" for one in named)
