"""Upgrades the memory file of an older release: what its memories are found by is made anew."""

from __future__ import annotations

import sqlite3

from afterword.workers.adapters.mem0.sqlite.owners import Owner
from afterword.workers.adapters.mem0.sqlite.rows import (
    BareText,
    Indexed,
    IsRequest,
    Row,
    index_row,
)
from afterword.workers.adapters.mem0.sqlite.schema import replace_tables_of_version_1


def upgrade(sql: sqlite3.Connection, bare: BareText, is_request: IsRequest) -> None:
    """Upgrade a file of version 1; needs a write transaction, in which all of it happens.

    A process of the older release that still has the file open fails from then on, instead of
    writing memories that cannot be found.
    """
    replace_tables_of_version_1(sql)
    owners = "SELECT n, epoch, salt FROM owners"
    for owner in [Owner(*row) for row in sql.execute(owners)]:
        select = "SELECT n, id, payload FROM memories WHERE owner = ?"
        for n, memory_id, payload in sql.execute(select, (owner.n,)).fetchall():
            read = Row.read(memory_id, payload).payload
            index_row(sql, owner, n, Indexed.of(read, bare, is_request))
