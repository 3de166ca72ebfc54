"""The message that tells a worker of one job or lane, as Celery expects it on a Redis list.

A worker that consumes `replies` runs what `LPUSH afterword:replies <message>` puts there, where
`afterword` is the namespace; kombu keeps each priority in a list of its own, see
`afterword.shared.names.queue_list`. The Lua scripts build the message, by joining strings
(`hint_message` in `ledger/lua/_lib.lua`).

It has what Celery 5.7 does not run a message without, and no more, for it is kept in memory while
its job is queued:

- `body`: `[args, kwargs, embed]` as JSON text; with no `body_encoding` it is taken as it is, and
  with no `content-encoding` as UTF-8,
- `content-type`: says that the body is JSON; the only type that workers accept,
- `headers.task` and `headers.id`: what to run, and under which id; ids must differ,
- `properties.delivery_tag`: the message's name among the unacknowledged ones; must be unique,
- `properties.delivery_info`: `exchange` (the direct one has no name) and `routing_key` (the
  queue), which with `properties.priority` say where an unacknowledged message goes back to.

With no `argsrepr` and no `kwargsrepr` Celery shows no arguments in logs and events.

A worker accepts these bytes and no others: what Celery or kombu would make of any other field
(a compression, an encoding, a time limit, a callback) is never found out.
"""

from __future__ import annotations

import json
import re
from typing import Any

from afterword.shared.names import MEMORIES, REPLIES, RUN_TASK, WRITE_TASK, lane_tag

#: The task that the hints of each queue run.
TASK_OF = {REPLIES: RUN_TASK, MEMORIES: WRITE_TASK}

#: Longer messages are no hints. The longest hint, of a lane with two ids of 128 characters that
#: take four bytes each, has less than two thirds of it.
MAX_HINT_BYTES = 16_384

#: What a hint of each task names: a job, or the lane of a user.
NAME_OF = {
    RUN_TASK: re.compile(r"j[0-9a-f]{2}_[0-9a-f]{32}"),
    WRITE_TASK: re.compile(r"l[0-9a-f]{2}_[A-Za-z0-9_.~%-]+/[A-Za-z0-9_.~%-]+"),
}

#: Printable ASCII that JSON does not escape. Without backtracking: no class holds what follows it.
_TEXT = r"[ !#-\[\]-~]+"
_HINT = re.compile(
    r'\{"body":"\[\[\\"(?P<name>' + _TEXT + r')\\"\],\{\},\{\}\]",'
    r'"content-type":"application/json",'
    r'"headers":\{"task":"(?P<task>[A-Za-z0-9_.]{1,64})","id":"(?P<id>' + _TEXT + r')"\},'
    r'"properties":\{"delivery_info":\{"exchange":"","routing_key":"(?P<queue>[a-z]+)"\},'
    r'"priority":[036],"delivery_tag":"(?P=id)"\}\}'
)


class NotAHint(ValueError):
    """A queue held something else than a hint; `reason` is a code, `task` a task nobody knows."""

    def __init__(self, reason: str, task: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.task = task


def hint_message(agenda: str, name: str, number: int) -> str:
    """Return the message of a hint; no two hints of one name may have the same number."""
    queue, step = split_agenda(agenda)
    tag = f"{name}.{number}"
    message = {
        "body": _json([[name], {}, {}]),
        "content-type": "application/json",
        "headers": {"task": TASK_OF[queue], "id": tag},
        "properties": {
            "delivery_info": {"exchange": "", "routing_key": queue},
            "priority": step,
            "delivery_tag": tag,
        },
    }
    return _json(message)


def read_hint(raw: bytes, queue: str) -> dict[str, Any]:
    """Return the message that a queue held, parsed; raise `NotAHint` unless it is a hint of ours.

    Nothing of the message is interpreted before all its bytes are known to be a hint's. The id of a
    lane's hint becomes one that does not repeat the user's: Celery shows and logs ids.
    """
    if len(raw) > MAX_HINT_BYTES:
        raise NotAHint("too_large")
    hint = _HINT.fullmatch(raw.decode("latin-1"))
    if hint is None:
        raise NotAHint("not_a_hint")
    if hint["task"] not in NAME_OF:
        raise NotAHint("unknown_task", hint["task"])
    if hint["queue"] != queue or not NAME_OF[hint["task"]].fullmatch(hint["name"]):
        raise NotAHint("not_a_hint")
    message: dict[str, Any] = json.loads(raw)
    if hint["task"] == WRITE_TASK:
        shown = f"{lane_tag(hint['name'])}.{hint['id'].rpartition('.')[2]}"
        message["headers"]["id"] = message["properties"]["delivery_tag"] = shown
    return message


def split_agenda(agenda: str) -> tuple[str, int]:
    """Return the queue and the priority step of an agenda's hints."""
    queue, _, step = agenda.rpartition(".")
    return queue, int(step)


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))
