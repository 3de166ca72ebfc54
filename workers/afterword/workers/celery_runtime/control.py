"""The control channel: the commands of Celery's remote control that workers follow, and no others.

Whoever may publish on the broker reaches every worker at once. So a message must have exactly the
form that Celery gives to one of the commands below, and what it says is checked before Celery or
kombu interprets any of it. Left out are commands that a signal or `afterword` does better
(`shutdown`, `revoke`), that show settings (`conf`, `report`), that make a worker slow
(`memdump`, `objgraph`), and patterns, which are regular expressions of whoever sends them.
"""

from __future__ import annotations

import base64
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from afterword.shared.names import MEMORIES, REPLIES

#: Longer messages are no commands. A command to 250 workers by their names fits.
MAX_COMMAND_BYTES = 65_536

_UUID = r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"
_Uuid = Annotated[str, StringConstraints(pattern=_UUID)]
_Queue = Annotated[str, StringConstraints(pattern=rf"^({REPLIES}|{MEMORIES})$")]


class _Exact(BaseModel):
    """Has these fields, of these types, and no others."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


class _Nothing(_Exact):
    pass


class _Active(_Exact):
    safe: Literal[True] | None = None


class _Registered(_Exact):
    taskinfoitems: Annotated[list[str], Field(max_length=0)] = []


class _Slots(_Exact):
    n: Annotated[int, Field(ge=1, le=10_000)] = 1


class _CancelConsumer(_Exact):
    queue: _Queue


class _AddConsumer(_CancelConsumer):
    exchange: None = None
    exchange_type: Literal["direct"] = "direct"
    routing_key: None = None


#: What workers do on command, and the form of each command's arguments.
COMMANDS: dict[str, type[_Exact]] = {
    "ping": _Nothing,
    "stats": _Nothing,
    "active": _Active,
    "reserved": _Nothing,
    "scheduled": _Nothing,
    "registered": _Registered,
    "active_queues": _Nothing,
    "pool_grow": _Slots,
    "pool_shrink": _Slots,
    "add_consumer": _AddConsumer,
    "cancel_consumer": _CancelConsumer,
}


class _ReplyTo(_Exact):
    exchange: Literal["reply.celery.pidbox"]
    routing_key: _Uuid


class _Command(_Exact):
    method: Annotated[str, StringConstraints(max_length=64)]
    arguments: dict[str, Any]
    destination: list[str] | None
    pattern: None
    matcher: None
    ticket: _Uuid | None = None
    reply_to: _ReplyTo | None = None


class _Headers(_Exact):
    clock: Annotated[int, Field(ge=0, lt=2**53)]
    expires: Annotated[float, Field(ge=0)]


class _DeliveryInfo(_Exact):
    exchange: Literal["celery.pidbox"]
    routing_key: Literal[""]


class _Properties(_Exact):
    delivery_mode: Literal[2]
    delivery_info: _DeliveryInfo
    priority: Literal[0]
    body_encoding: Literal["base64"]
    delivery_tag: _Uuid


class _Envelope(_Exact):
    body: str
    content_encoding: Annotated[Literal["utf-8"], Field(alias="content-encoding")]
    content_type: Annotated[Literal["application/json"], Field(alias="content-type")]
    headers: _Headers
    properties: _Properties


def refusal(raw: bytes) -> str:
    """Return why a message is no command of ours, as a code; "" if it is one."""
    if len(raw) > MAX_COMMAND_BYTES:
        return "too_large"
    try:
        envelope = _Envelope.model_validate_json(raw)
        command = _Command.model_validate_json(base64.b64decode(envelope.body, validate=True))
        if command.method not in COMMANDS:
            return "unknown_command"
        COMMANDS[command.method].model_validate(command.arguments)
    except ValueError:  # of pydantic, or of base64
        return "not_a_command"
    return ""
