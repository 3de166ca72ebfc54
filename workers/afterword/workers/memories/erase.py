"""The erasure of a user, carried out by the worker that holds their lane."""

from __future__ import annotations

import asyncio

from afterword.shared.errors import ProviderError
from afterword.shared.events import ErasurePostponed, UserErased, UserForgotten
from afterword.shared.ledger.erasures import Erasures
from afterword.shared.ledger.records import AofRewrite, EraseClaim, ErasureState, MemoryErasure
from afterword.shared.names import owner_of
from afterword.shared.observer import emit
from afterword.workers.ports import Memories

#: Seconds until an erasure that mem0 could not carry out is tried again.
AGAIN_S = 30.0


class Eraser:
    """Removes a user from the ledger and from mem0, twice.

    What was under way when it was asked for may still reach mem0. So the user's lane is held
    until that must have ended, `settle_s` later; then it is done again, and for good.
    """

    def __init__(self, erasures: Erasures, memories: Memories | None, settle_s: float) -> None:
        self._erasures = erasures
        self._memories = memories
        self._settle_s = settle_s

    async def erase(self, claim: EraseClaim) -> None:
        """Carry out the next step of an erasure; raise `LeaseLost` if another worker took over."""
        await self._erasures.remove_records(claim)
        try:
            if self._memories is not None:
                await self._memories.forget(owner_of(claim.lane))
        except ProviderError as error:
            await self._postpone(claim, error.code)
            return
        except asyncio.CancelledError:
            await asyncio.shield(self._erasures.advance(claim, claim.state))
            raise
        if claim.state is ErasureState.ASKED and self._memories is not None:
            await self._erasures.advance(claim, ErasureState.FORGOTTEN, self._settle_s)
            emit(UserForgotten, delay_s=self._settle_s)
        else:
            await self._end(claim)

    async def _end(self, claim: EraseClaim) -> None:
        memory = MemoryErasure.OFF if self._memories is None else MemoryErasure.FORGOTTEN
        log = await self._erasures.rewrite_aof()
        if log is AofRewrite.BUSY:
            await self._postpone(claim, "log_rewrite_busy")
            return
        command_log = await self._erasures.reset_command_log()
        await self._erasures.advance(
            claim, ErasureState.ERASED, memory=memory, log=log, command_log=command_log
        )
        emit(UserErased, memory=memory, log=log, command_log=command_log)

    async def _postpone(self, claim: EraseClaim, code: str) -> None:
        await self._erasures.advance(claim, claim.state, AGAIN_S)
        emit(ErasurePostponed, code=code, delay_s=AGAIN_S)
