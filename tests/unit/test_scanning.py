"""A scan ends on the server on which it began, and sees all that this one holds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytest

from afterword.shared.errors import LedgerUnavailable
from afterword.shared.transport.pipeline import Pipeline
from afterword.shared.transport.scanning import (
    MAX_RESTARTS,
    scan_fields,
    scan_keys,
    scan_members,
)
from tests.conftest import ROOTS

#: The pages of each scan: the cursor that leads to the next one, and what is in it.
PAGES = {"0": ("7", "a"), "7": ("9", "b"), "9": ("0", "c")}


class Scanned:
    """A pipeline to one server after another; the command of that number meets a new one."""

    def __init__(
        self, *failovers: int, page: Callable[[str], Any] = lambda one: [one], connection: int = 1
    ) -> None:
        self.connection = connection
        self.sent: list[str] = []
        self._failovers = set(failovers)
        self._page = page

    @property
    def pipeline(self) -> Pipeline:
        """Return it as what it stands for."""
        return cast("Pipeline", self)

    async def send_command(self, *command: str | float) -> Any:
        """Answer the next page."""
        cursor = "slot" if command[0] == "EXISTS" else str(command[command.index("COUNT") - 1])
        if "MATCH" in command:
            cursor = str(command[1])
        self.sent.append(cursor)
        if len(self.sent) in self._failovers or not self.connection:
            self.connection += 1
        if cursor == "slot":
            return 0
        following, entry = PAGES[cursor]
        return following, self._page(entry)


async def all_keys(server: Scanned, slot_key: str | None = None) -> list[str]:
    pages = scan_keys(server.pipeline, "n:{00}:job:*", slot_key=slot_key)
    return [key async for page in pages for key in page]


async def test_a_scan_begins_again_after_a_new_connection() -> None:
    """Where a cursor leads on another server nobody knows: an erasure would leave keys."""
    server = Scanned(2)

    assert await all_keys(server) == ["a", "a", "b", "c"]
    assert server.sent == ["0", "7", "0", "7", "9"]


async def test_a_scan_begins_again_if_its_first_page_came_with_a_new_connection() -> None:
    """The page may be that of the server before: its cursor is not used."""
    server = Scanned(1)

    assert await all_keys(server) == ["a", "b", "c"]
    assert server.sent == ["0", "0", "7", "9"]


async def test_the_first_connection_of_all_is_no_new_one() -> None:
    server = Scanned(connection=0)

    assert await all_keys(server) == ["a", "b", "c"]


async def test_what_a_caller_does_between_two_pages_may_reconnect() -> None:
    server, found = Scanned(), list[str]()
    async for page in scan_keys(server.pipeline, "n:{00}:job:*", slot_key=None):
        if not found:
            server.connection += 1
        found += page

    assert found == ["a", "a", "b", "c"]


async def test_members_and_fields_are_given_once_however_often_a_scan_begins() -> None:
    members = Scanned(3)
    fields = Scanned(3, page=lambda one: {one: one.upper()})

    assert [one async for one in scan_members(members.pipeline, "k")] == ["a", "b", "c"]
    assert [one async for one in scan_fields(fields.pipeline, "k")] == [
        ("a", "A"), ("b", "B"), ("c", "C"),
    ]  # fmt: skip
    assert members.sent == fields.sent == ["0", "7", "9", "0", "7", "9"]


async def test_a_scan_that_never_ends_is_given_up() -> None:
    server = Scanned(*range(1, 1000))

    with pytest.raises(LedgerUnavailable, match="break too often"):
        await all_keys(server)
    assert len(server.sent) == 1 + MAX_RESTARTS


async def test_a_node_of_a_cluster_must_have_the_slot_before_and_after() -> None:
    server = Scanned()

    await all_keys(server, "n:{00}")

    assert server.sent == ["slot", "0", "7", "9", "slot"]


async def test_a_slot_that_moved_during_the_scan_is_read_again() -> None:
    """SCAN itself is answered by a node that has nothing of the slot any more."""
    server = Scanned(5)

    assert await all_keys(server, "n:{00}") == ["a", "b", "c"] * 2
    assert server.sent == ["slot", "0", "7", "9", "slot"] * 2


def test_nothing_else_scans() -> None:
    """Another loop over a cursor would go on with it on another server."""
    of_product = [file for root in ROOTS for file in root.rglob("*.py")]
    scanning = [
        file.name
        for file in of_product
        if any(f'"{verb}"' in file.read_text() for verb in ("SCAN", "SSCAN", "HSCAN", "ZSCAN"))
        or "scan_iter" in file.read_text()
    ]

    assert scanning == ["scanning.py"]
