"""Runs a command that is killed when its parent dies: `pdeathsig.py PARENT COMMAND...`.

A program of its own, run by path and without `site`: it costs a few milliseconds, and the
supervisor needs no code between fork and exec. Linux only. Elsewhere the command survives a killed
supervisor and has to be stopped by hand.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main(parent: int, command: list[str]) -> None:
    """Execute the command so that the kernel kills it when `parent` ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # the parent died before this call
            sys.exit(1)
    os.execv(command[0], command)  # noqa: S606 - our own command line, no shell


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
