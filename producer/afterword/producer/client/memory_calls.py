"""What a producer asks about a user's memories, and what it makes of the answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple

from pydantic import AfterValidator, Field, StringConstraints

from afterword.shared.contracts import Text, refuse
from afterword.shared.errors import InvalidRequest, MemoriesUnavailable, MemoryNotFound, NewerRecord
from afterword.shared.ledger.memory_requests import MemoryAction
from afterword.shared.memory_contracts import Memory, MemoryPage
from afterword.shared.names import lane_id, memory_key, shard_of

#: Most memories of a page, and of a search.
MAX_PAGE = 100

#: The longest that a call waits for a memory worker, in seconds.
LONGEST_WAIT_S = 600.0

_CHANGES = ("edit", "delete")


def _clean_word(value: str) -> str:
    if not value.isprintable():
        raise refuse("must be visible text")
    return value


#: How long to wait for an answer, in seconds.
WaitSeconds = Annotated[float, Field(gt=0, le=LONGEST_WAIT_S, allow_inf_nan=False)]

#: How many memories to return, at most.
PageLimit = Annotated[int, Field(ge=1, le=MAX_PAGE)]

#: The id of a memory in mem0, whatever it looks like there.
MemoryId = Annotated[
    str,
    StringConstraints(strict=True, min_length=1, max_length=256),
    AfterValidator(_clean_word),
]

#: What a page ended with.
Cursor = Annotated[
    str,
    StringConstraints(strict=True, min_length=1, max_length=256),
    AfterValidator(_clean_word),
]

__all__ = ["Cursor", "MemoryId", "PageLimit", "Text", "WaitSeconds"]


class Owner(NamedTuple):
    """Whose memories they are."""

    tenant: str
    user_id: str

    def lane(self, shards: int) -> str:
        """Return the lane of the user."""
        key = memory_key(self.tenant, self.user_id)
        return lane_id(key, shard_of(key, shards))


class MemoryCall(NamedTuple):
    """One call: what is asked of a memory worker, and how long the caller waits."""

    owner: Owner
    action: MemoryAction
    arguments: Mapping[str, Any]
    timeout_s: float

    @property
    def changes(self) -> bool:
        """Whether it changes anything."""
        return self.action in _CHANGES

    def result(self, answer: Mapping[str, Any]) -> Any:
        """Return what a worker answered; raise what it says of a failure."""
        if "result" in answer:
            return answer["result"]
        code, may_be_done = str(answer.get("code")), bool(answer.get("may_be_done"))
        if code == "not_found":
            raise MemoryNotFound(self.arguments["id"])
        if code == "bad_cursor":
            raise InvalidRequest("after", "must be the `next` of an earlier page")
        if code == "blank_text":
            raise InvalidRequest("text", "must hold something that can be seen")
        raise MemoriesUnavailable(code, may_be_done=may_be_done)


def page_in(result: Any) -> MemoryPage:
    """Return the page that a worker answered."""
    try:
        return MemoryPage.model_validate(result)
    except ValueError:
        raise NewerRecord("a page of memories") from None


def memory_in(result: Any) -> Memory:
    """Return the memory that a worker answered."""
    try:
        return Memory.model_validate(result)
    except ValueError:
        raise NewerRecord("a memory") from None
