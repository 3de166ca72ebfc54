"""What the rate limits of a provider have left: shared by the fleet, reserved before each call."""

from __future__ import annotations

from collections.abc import Sequence

from afterword.shared.ledger import steps
from afterword.shared.ledger.quota_records import QuotaChange, QuotaLevel, Refused, Reserved
from afterword.shared.ledger.shard import Shards


class Quotas:
    """Reserves and settles; all quotas are on the first shard.

    They are a shared guess, which the headers of each answer correct. If they are lost, nothing is:
    the next answer tells them again.
    """

    def __init__(self, shards: Shards) -> None:
        self._shards = shards
        self._keys = shards.all[0]

    async def reserve(
        self, name: str, input_tokens: int, output_tokens: int, *, reply: bool, returning: bool
    ) -> Reserved | Refused | None:
        """Reserve what a call will probably use; None if no limit is known."""
        arguments = steps.ReserveQuota(
            quota=name,
            input=input_tokens,
            output=output_tokens,
            reply=reply,
            returning=returning,
        )
        word, *found = await self._shards.run_script(self._keys, arguments)
        if word == "admitted":
            number, slot, percent = found
            return Reserved(int(number), str(slot), int(percent) / 100)
        return Refused(max(1, int(found[0])) / 1000) if word == "refused" else None

    async def settle(
        self,
        name: str,
        changes: Sequence[QuotaChange],
        told: Sequence[QuotaLevel] = (),
        number: int = 0,
    ) -> None:
        """Say what became of reservations, and what the answer to call `number` told."""
        arguments = steps.SettleQuota(
            quota=name,
            number=number,
            told=" ".join(map(_told, told)),
            changes=[(one.slot, one.part, one.less, one.back) for one in changes],
        )
        await self._shards.run_script(self._keys, arguments)


def _told(level: QuotaLevel) -> str:
    return f"{level.part} {level.limit} {level.remaining} {max(1, round(level.refill_s * 1000))}"
