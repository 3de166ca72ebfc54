"""Past turns, which were answered elsewhere, as they are imported."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import ConfigDict, StringConstraints, ValidationError

from afterword.shared.contracts import (
    DEFAULT_TENANT,
    ChatRequest,
    Contract,
    Id,
    Moment,
    Text,
    invalid_request,
)

MAX_REPLY_CHARACTERS = 1_000_000


class HistoryTurn(Contract):
    """One past turn, to be remembered as if Afterword had answered it: a line of `import`."""

    model_config = ConfigDict(extra="forbid")

    user_id: Id
    """Who said it."""

    message: Text
    """What the user said; limited as the message of a request is."""

    at: Moment
    """When it was said: a text in the format ISO 8601 with an offset, not in the future."""

    reply: Annotated[Text, StringConstraints(max_length=MAX_REPLY_CHARACTERS)] | None = None
    """What was replied, if anything: at most 1,000,000 characters."""

    tenant: Id = DEFAULT_TENANT
    """The tenant of the user."""

    conversation_id: Id | None = None
    """The conversation that it was part of."""

    timezone: Id | None = None
    """The user's time zone, as IANA names it."""

    key: Id | None = None
    """What names this turn where it comes from, unique for its user: importing it again changes
    nothing. Without one, a turn is the same if all its fields are."""

    @classmethod
    def parse(cls, values: object, *, max_bytes: int, max_tokens: int) -> Self:
        """Validate one turn; raise `InvalidRequest`, which never repeats what a field held."""
        try:
            turn = cls.model_validate(values)
        except ValidationError as error:
            raise invalid_request(error) from None
        ChatRequest.parse(turn.request(), max_bytes=max_bytes, max_tokens=max_tokens)
        return turn

    def request(self) -> ChatRequest:
        """Return the request that it would have been."""
        fields = self.model_dump(exclude={"reply", "key"}, exclude_none=True)
        return ChatRequest.model_validate(fields)
