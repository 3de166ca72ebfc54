"""The door of the control channel: what a worker does on command."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import strategies as st

from afterword.workers.celery_runtime.control import COMMANDS, MAX_COMMAND_BYTES, refusal
from tests.kit.fuzz.broken import Broken, broken
from tests.kit.fuzz.doors import door

pytestmark = pytest.mark.finding(14)

_UUID = "57ad13ed-c177-44d1-9caf-af41431bf2bb"

#: As Celery 5.7 and kombu 5.7 send it; `tests/system/test_consumer.py` sends the real ones.
COMMAND: dict[str, Any] = {
    "method": "pool_grow",
    "arguments": {"n": 2},
    "destination": ["replies@host"],
    "pattern": None,
    "matcher": None,
    "ticket": _UUID,
    "reply_to": {"exchange": "reply.celery.pidbox", "routing_key": _UUID},
}
ENVELOPE: dict[str, Any] = {
    "body": base64.b64encode(json.dumps(COMMAND).encode()).decode(),
    "content-encoding": "utf-8",
    "content-type": "application/json",
    "headers": {"clock": 1, "expires": 1796024994.5},
    "properties": {
        "delivery_mode": 2,
        "delivery_info": {"exchange": "celery.pidbox", "routing_key": ""},
        "priority": 0,
        "body_encoding": "base64",
        "delivery_tag": _UUID,
    },
}

#: What may change in a command that is followed all the same, and has no other meaning then.
_FREE = [("headers", "clock"), ("headers", "expires")]
_OPTIONAL = [("ticket",), ("reply_to",), ("destination",), ("destination", 0), ("arguments", "n")]


def said(command: object, envelope: dict[str, Any] = ENVELOPE) -> bytes:
    """Return the bytes of a command."""
    body = base64.b64encode(json.dumps(command).encode()).decode()
    return json.dumps(envelope | {"body": body}).encode()


def test_every_command_is_followed_as_celery_sends_it() -> None:
    assert refusal(said(COMMAND)) == ""
    required = {"add_consumer": {"queue": "replies"}, "cancel_consumer": {"queue": "memories"}}
    for method in COMMANDS:
        plain = {"method": method, "arguments": required.get(method, {})}
        assert refusal(said(COMMAND | plain)) == "", method


@door("commands", command=broken(COMMAND))
def test_a_command_with_one_field_broken_is_not_followed(command: Broken) -> None:
    refused = refusal(said(command.value))
    assert refused in ("", "not_a_command", "unknown_command", "too_large")
    if command.where in _OPTIONAL or command.where == ("arguments",):
        return  # may be left out, or be another one of the right type: the next door looks at it
    assert refused


@door("envelopes of commands", envelope=broken(ENVELOPE))
def test_a_command_in_a_broken_envelope_is_not_followed(envelope: Broken) -> None:
    refused = refusal(json.dumps(envelope.value).encode())
    assert refused or envelope.where in _FREE or envelope.value == ENVELOPE


@door("arguments of commands", method=st.sampled_from(sorted(COMMANDS)), given=broken({"n": 2}))
def test_the_arguments_of_an_accepted_command_are_bounded(method: str, given: Broken) -> None:
    if refusal(said(COMMAND | {"method": method, "arguments": given.value})):
        return
    slots = given.value.get("n", 1) if method.startswith("pool_") else 1
    assert isinstance(slots, int)
    assert 1 <= slots <= 10_000
    assert given.value.keys() <= {"n"}


@pytest.mark.parametrize(
    "raw",
    [b"[1]", b"5", b'"a"', b"{}", b"null", b"", b"\xff", b"NaN", b"[" * 60_000, b'{"body":' * 7000],
)
def test_a_message_that_is_no_command_is_not_followed(raw: bytes) -> None:
    assert refusal(raw) == "not_a_command"


@pytest.mark.parametrize("method", ["shutdown", "revoke", "conf", "rate_limit", "memdump", "x"])
def test_a_command_that_is_not_supported_is_not_followed(method: str) -> None:
    assert refusal(said(COMMAND | {"method": method, "arguments": {}})) == "unknown_command"


def test_a_pattern_is_not_followed() -> None:
    """It is a regular expression of the sender's, which can take for ever."""
    slow = {"pattern": "(a+)+$", "matcher": "pcre", "destination": None}
    assert refusal(said(COMMAND | slow)) == "not_a_command"


def test_no_longer_message_is_read() -> None:
    assert refusal(said(COMMAND).ljust(MAX_COMMAND_BYTES + 1)) == "too_large"
