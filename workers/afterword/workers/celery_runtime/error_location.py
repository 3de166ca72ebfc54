"""What a log may say of an error."""

from __future__ import annotations

import traceback


def whereabouts(error: BaseException) -> str:
    """Return an error's class and the line it came from, never its text: that may hold content.

    Of a group, the first error in it.
    """
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    frames = list(traceback.walk_tb(error.__traceback__))
    place = f"{frames[-1][0].f_code.co_filename}:{frames[-1][1]}" if frames else "nowhere"
    return f"{type(error).__name__} at {place}"
