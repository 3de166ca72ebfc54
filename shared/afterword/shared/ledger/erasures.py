"""The steps of erasing a user: all content leaves the ledger, and nothing brings it back."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from redis.exceptions import ResponseError

from afterword.shared.contracts import RECORD_VERSION
from afterword.shared.errors import LeaseLost, Misconfigured
from afterword.shared.ledger import steps
from afterword.shared.ledger.records import (
    AofRewrite,
    CommandLogReset,
    EraseClaim,
    Erasure,
    ErasureState,
    MemoryErasure,
    moment,
    reading,
)
from afterword.shared.ledger.shard import Shards, milliseconds
from afterword.shared.names import Keys
from afterword.shared.transport.signatures import Arguments

#: How long a receipt is kept.
RECEIPT_S = 90 * 24 * 3600.0

#: Keys of a user, beside the jobs, that hold or count what was said.
_OWNED = (Keys.conversation, Keys.usage, Keys.imported, Keys.given, Keys.user_jobs)
#: And what counts them.
_ERASED = (*_OWNED, Keys.spent)


class Erasures:
    """Begins an erasure, carries it out, reads its receipt."""

    def __init__(self, shards: Shards) -> None:
        self._shards = shards

    async def begin(self, lane: str, by: str) -> Erasure:
        """Begin to erase the user of a lane; return the erasure, which may have begun before."""
        await self._shards.run_for_word(
            steps.BeginErasure(lane=lane, version=RECORD_VERSION, by=by)
        )
        found = await self.receipt(lane)
        assert found is not None, "it was just written, and outlives the day"
        return found

    async def receipt(self, lane: str) -> Erasure | None:
        """Return the newest erasure of a lane's user, or None."""
        names = ("state", "by", "asked", "forgotten", "erased", "memory", "aof", "command_log")
        counted = ("jobs", "ended", "records")
        key = self._shards.keys_of(lane).erasure(lane)
        found = await self._shards.send_command("HMGET", key, *names, *counted)
        state, by, asked, forgotten, erased, memory, log, command_log, *counts = found
        if state is None:
            return None
        with reading("erasure"):
            return Erasure(
                lane,
                ErasureState(state),
                by,
                moment(asked),
                moment(forgotten) if forgotten else None,
                moment(erased) if erased else None,
                MemoryErasure(memory) if memory else None,
                AofRewrite(log) if log else None,
                CommandLogReset(command_log) if command_log else None,
                *(int(count or 0) for count in counts),
            )

    async def remove_records(self, claim: EraseClaim) -> None:
        """Remove what the user said from the ledger; raises `LeaseLost`.

        Jobs first: once none of them is open, nobody writes to a conversation any more.
        """
        shard = self._shards.keys_of(claim.lane)
        retention_ms = milliseconds(self._shards.settings.retention_s)
        prefix = shard.job("")
        async for keys in self._shards.scan(f"{prefix}*"):
            ids = [key.removeprefix(prefix) for key in keys]
            while ids:
                (seen,) = await self._run_fenced(
                    steps.EmptyJobs(
                        lane=claim.lane,
                        fence=claim.fence,
                        retention_ms=retention_ms,
                        known_version=RECORD_VERSION,
                        ids=ids,
                    )
                )
                ids = ids[seen:]
        await self._remove_by_lane(claim, shard.memory_request(""))
        await self._remove_by_lane(claim, shard.story(""))
        for key_of in _ERASED:
            # An owner is percent-encoded: it holds no slash but its own, and no wildcard.
            whole = key_of(shard, claim.lane)
            async for keys in self._shards.scan(f"{whole}*"):
                mine = [key for key in keys if key == whole or key.startswith(f"{whole}/")]
                await self._run_fenced(
                    steps.RemoveKeys(lane=claim.lane, fence=claim.fence, keys=mine)
                )

    async def _remove_by_lane(self, claim: EraseClaim, prefix: str) -> None:
        """Remove records that begin with a prefix and name the user's lane."""
        async for keys in self._shards.scan(f"{prefix}*"):
            reads = (self._shards.send_command("HGET", key, "lane") for key in keys)
            lanes = await asyncio.gather(*reads)
            mine = [key for key, lane in zip(keys, lanes, strict=True) if lane == claim.lane]
            if mine:
                await self._run_fenced(
                    steps.RemoveKeys(lane=claim.lane, fence=claim.fence, keys=mine)
                )

    async def rewrite_aof(self) -> AofRewrite:
        """Have Redis rewrite its append-only file, without what was removed."""
        try:
            await self._shards.send_to_all("BGREWRITEAOF")
        except Misconfigured:
            return AofRewrite.REFUSED
        except ResponseError as error:
            # A rewrite that began earlier still writes what was removed.
            busy = "in progress" in str(error) or "scheduled" in str(error)
            return AofRewrite.BUSY if busy else AofRewrite.REFUSED
        return AofRewrite.BEGUN

    async def reset_command_log(self) -> CommandLogReset:
        """Have Redis forget the slow and large commands that it logged with their arguments."""
        try:
            try:
                for kind in ("slow", "large-request", "large-reply"):
                    await self._shards.send_to_all("COMMANDLOG", "RESET", kind)
            except Misconfigured as error:
                if error.cause != "unknown_command":
                    raise
                # Redis, and Valkey before 8.1, have the slow log only.
                await self._shards.send_to_all("SLOWLOG", "RESET")
        except (Misconfigured, ResponseError):
            return CommandLogReset.REFUSED
        return CommandLogReset.RESET

    async def advance(
        self,
        claim: EraseClaim,
        state: ErasureState,
        delay_s: float = 0,
        *,
        memory: MemoryErasure | None = None,
        log: AofRewrite | None = None,
        command_log: CommandLogReset | None = None,
    ) -> None:
        """Record how far it has come; release the lane until it is due again, or for good."""
        await self._run_fenced(
            steps.AdvanceErasure(
                lane=claim.lane,
                fence=claim.fence,
                state=state,
                delay_ms=milliseconds(delay_s) if delay_s else 0,
                receipt_ms=milliseconds(RECEIPT_S),
                aof=log or "",
                memory=memory or "",
                command_log=command_log or "",
            )
        )

    async def _run_fenced(self, arguments: Arguments) -> Sequence[Any]:
        """Run a script on the lane in its first argument; return what it answers after its word."""
        keys = self._shards.keys_of(arguments[0])
        word, *rest = await self._shards.run_script(keys, arguments)
        if word == "lost":
            raise LeaseLost("another worker holds this lane now")
        return rest
