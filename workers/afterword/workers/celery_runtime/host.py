"""The Celery app of a worker process: the shared app plus our pool, consumer and tasks."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import partial

from celery import Celery

from afterword.shared.broker import make_app
from afterword.shared.settings import Settings
from afterword.workers.celery_runtime import consumer, tasks
from afterword.workers.celery_runtime.pool import pool_class


def worker_app(
    settings: Settings,
    runtime: Callable[[Settings], AbstractAsyncContextManager[tasks.Runtime]],
) -> Celery:
    """Build the Celery app whose workers pass their jobs to `runtime(settings)`.

    Each worker process enters that context once, on its event loop, before it takes the first
    hint, and leaves it after the last job.
    """
    app = make_app(settings)
    app.conf.worker_pool = pool_class(partial(runtime, settings), grace_s=settings.drain_s)
    app.conf.worker_consumer = f"{consumer.__name__}:Consumer"
    tasks.register(app)
    # At INFO, Celery logs one line for every hint.
    logging.getLogger("celery.worker.strategy").setLevel(logging.WARNING)
    return app
