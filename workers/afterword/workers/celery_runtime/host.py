"""The Celery app of a worker: the shared one, with the tasks and what runs them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import partial

from celery import Celery

from afterword.shared.broker import make_app
from afterword.shared.settings import Settings
from afterword.workers.celery_runtime import consumer as intake
from afterword.workers.celery_runtime import tasks
from afterword.workers.celery_runtime.pool import pool_of


def worker_app(
    settings: Settings,
    runtime: Callable[[Settings], AbstractAsyncContextManager[tasks.Runtime]],
) -> Celery:
    """Build the app whose workers run jobs with what `runtime(settings)` gives.

    That context is entered once a worker process, on its event loop, before it takes the first
    hint, and closed after the last.
    """
    app = make_app(settings)
    app.conf.worker_pool = pool_of(partial(runtime, settings), grace_s=settings.drain_s)
    app.conf.worker_consumer = f"{intake.__name__}:Consumer"
    tasks.register(app)
    # At INFO it writes a line for every hint.
    logging.getLogger("celery.worker.strategy").setLevel(logging.WARNING)
    return app
