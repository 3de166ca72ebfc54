"""What memories gain if a question asks for all that is known of the user."""

from __future__ import annotations

import numpy as np

from afterword.workers.adapters.mem0.sqlite.ranking import Floats, Numbers

#: So many of the newest memories gain, the newest one most. Among them meaning still decides: «I am
#: a nurse» has more in common with «Who am I?» than chatter has.
_NEWEST, _MOST, _LEAST = 40, 3.0, 1.0


def newest_points(times: Numbers) -> Floats:
    """Return what memories said at these times gain, of those of one time the last one most."""
    points = np.zeros(len(times), np.float32)
    newest = np.argsort(times, kind="stable")[::-1][:_NEWEST]
    points[newest] = np.linspace(_MOST, _LEAST, _NEWEST, dtype=np.float32)[: len(newest)]
    return points
