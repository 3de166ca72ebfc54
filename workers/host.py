"""The Celery app of a worker: the shared one, with the tasks and what runs them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import partial

from celery import Celery

from shared.broker import make_app
from shared.settings import Settings
from workers import intake, tasks
from workers.pool import pool_of

#: How long a worker that was told to stop lets its jobs run: with what their cancellation takes,
#: less than the 30 s that Kubernetes and systemd's users commonly allow.
GRACE_S = 20.0


def worker_app(
    settings: Settings,
    runtime: Callable[[Settings], AbstractAsyncContextManager[tasks.Runtime]],
    *,
    grace_s: float = GRACE_S,
) -> Celery:
    """Build the app whose workers run jobs with what `runtime(settings)` gives.

    That context is entered once a worker process, on its event loop, before it takes the first
    hint, and closed after the last.
    """
    app = make_app(settings)
    app.conf.worker_pool = pool_of(partial(runtime, settings), grace_s=grace_s)
    app.conf.worker_consumer = f"{intake.__name__}:Consumer"
    tasks.register(app)
    return app
