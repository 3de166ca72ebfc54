"""The message that tells a worker of one job or lane, as Celery expects it on a Redis list.

A worker that consumes `replies` runs what `LPUSH replies <envelope>` puts there; kombu keeps
each priority in a list of its own, see `afterword.shared.names.queue_key`. Lua scripts build the
same text by joining strings, and a test compares the two byte by byte.

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
"""

from __future__ import annotations

import json

from afterword.shared.names import MEMORIES, REPLIES, RUN_TASK, WRITE_TASK

#: What the hints in each queue ask for.
TASK_OF = {REPLIES: RUN_TASK, MEMORIES: WRITE_TASK}

_QUEUE_OF = {task: queue for queue, task in TASK_OF.items()}


def envelope(task: str, arg: str, hint_id: str, *, step: int = 0) -> str:
    """Build the message that makes a worker run `task(arg)`; `step` is its priority step."""
    message = {
        "body": _json([[arg], {}, {}]),
        "content-type": "application/json",
        "headers": {"task": task, "id": hint_id},
        "properties": {
            "delivery_info": {"exchange": "", "routing_key": _QUEUE_OF[task]},
            "priority": step,
            "delivery_tag": hint_id,
        },
    }
    return _json(message)


def split_agenda(agenda: str) -> tuple[str, int]:
    """Return the queue and the priority step that an agenda of the ledger is hinted through."""
    queue, _, step = agenda.rpartition(".")
    return queue, int(step)


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))
