"""Somebody else's Celery app: everything as Celery has it by itself, on queues called like ours.

Its broker and its result backend are `PLAIN_REDIS_URL`.
"""

from __future__ import annotations

import os

from celery import Celery
from kombu import Queue

#: What it consumes: its default queue, and two that are called like ours.
QUEUES = ("celery", "replies", "memories")

ADD = "plain.add"


def make_plain_app(url: str) -> Celery:
    """Return the app; it becomes nobody's current one."""
    made = Celery("plain", broker=url, backend=url, set_as_current=False)
    made.conf.update(
        broker_connection_retry_on_startup=True,
        task_queues=[Queue(name) for name in QUEUES],
        task_send_sent_event=True,
        worker_send_task_events=True,
    )
    made.task(name=ADD)(_add)
    return made


def _add(one: int, other: int) -> int:
    return one + other


app = make_plain_app(os.environ.get("PLAIN_REDIS_URL", "redis://"))
