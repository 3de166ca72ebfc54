"""Where an error was raised, in a form that is safe to log."""

from __future__ import annotations

import traceback


def error_location(error: BaseException) -> str:
    """Return an error's class, and the file and line that raised it.

    Never its message, which may quote a prompt or a memory. For an exception group, describes the
    first error in it.
    """
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    frames = list(traceback.walk_tb(error.__traceback__))
    place = f"{frames[-1][0].f_code.co_filename}:{frames[-1][1]}" if frames else "unknown place"
    return f"{type(error).__name__} at {place}"
