"""How much may be open, and of whom: the caps on what one user, tenant or conversation submits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from afterword.shared.contracts import ChatRequest
from afterword.shared.environment import variable
from afterword.shared.errors import QueueFull
from afterword.shared.settings import LedgerSettings
from afterword.shared.tokens import BYTES_PER_TOKEN


class Cap(NamedTuple):
    """One cap: whose it is, the setting that is its number, and what that number counts."""

    scope: str
    setting: str
    counts: str


_JOBS, _BYTES, _HIGH = "open jobs", "bytes of open requests", "open jobs of the priority high"

#: Every cap by the name that `job/submit.lua` answers; the first seven in the order it takes them.
CAPS = {
    "tenant_jobs": Cap("tenant", "max_open_per_tenant", _JOBS),
    "tenant_bytes": Cap("tenant", "max_bytes_per_tenant", _BYTES),
    "user_jobs": Cap("user", "max_open_per_user", _JOBS),
    "user_bytes": Cap("user", "max_bytes_per_user", _BYTES),
    "conversation_jobs": Cap("conversation", "max_open_per_conversation", _JOBS),
    "conversation_bytes": Cap("conversation", "max_bytes_per_conversation", _BYTES),
    "tenant_high": Cap("tenant", "max_high_per_tenant", _HIGH),
    "shard_jobs": Cap("ledger", "max_queued", _JOBS),
}
_TAKEN = tuple(CAPS.values())[:7]

#: What an operator limits for a tenant, by the name that `job/submit.lua` answers.
_ORDERED = {"ordered_jobs": _JOBS, "ordered_bytes": _BYTES}

#: In which order they are looked at: whoever is refused learns of the narrowest cap.
_ORDER = (
    *("tenant_high", "conversation_jobs", "conversation_bytes"),
    *("user_jobs", "user_bytes", "tenant_jobs", "tenant_bytes", "shard_jobs"),
)


def longest_joined(settings: LedgerSettings) -> int:
    """Return the most bytes, as JSON, of a message that others were joined to."""
    return min(settings.max_message_bytes, settings.max_message_tokens * BYTES_PER_TOKEN)


def caps_argument(settings: LedgerSettings) -> str:
    """Return the caps as `job/submit.lua` takes them."""
    return " ".join(str(getattr(settings, cap.setting)) for cap in _TAKEN)


def running_caps_argument(settings: LedgerSettings, shards: int) -> str:
    """Return the caps on what runs at the same time, as `job/claim.lua` takes them.

    Each of the shards has its part of a tenant's cap.
    """
    return f"{settings.max_running_per_tenant} {settings.max_running_per_user} {shards}"


def queue_full(name: str, settings: LedgerSettings) -> QueueFull:
    """Return the error of a cap that is reached."""
    if name in _ORDERED:
        reason = f"an operator limits the {_ORDERED[name]} of the tenant; try again later"
        return QueueFull(reason, scope="tenant", setting="")
    cap = CAPS[name]
    setting = variable(cap.setting)
    most = getattr(settings, cap.setting)
    reason = f"{setting}: the {cap.scope} may have {most} {cap.counts}; try again later"
    return QueueFull(reason, scope=cap.scope, setting=setting)


def cap_reached(
    request: ChatRequest,
    opened: Sequence[ChatRequest],
    settings: LedgerSettings,
    *,
    interrupts: bool = False,
    joins: bool = False,
) -> str | None:
    """Return the name of the cap that `job/submit.lua` would refuse a request for, if any.

    One that `interrupts` ends at least as many jobs as it begins: only its priority is capped. One
    that `joins` takes the place of an open job: only its bytes are.
    """
    of_tenant = [one for one in opened if one.tenant == request.tenant]
    of_user = [one for one in of_tenant if one.user_id == request.user_id]
    talk = [one for one in of_user if one.conversation_id == request.conversation_id]
    of_scope = {"ledger": opened, "tenant": of_tenant, "user": of_user}
    of_scope["conversation"] = talk if request.conversation_id else []
    for name in _ORDER:
        cap = CAPS[name]
        most = getattr(settings, cap.setting)
        if joins and cap.counts != _BYTES:
            continue
        if most and _reached(cap, most, request, of_scope[cap.scope], interrupts=interrupts):
            return name
    return None


def _reached(
    cap: Cap, most: int, request: ChatRequest, opened: Sequence[ChatRequest], *, interrupts: bool
) -> bool:
    if cap.counts == _HIGH:
        high = sum(one.priority == "high" for one in opened)
        return request.priority == "high" and high >= most
    if interrupts:
        return False
    if cap.counts == _JOBS:
        return len(opened) >= most
    return sum(len(one.body().encode()) for one in (*opened, request)) > most
