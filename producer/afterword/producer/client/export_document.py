"""Writes all that is known of a user as one JSON document, piece by piece."""

from __future__ import annotations

import json
import re
from datetime import datetime
from typing import Any

from afterword.producer.client.memory_calls import Owner
from afterword.shared.errors import MemoriesUnavailable

#: The sections that hold any number of records, and those that hold one value, with their text
#: without any.
_MANY = ("memories", "conversations", "jobs", "replies_given", "imported_turns")
_SINGLE = {"memories_dropped": "0", "usage": "null", "erasure": "null"}

#: The piece that says how many rows of mem0 were left out.
_DROPPED = re.compile(r'[\s,\]]*"memories_dropped": (\d+)')


def dropped_in(piece: str) -> int:
    """Return how many rows of mem0 were left out, as far as a piece of a document says so."""
    found = _DROPPED.fullmatch(piece)
    return int(found[1]) if found else 0


class ExportDocument:
    """Turns the records of an export into the text of a `UserExport`; it holds none of them.

    The header stands before the first record: it says whether mem0 was asked.
    """

    def __init__(self, owner: Owner, began: datetime) -> None:
        self._header: dict[str, Any] = {
            "format": "afterword-user-export",
            "version": 1,
            "exported_at": began,
            **owner._asdict(),
            "memory": "on",
        }
        self._begun = False
        self._section = ""
        self._left = [*_MANY, *_SINGLE]

    def note_unavailable(self, error: MemoriesUnavailable) -> None:
        """Note that mem0 was not asked, as memory is off; raise any other error.

        Raises this one, too, once there are memories in the document: it would lack the others.
        """
        if error.code != "memory_off" or self._begun:
            raise error
        self._header["memory"] = "off"

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
        empty = (f",\n{_text(one)}: {_SINGLE.get(one, '[]')}" for one in self._left)
        return f"{self._close()}{''.join(empty)}\n}}\n"

    def _close(self) -> str:
        """Return the end of the section before, or the header."""
        closed, self._section = ("\n]" if self._section else ""), ""
        if self._begun:
            return closed
        self._begun = True
        fields = (f"{_text(name)}: {_text(value)}" for name, value in self._header.items())
        return "{\n" + ",\n".join(fields)


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=_plain)


def _plain(value: Any) -> str:
    """Return a time as ISO 8601; an enumeration is a text already."""
    assert isinstance(value, datetime)
    return value.isoformat()
