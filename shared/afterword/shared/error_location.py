"""Where an error came from, for logs and events, which never repeat an error's own text."""

from __future__ import annotations

import traceback
from types import FrameType

_OURS = "afterword."


def error_location(error: BaseException, *, anywhere: bool = False) -> str:
    """Return `file:line` of the innermost frame of our code, or of any code if none is ours.

    With `anywhere` it is the innermost frame, whosever it is. Of a group, it is that of the first
    error in it. An error that was never raised is `nowhere`.
    """
    frames = list(traceback.walk_tb(_first(error).__traceback__))
    ours = [] if anywhere else [one for one in frames if _module(one[0]).startswith(_OURS)]
    return frame_location(*(ours or frames)[-1]) if frames else "nowhere"


def frame_location(frame: FrameType, line: int) -> str:
    """Return `file:line` of a frame; the file begins at its top-level package."""
    return f"{_module(frame).replace('.', '/')}.py:{line}"


def _module(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", "?"))


def error_name(error: BaseException) -> str:
    """Return the name of an error's class; of a group, that of the first error in it."""
    return type(_first(error)).__name__


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
