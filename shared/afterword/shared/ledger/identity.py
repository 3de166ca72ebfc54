"""What a ledger is: how many shards it has, by which version its keys are named, its own name."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import NamedTuple

from afterword.shared.contracts import RECORD_VERSION
from afterword.shared.errors import Misconfigured
from afterword.shared.ledger import steps
from afterword.shared.ledger.shard import Shards, fields_of
from afterword.shared.names import LAYOUT_VERSION


class Identity(NamedTuple):
    """What stands in a ledger about itself; `records` is the newest version of a record in it."""

    layout: int
    shards: int
    records: int
    name: str


class Identities:
    """Compares the ledger with the settings of this process.

    It stands on the first shard, which all processes have, however many they believe there are.
    """

    def __init__(self, shards: Shards) -> None:
        self._shards = shards

    async def check(self, *, founds: bool) -> Identity | None:
        """Return what the ledger is; None if it is new and `founds` is false.

        With `founds` a new ledger is what this process is set to. Raises `Misconfigured` if the
        ledger has another number of shards, since each process would look in places of its own, or
        other keys. Records of another version are no reason to refuse: those are held (I13).
        """
        shards = self._shards.settings.shards
        fields = await (self._written() if founds else self._read())
        if not fields:
            return None
        found = Identity(
            int(fields["layout"]), int(fields["shards"]), int(fields["records"]), fields["name"]
        )
        if found.layout != LAYOUT_VERSION:
            raise Misconfigured(
                "AFTERWORD_NAMESPACE",
                f"its ledger has keys of version {found.layout}, and this version of Afterword "
                f"knows {LAYOUT_VERSION}; use the version that wrote it, or another namespace",
            )
        if found.shards != shards:
            raise Misconfigured(
                "AFTERWORD_SHARDS",
                f"is {shards} here, and this ledger has {found.shards}; set it to {found.shards} "
                "in every process",
            )
        return found

    async def _read(self) -> Mapping[str, str]:
        keys = self._shards.all[0]
        fields: dict[str, str] = await self._shards.send_command("HGETALL", keys.identity)
        return fields

    async def _written(self) -> Mapping[str, str]:
        arguments = steps.Identify(
            layout=LAYOUT_VERSION,
            shards=self._shards.settings.shards,
            records=RECORD_VERSION,
            name=secrets.token_hex(8),
        )
        (record,) = await self._shards.run_script(self._shards.all[0], arguments)
        return fields_of(record)
