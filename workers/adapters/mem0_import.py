"""The import of mem0: where it may write, and that it tells nobody."""

from __future__ import annotations

import logging
import os
from pathlib import Path


def mem0_silenced(folder: Path) -> None:
    """Make mem0 fit to be imported; call it before the first import.

    It makes a folder at import, `folder`, reports home unless it is told not to, and logs
    memories and the bodies of errors; what it logs as an error it also raises.
    """
    os.environ |= {"MEM0_TELEMETRY": "False", "MEM0_DIR": str(folder)}
    logging.getLogger("mem0").setLevel(logging.CRITICAL + 1)
