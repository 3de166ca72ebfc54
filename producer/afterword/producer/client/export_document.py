"""Writes all that is known of a user as one JSON document, piece by piece."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

#: The sections that hold any number of records, and those that hold one value.
_MANY = ("memories", "conversations", "jobs", "replies_given", "imported_turns")
_SINGLE = ("usage", "erasure")


class ExportDocument:
    """Turns the records of an export into the text of a `UserExport`; it holds none of them."""

    def __init__(self, header: Mapping[str, Any]) -> None:
        self._header = header
        self._section = ""
        self._left = [*_MANY, *_SINGLE]

    def begin(self) -> str:
        """Return the beginning of the document."""
        fields = ",\n".join(
            f"{_text(name)}: {_text(value)}" for name, value in self._header.items()
        )
        return "{\n" + fields

    def add(self, section: str, record: Any) -> str:
        """Return the text of one more record. Those of a section must follow each other."""
        if section in _SINGLE:
            self._left.remove(section)
            return f"{self._close()},\n{_text(section)}: {_text(record)}"
        if section == self._section:
            return f",\n{_text(record)}"
        self._left.remove(section)
        closed, self._section = self._close(), section
        return f"{closed},\n{_text(section)}: [\n{_text(record)}"

    def end(self) -> str:
        """Return the end of the document: sections without a record are empty in it."""
        empty = (f",\n{_text(one)}: {'[]' if one in _MANY else 'null'}" for one in self._left)
        return f"{self._close()}{''.join(empty)}\n}}\n"

    def _close(self) -> str:
        closed, self._section = ("\n]" if self._section else ""), ""
        return closed


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=_plain)


def _plain(value: Any) -> str:
    """Return a time as ISO 8601; an enumeration is a text already."""
    assert isinstance(value, datetime)
    return value.isoformat()
