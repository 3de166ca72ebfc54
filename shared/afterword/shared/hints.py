"""The message that tells a worker of one job or lane, as Celery expects it on a Redis list.

A worker that consumes `replies` runs what `LPUSH replies <message>` puts there; kombu keeps each
priority in a list of its own, see `afterword.shared.names.queue_key`. The Lua scripts build the
message, by joining strings (`hint_message` in `ledger/lua/_lib.lua`).

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

from afterword.shared.names import MEMORIES, REPLIES, RUN_TASK, WRITE_TASK

#: The task that the hints of each queue run.
TASK_OF = {REPLIES: RUN_TASK, MEMORIES: WRITE_TASK}


def split_agenda(agenda: str) -> tuple[str, int]:
    """Return the queue and the priority step of an agenda's hints."""
    queue, _, step = agenda.rpartition(".")
    return queue, int(step)
