"""The real workers, whose consumer asks its broker for nothing, or hangs, once a test says so."""

from __future__ import annotations

import threading
from typing import Any

from afterword.shared.discovery import settings_in_use
from afterword.workers.celery_runtime.consumer import Channel
from afterword.workers.celery_runtime.heartbeat import CONSUMER_HEARTBEAT
from tests.kit.workers.memory_fault_app import app

__all__ = ["app"]

_FOLDER = settings_in_use().data_dir
_start = Channel._brpop_start


def _start_unless_told_not_to(channel: Any, timeout: float | None = None) -> None:
    CONSUMER_HEARTBEAT.expect()  # as the real one does first: it may be the first request of all
    if (_FOLDER / "stuck").exists():
        threading.Event().wait()
    if not (_FOLDER / "deaf").exists():
        _start(channel, timeout)


setattr(Channel, "_brpop_start", _start_unless_told_not_to)  # noqa: B010 mypy knows no such change
