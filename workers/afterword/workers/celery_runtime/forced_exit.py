"""The end of a worker process that cannot come to one by itself."""

from __future__ import annotations

import logging
import os
import threading

from celery.platforms import EX_FAILURE
from celery.worker import state

logger = logging.getLogger(__name__)


def stop_worker() -> None:
    """Have Celery stop this worker, warm, and tell its supervisor that it failed."""
    state.should_stop = EX_FAILURE  # type: ignore[assignment]


def end_within(limit_s: float) -> None:
    """End this process by force, and as failed, unless it has ended by itself by then.

    Python waits at its end for every thread of an executor, and one that hangs in a call, of mem0
    say, would keep it from ending for ever.
    """
    last_resort = threading.Timer(limit_s, _end, (limit_s,))
    last_resort.daemon = True  # a process that ends in time does not wait for it
    last_resort.start()


def _end(limit_s: float) -> None:
    logger.critical("the process did not end within %g s, so it is ended by force", limit_s)
    os._exit(EX_FAILURE)
