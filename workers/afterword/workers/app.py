"""The Celery app of the workers: `celery -A afterword.workers.app:app worker`."""

from __future__ import annotations

from functools import partial

from celery import Celery
from celery.signals import worker_ready

from afterword.shared.discovery import settings_in_use
from afterword.shared.errors import Misconfigured
from afterword.workers.celery_runtime.host import worker_app
from afterword.workers.sd_notify import notify_ready
from afterword.workers.wiring import runtime


def _consumed() -> set[str]:
    """Return the queues that this worker was told to consume; all of them without `-Q`."""
    return set(app.amqp.queues.consume_from)


def _concurrency() -> int:
    """Return how many hints this worker takes at once."""
    return int(app.conf.worker_concurrency)


try:
    app: Celery = worker_app(
        settings_in_use(), partial(runtime, queues=_consumed, concurrency=_concurrency)
    )
except Misconfigured as error:
    # One line and an exit code; of a module that raises, Celery prints every frame.
    raise SystemExit(f"cannot start: {error}") from None


@worker_ready.connect(weak=False)
def _ready(**_: object) -> None:
    """Tell systemd, or the embedded stack, that this worker takes hints from now on."""
    notify_ready()
