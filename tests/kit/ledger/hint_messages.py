"""The message of a hint, built from JSON: what tests send, and hold the scripts to."""

from __future__ import annotations

import json

from afterword.shared.contracts import Priority
from afterword.shared.hints import TASK_OF
from afterword.shared.names import PRIORITY_STEPS, queue_list

_QUEUE_OF = {task: queue for queue, task in TASK_OF.items()}


def hint_message(task: str, arg: str, hint_id: str, *, step: int = 0) -> str:
    """Return the message that makes a worker run `task(arg)`; `step` is its priority step."""
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


def hint_list(queue: str, priority: Priority = "high", namespace: str = "afterword") -> str:
    """Return the Redis list that a queue's hints of one priority are in."""
    return queue_list(namespace, queue, PRIORITY_STEPS[priority])


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))
