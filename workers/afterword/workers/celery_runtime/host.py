"""The Celery app of a worker process: the shared app plus our pool, consumer and tasks."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any

from celery import Celery
from celery.signals import after_setup_logger, after_setup_task_logger, celeryd_init

from afterword.shared.broker import make_app
from afterword.shared.logs import LOGGER, formatter, log_events
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
    _set_up_logging(settings)
    celeryd_init.connect(_prepare, weak=False)
    return app


def _prepare(instance: Any, conf: Any, options: Mapping[str, Any], **_: object) -> None:
    """Leave Celery's banner out: `WorkerReady` says what the worker is, in the format of a log."""
    instance.quiet = True
    if options.get("concurrency"):
        conf.worker_concurrency = options["concurrency"]


def _set_up_logging(settings: Settings) -> None:
    """Log events, at the level and in the format of the settings.

    Celery creates the handlers and sets the level of the root logger, from its options.
    """
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    LOGGER.setLevel(level)
    log_events(level)
    form = formatter(settings.log_format)

    def format_lines(logger: logging.Logger, **_: object) -> None:
        for handler in logger.handlers:
            handler.setFormatter(form)

    after_setup_logger.connect(format_lines, weak=False)
    after_setup_task_logger.connect(format_lines, weak=False)
    # At INFO, Celery logs one line for every hint; at DEBUG, its pool logs what the hint says.
    logging.getLogger("celery.worker.strategy").setLevel(logging.WARNING)
    logging.getLogger("celery.pool").setLevel(logging.INFO)
