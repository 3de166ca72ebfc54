"""What a ledger is: how many shards it has, by which version its keys are named, its own name."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from afterword.shared.contracts import RECORD_VERSION
from afterword.shared.errors import Misconfigured
from afterword.shared.ledger import steps
from afterword.shared.ledger.shard import Shards, fields_of
from afterword.shared.names import LAYOUT_VERSION, MAX_SHARDS, Keys
from afterword.shared.servers import is_cluster


class Identity(NamedTuple):
    """What stands in a ledger about itself; `records` is the newest version of a record in it."""

    layout: int
    shards: int
    records: int
    name: str
    servers: int = 1


class Identities:
    """Compares the ledger with the settings of this process.

    It stands on the first shard, which all processes have, however many they believe there are. Of
    several servers each has it on its own first shard, so that none can take another's place.
    """

    def __init__(self, shards: Shards) -> None:
        self._shards = shards

    async def check(self, *, founds: bool) -> Identity | None:
        """Return what the ledger is; None if it is new and `founds` is false.

        With `founds` a new ledger is what this process is set to. Raises `Misconfigured` if the
        ledger has another number of shards, since each process would look in places of its own, or
        other keys, or if its servers are not those that it was founded on, in that order. Records
        of another version are no reason to refuse: those are held (I13).
        """
        await self._check_places()
        several = self._shards.servers > 1
        fields = await (self._written(0, "", 0) if founds and not several else self._read(0))
        others = [await self._read(server) for server in range(1, self._shards.servers)]
        found = self._fitting(fields, others)
        if founds and several:
            found = self._fitting(await self._founded(), others=())
        return found

    async def _check_places(self) -> None:
        """Refuse a server that has a shard of another one: those would seem to be new."""
        if is_cluster(self._shards.settings):
            return  # its nodes find their slots themselves
        for server in range(self._shards.servers):
            keys = [
                Keys(self._shards.settings.namespace, shard).identity
                for shard in range(MAX_SHARDS)
                if shard != server
            ]
            if await self._shards.send_to(server, "EXISTS", *keys):
                raise _refused(
                    f"names server {server + 1} in the place of another one of this ledger; name "
                    "all its servers, in the order in which it was founded"
                )

    def _fitting(
        self, fields: Mapping[str, str], others: Sequence[Mapping[str, str]]
    ) -> Identity | None:
        """Return what the ledger is; raise `Misconfigured` if it does not fit the settings."""
        if not fields and any("servers" in other for other in others):
            raise _refused("names as the first server one that has nothing of this ledger")
        if "layout" not in fields:  # it is new, or an operator let it have other shards
            return None
        found = Identity(
            int(fields["layout"]),
            int(fields["shards"]),
            int(fields["records"]),
            fields["name"],
            int(fields.get("servers", 1)),
        )
        self._check_shape(found)
        for number, other in enumerate(others, 2):
            if other.get("name") != found.name:
                raise _refused(f"names as server {number} one that has nothing of this ledger")
        return found

    def _check_shape(self, found: Identity) -> None:
        if found.layout != LAYOUT_VERSION:
            raise Misconfigured(
                "AFTERWORD_NAMESPACE",
                f"its ledger has keys of version {found.layout}, and this version of Afterword "
                f"knows {LAYOUT_VERSION}; use the version that wrote it, or another namespace",
            )
        shards = self._shards.settings.shards
        if found.shards != shards:
            raise Misconfigured(
                "AFTERWORD_SHARDS",
                f"is {shards} here, and this ledger has {found.shards}; set it to {found.shards} "
                "in every process",
            )
        if found.servers != self._shards.servers:
            raise _refused(
                f"names {self._shards.servers} servers, and this ledger is on {found.servers}"
            )

    async def _founded(self) -> Mapping[str, str]:
        """Write the identity to several servers, and return what stands on the first.

        The first one last: a ledger that it knows is on all of them. Then the others learn that it
        is complete: from then on an empty first server is one that was lost.
        """
        servers, name = self._shards.servers, secrets.token_hex(8)
        for server in range(servers - 1, 0, -1):
            name = (await self._written(server, name, 0))["name"]
        fields = await self._written(0, name, servers)
        for server in range(1, servers):
            await self._written(server, name, servers)
        return fields

    async def _read(self, server: int) -> Mapping[str, str]:
        keys = self._shards.all[server]
        fields: dict[str, str] = await self._shards.send_command("HGETALL", keys.identity)
        return fields

    async def _written(self, server: int, name: str, servers: int) -> Mapping[str, str]:
        arguments = steps.Identify(
            layout=LAYOUT_VERSION,
            shards=self._shards.settings.shards,
            records=RECORD_VERSION,
            name=name or secrets.token_hex(8),
            servers=servers,
        )
        (record,) = await self._shards.run_script(self._shards.all[server], arguments)
        return fields_of(record)


def _refused(reason: str) -> Misconfigured:
    return Misconfigured("AFTERWORD_REDIS_URL", reason)
