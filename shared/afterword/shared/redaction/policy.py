"""What is done about secrets: per tenant, nothing, counting, replacing them, or refusing them."""

from __future__ import annotations

import importlib
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import NamedTuple, Self

from afterword.shared.environment import variable
from afterword.shared.errors import InvalidRequest, Misconfigured
from afterword.shared.observer import emit_internal_error
from afterword.shared.redaction.known_secrets import KINDS, KnownSecrets
from afterword.shared.redaction.port import Finding, Redactor
from afterword.shared.redaction_settings import RedactionSettings
from afterword.shared.setting_types import RedactionMode

_KIND = re.compile(r"[a-z][a-z0-9_]{0,31}")

#: So many kinds of a redactor are told apart: each is counted by itself, in the ledger.
MOST_KINDS = 64

#: The kind of what a redactor calls anything that is no such word.
OTHER = "secret"

#: The kind of a whole text that could not be looked at.
UNCHECKED = "unchecked_text"


class Redacted(NamedTuple):
    """A text without its secrets, and how many of each kind it held."""

    text: str
    found: Mapping[str, int]


class Redaction:
    """Looks for secrets in what is to be stored, and does with them what their tenant wants."""

    def __init__(
        self,
        redactor: Redactor,
        mode: RedactionMode = "redact",
        modes: Mapping[str, RedactionMode] | None = None,
    ) -> None:
        self._redactor = redactor
        self._mode: RedactionMode = mode
        self._modes = dict(modes or {})
        self._kinds: set[str] = set()

    @classmethod
    def of(cls, settings: RedactionSettings) -> Self:
        """Return what the settings say; raise `Misconfigured` if there is no such redactor."""
        return cls(_redactor(settings), settings.redaction, settings.redaction_by_tenant)

    def mode_of(self, tenant: str) -> RedactionMode:
        """Return what is done about the secrets of a tenant's users."""
        return self._modes.get(tenant, self._mode)

    def check(self, tenant: str, **fields: str | None) -> None:
        """Raise `InvalidRequest` for the first field with a secret, if its tenant refuses those.

        It names the field and the kind, never what the field held.
        """
        if self.mode_of(tenant) != "refuse":
            return
        for field, text in fields.items():
            reason = self._reason_against(text or "")
            if reason:
                raise InvalidRequest(field, reason)

    def stored(self, tenant: str, text: str) -> Redacted:
        """Return a text as it may be stored, and what was found in it.

        Raises what the redactor raises: a text that was not looked at is not stored.
        """
        mode = self.mode_of(tenant)
        if mode == "off" or not text:
            return Redacted(text, {})
        found = self._found(text)
        if not found:
            return Redacted(text, {})
        counts = Counter(one.kind for one in found)
        return Redacted(text if mode == "report" else _without(text, found), counts)

    def shown(self, tenant: str, text: str) -> str:
        """Return a text as it may be read again, by the model or by the search of memories.

        If the redactor fails, nothing of the text is shown: a reply does not fail because of it.
        """
        try:
            return self.stored(tenant, text).text
        except Exception as error:  # noqa: BLE001 as above
            emit_internal_error(error)
            return _marker(UNCHECKED)

    def _reason_against(self, text: str) -> str:
        """Return why a text is refused, "" if it is not."""
        try:
            kinds = sorted({one.kind for one in self._found(text)})
        except Exception as error:  # noqa: BLE001 a redactor of the user's own may raise anything
            emit_internal_error(error)
            return "cannot be checked for secrets: the redactor failed"
        named = ", ".join(kind.replace("_", " ") for kind in kinds)
        return f"holds a secret ({named}), which is not stored here" if kinds else ""

    def _found(self, text: str) -> list[Finding]:
        apart = _apart(self._redactor.find(text), len(text))
        return [one._replace(kind=self._kind(one.kind)) for one in apart]

    def _kind(self, kind: str) -> str:
        """Return a kind as it is counted."""
        if kind not in self._kinds:
            if len(self._kinds) >= MOST_KINDS or not _KIND.fullmatch(kind):
                return OTHER
            self._kinds.add(kind)
        return kind


def _redactor(settings: RedactionSettings) -> Redactor:
    kinds = settings.redacted_kinds
    if settings.redactor is None:
        unknown = [kind for kind in kinds if kind not in KINDS]
        if unknown:
            reason = f"knows these kinds only: {', '.join(KINDS)}"
            raise Misconfigured(variable("redacted_kinds"), reason)
        return KnownSecrets(kinds or None)
    setting = variable("redactor")
    module, _, name = settings.redactor.partition(":")
    try:
        redactor: Redactor = getattr(importlib.import_module(module), name)()
    except Exception as error:
        raise Misconfigured(setting, f"cannot be made: {type(error).__name__}") from error
    if not callable(getattr(redactor, "find", None)):
        raise Misconfigured(setting, "must name a class with a method `find`")
    return redactor


def _apart(found: Iterable[Finding], length: int) -> list[Finding]:
    """Return the findings in order and within the text; those that overlap become one."""
    apart: list[Finding] = []
    for kind, first, last in sorted(found, key=lambda one: (one[1], -one[2])):
        start, end = max(0, first), min(last, length)
        if start >= end:
            continue
        if apart and start < apart[-1].end:
            apart[-1] = apart[-1]._replace(end=max(end, apart[-1].end))
        else:
            apart.append(Finding(kind, start, end))
    return apart


def _without(text: str, found: Iterable[Finding]) -> str:
    pieces, at = [], 0
    for one in found:
        pieces += [text[at : one.start], _marker(one.kind)]
        at = one.end
    return "".join([*pieces, text[at:]])


def _marker(kind: str) -> str:
    return f"[{kind.replace('_', ' ')} removed]"
