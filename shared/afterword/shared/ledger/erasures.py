"""The steps of erasing a user: whatever was said leaves the ledger, and nothing brings it back."""

from __future__ import annotations

from collections.abc import Sequence

from redis.exceptions import ResponseError

from afterword.shared.contracts import RECORD_VERSION
from afterword.shared.errors import LeaseLost, Misconfigured
from afterword.shared.ledger.records import (
    AofRewrite,
    EraseClaim,
    Erasure,
    ErasureState,
    MemoryErasure,
    moment,
)
from afterword.shared.ledger.shard import Shards, milliseconds

#: How long a receipt can be shown.
RECEIPT_S = 90 * 24 * 3600.0

#: Records of a lane's user that hold what was said, beside the jobs.
_OWNED = ("talk", "usage")


class Erasures:
    """Ask for an erasure, carry it out, show its receipt."""

    def __init__(self, shards: Shards) -> None:
        """Take the shards that the users live on."""
        self._shards = shards

    async def begin(self, lane: str, by: str) -> Erasure:
        """Begin to erase the user of a lane, or return the erasure that is under way."""
        await self._shards.run_for("erasure/begin", lane, RECORD_VERSION, by)
        found = await self.receipt(lane)
        assert found is not None, "it was just written, and outlives the day"
        return found

    async def receipt(self, lane: str) -> Erasure | None:
        """Return the newest erasure of that user, if there is one."""
        names = ("state", "by", "asked", "forgotten", "erased", "memory", "log")
        counted = ("jobs", "ended", "records")
        key = f"{self._shards.keys_of(lane).root}:erasure:{lane}"
        state, by, asked, forgotten, erased, memory, log, *counts = await self._shards.call(
            "HMGET", key, *names, *counted
        )
        if state is None:
            return None
        return Erasure(
            lane,
            ErasureState(state),
            by,
            moment(asked),
            moment(forgotten) if forgotten else None,
            moment(erased) if erased else None,
            MemoryErasure(memory) if memory else None,
            AofRewrite(log) if log else None,
            *(int(count or 0) for count in counts),
        )

    async def in_progress(self) -> Sequence[Erasure]:
        """Return every erasure that is not done, the oldest first in each shard."""
        lanes: list[str] = []
        for keys in self._shards.all:
            lanes += await self._shards.call("ZRANGE", f"{keys.root}:erasures", 0, -1)
        found = [await self.receipt(lane) for lane in lanes]
        return [erasure for erasure in found if erasure is not None]

    async def remove_records(self, claim: EraseClaim) -> None:
        """Take what the user said out of the ledger; raise `LeaseLost` if overtaken.

        Jobs first: once none of them is open, nobody writes to a conversation any more.
        """
        root = self._shards.keys_of(claim.lane).root
        retention_ms = milliseconds(self._shards.settings.retention_s)
        prefix = f"{root}:job:"
        async for keys in self._shards.scan(f"{prefix}*"):
            ids = [key.removeprefix(prefix) for key in keys]
            await self._step("erasure/empty_jobs", claim, retention_ms, RECORD_VERSION, *ids)
        for name in _OWNED:
            # An owner is percent-encoded: it holds no slash but its own, and no wildcard.
            whole = f"{root}:{name}:{claim.lane}"
            async for keys in self._shards.scan(f"{whole}*"):
                mine = [key for key in keys if key == whole or key.startswith(f"{whole}/")]
                await self._step("erasure/remove_keys", claim, *mine)

    async def rewrite_aof(self) -> AofRewrite:
        """Ask Redis to write its append-only file anew, without what was taken out."""
        try:
            await self._shards.call("BGREWRITEAOF")
        except Misconfigured:
            return AofRewrite.REFUSED
        except ResponseError as error:
            # One that began before what was taken out still writes it down.
            busy = "in progress" in str(error) or "scheduled" in str(error)
            return AofRewrite.BUSY if busy else AofRewrite.REFUSED
        return AofRewrite.BEGUN

    async def advance(
        self,
        claim: EraseClaim,
        state: ErasureState,
        delay_s: float = 0,
        *,
        memory: MemoryErasure | None = None,
        log: AofRewrite | None = None,
    ) -> None:
        """Say how far it has come and let go of the lane, until it is due again or for good."""
        delay_ms = milliseconds(delay_s) if delay_s else 0
        lifetime_ms = milliseconds(RECEIPT_S)
        told = (log or "", memory or "")
        await self._step("erasure/advance", claim, state, delay_ms, lifetime_ms, *told)

    async def _step(self, step: str, claim: EraseClaim, *arguments: str | float) -> None:
        if await self._shards.run_for(step, claim.lane, claim.fence, *arguments) == "lost":
            raise LeaseLost("someone newer owns this lane")
