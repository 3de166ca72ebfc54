"""What sessions of the console share in the ledger: what signs them, and which were ended."""

from __future__ import annotations

import secrets

from afterword.shared.ledger.records import reading
from afterword.shared.ledger.shard import Shards

#: Most sessions that are remembered as ended; of more, those that would be over first are not.
MOST_ENDED = 10_000

#: They are remembered for longer than they would last: the clock of another console may be late.
CLOCKS_S = 86_400


class ConsoleSessions:
    """Keeps the secret that signs sessions, and the sessions that were ended before their time.

    Both are on the first shard, so that all consoles of a fleet take the same sessions, and a
    restart ends none.
    """

    def __init__(self, shards: Shards) -> None:
        self._shards = shards
        self._secret, self._ended = shards.all[0].session_secret, shards.all[0].ended_sessions

    async def secret(self) -> bytes:
        """Return what signs sessions: random, and made when it is first asked for."""
        found = await self._shards.send_command("GET", self._secret)
        if found is None:
            await self._shards.send_command("SET", self._secret, secrets.token_hex(32), "NX")
            found = await self._shards.send_command("GET", self._secret)  # another may be first
        with reading("session secret"):
            return bytes.fromhex(found)

    async def end(self, session_id: str, now_s: float, until_s: float) -> None:
        """Refuse a session from now on; it would be over at `until_s` by itself."""
        send = self._shards.send_command
        await send("ZADD", self._ended, round(until_s), session_id)
        await send("ZREMRANGEBYSCORE", self._ended, "-inf", f"({round(now_s - CLOCKS_S)}")
        await send("ZREMRANGEBYRANK", self._ended, 0, -MOST_ENDED - 1)

    async def is_ended(self, session_id: str) -> bool:
        """Return whether a session was ended."""
        return await self._shards.send_command("ZSCORE", self._ended, session_id) is not None
