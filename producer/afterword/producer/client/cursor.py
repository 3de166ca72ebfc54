"""The cursor of a stream: the id of the last event that was seen."""

from __future__ import annotations

from afterword.shared.errors import InvalidRequest


def not_of_this_job() -> InvalidRequest:
    """Return the error of a cursor that has the form of an event's id and is none of the job."""
    return InvalidRequest("after", "must be the id of an event of this job")


def is_beginning(event_id: str) -> bool:
    """Return whether this id, which no event has, means the beginning of a stream."""
    return event_order(event_id) == (0, 0)


def event_order(event_id: str | None) -> tuple[int, int]:
    """Return what event ids are ordered by; None comes before all of them."""
    if event_id is None:
        return -1, -1
    first, _, second = event_id.partition("-")
    return int(first), int(second)
