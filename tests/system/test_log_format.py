"""The lines that a worker logs, ours and Celery's, in the format of the settings."""

from __future__ import annotations

import json

import pytest

from afterword.shared.version import __version__
from tests.kit.waiting import wait_until
from tests.kit.workers.fleet import Fleet
from tests.kit.workers.forked_workers import REAL_APP

pytestmark = [pytest.mark.system, pytest.mark.redis]


@pytest.mark.parametrize("app", [REAL_APP, None], ids=["celery", "afterword"])
def test_each_line_is_one_json_object_if_so_set(app: str | None) -> None:
    with Fleet(AFTERWORD_LOG_FORMAT="json") as fleet:
        (worker,) = fleet.start("memories", app=app)

        # Celery says that it is ready after it has told us, and the last line may be half written.
        wait_until(lambda: '"celery.apps.worker"' in worker.log, "Celery has said that it is ready")
        lines = worker.log.rpartition("\n")[0].splitlines()
        entries = [json.loads(line) for line in lines if line.startswith("{")]
        (ready,) = [entry for entry in entries if entry.get("event") == "WorkerReady"]
        assert ready["level"] == "info"
        assert ready["queues"] == "memories"
        assert ready["concurrency"] > 0
        assert (ready["shards"], ready["memory"]) == (fleet.settings.shards, fleet.settings.backend)
        assert ready["models"] == "none", "the embedded memory extracts nothing"
        assert ready["version"] == __version__
        assert "[config]" not in worker.log, "Celery's banner is no line of a log"
        assert ready["worker"].endswith(f":{worker.process.pid}")
        assert any(entry["logger"].startswith("celery.") for entry in entries)


def test_text_is_the_default() -> None:
    with Fleet() as fleet:
        (worker,) = fleet.start("memories")

        (ready,) = [line for line in worker.log.splitlines() if " INFO ready: memories, " in line]
        assert " at once, ledger " in ready
        assert ready.startswith("20")
