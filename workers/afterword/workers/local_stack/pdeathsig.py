"""A command that dies with the process that started it: `tether.py PARENT COMMAND...`.

A file of its own, run by path and without `site`, so that it costs a few milliseconds and
needs no code between fork and exec in the supervisor. Linux only: elsewhere the command runs
untethered, and what a killed supervisor leaves behind is stopped by hand.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main(parent: int, command: list[str]) -> None:
    """Become the command, to be killed as soon as `parent` is gone."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before we could ask
            sys.exit(1)
    os.execv(command[0], command)  # noqa: S606 - our own command line, no shell


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
