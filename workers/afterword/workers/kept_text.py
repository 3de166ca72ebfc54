"""What is kept of what was said, to be read again: the user's own words, without secrets."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Self

from afterword.shared.ledger.records import PastTurn
from afterword.shared.redaction.policy import Redacted, Redaction
from afterword.shared.redaction_settings import RedactionSettings
from afterword.workers.rules.own_words import own_words


class KeptText:
    """Decides what memory, conversation and search see of a text."""

    def __init__(self, redaction: Redaction) -> None:
        self._redaction = redaction

    @classmethod
    def of(cls, settings: RedactionSettings) -> Self:
        """Return what the settings say; raise `Misconfigured` if their redactor cannot be used."""
        return cls(Redaction.of(settings))

    def of_message(self, tenant: str, text: str) -> Redacted:
        """Return what memory stores of a message; "" if the user says nothing of their own.

        Raises what the redactor raises.
        """
        return self._redaction.stored(tenant, own_words(text))

    def without_secrets(self, tenant: str, text: str) -> Redacted:
        """Return a text without its secrets; raises what the redactor raises."""
        return self._redaction.stored(tenant, text)

    def shown(self, tenant: str, text: str) -> str:
        """Return a text as the search of memories sees it."""
        return self._redaction.shown(tenant, text)

    def conversation(self, tenant: str, turns: Iterable[PastTurn]) -> list[PastTurn]:
        """Return past turns as the model reads them again."""
        return [
            replace(
                turn,
                user_text=self._redaction.shown(tenant, turn.user_text),
                reply_text=self._redaction.shown(tenant, turn.reply_text),
            )
            for turn in turns
        ]

    def overlay(self, tenant: str, turns: Iterable[PastTurn]) -> list[PastTurn]:
        """Return turns that memory does not have yet, as it will store them."""
        said = (replace(turn, user_text=own_words(turn.user_text)) for turn in turns)
        return [turn for turn in self.conversation(tenant, said) if turn.user_text]
