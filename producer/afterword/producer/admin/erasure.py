"""Erasing a user, as an operator asks for it and sees it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pydantic import TypeAdapter, ValidationError

from afterword.shared.contracts import Id
from afterword.shared.errors import InvalidRequest
from afterword.shared.ledger.ledger import Ledger
from afterword.shared.ledger.records import AofRewrite, Erasure, ErasureState, MemoryErasure
from afterword.shared.names import lane_id, memory_key, shard_of

_ID: TypeAdapter[str] = TypeAdapter(Id)


@dataclass(frozen=True, slots=True)
class ErasureReceipt:
    """How far the erasure of a user has come; once it is `erased`, the receipt of it.

    `forgotten_at` is when everything was removed, `erased_at` when that was done once more, after
    whatever was on its way to mem0 must have arrived. `memory` says whether mem0 forgot them; `off`
    means that memory is off, so that only the ledger was emptied, in one pass. `log` says whether
    Redis then began to write its append-only file anew: if it `refused`, that is left to whoever
    runs it. `jobs` are the records that were emptied, `ended` those of them that had to be ended
    first, `records` conversations and the like.
    """

    user_id: str
    tenant: str
    state: ErasureState
    asked_by: str
    asked_at: datetime
    forgotten_at: datetime | None
    erased_at: datetime | None
    memory: MemoryErasure | None
    log: AofRewrite | None
    jobs: int
    ended: int
    records: int


async def forget(ledger: Ledger, user_id: str, tenant: str, by: str) -> ErasureReceipt:
    """Ask for a user to be erased, or return the erasure that is under way."""
    lane = _lane(ledger, user_id, tenant)
    return _shown(await ledger.erasures.begin(lane, by), user_id, tenant)


async def erasure(ledger: Ledger, user_id: str, tenant: str) -> ErasureReceipt | None:
    """Return the newest erasure of a user, None if nobody asked for one."""
    found = await ledger.erasures.receipt(_lane(ledger, user_id, tenant))
    return None if found is None else _shown(found, user_id, tenant)


def _lane(ledger: Ledger, user_id: str, tenant: str) -> str:
    owner = memory_key(_checked("tenant", tenant), _checked("user_id", user_id))
    return lane_id(owner, shard_of(owner, ledger.settings.shards))


def _checked(field: str, value: str) -> str:
    """Return an id; raise `InvalidRequest` if no job could ever have had it."""
    try:
        return _ID.validate_python(value)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False, include_context=False)[0]
        raise InvalidRequest(field, first["msg"][:1].lower() + first["msg"][1:]) from None


def _shown(found: Erasure, user_id: str, tenant: str) -> ErasureReceipt:
    told: dict[str, Any] = {
        name: getattr(found, name)
        for name in ErasureReceipt.__dataclass_fields__
        if name not in ("user_id", "tenant")
    }
    return ErasureReceipt(user_id, tenant, **told)
