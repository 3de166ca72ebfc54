"""Celery as its documentation shows it, with late acknowledgement: prefork, threads or gevent."""

from __future__ import annotations

import sys
from functools import cache
from typing import TYPE_CHECKING

from celery import Celery, maybe_patch_concurrency

maybe_patch_concurrency()  # before all other imports, as `celery worker -P gevent` does

from benchmarks.peers.jobs import REDIS, jobs  # noqa: E402

if TYPE_CHECKING:
    from benchmarks.peers.blocking_clients import Clients

app = Celery("peer", broker=REDIS)
app.conf.update(task_acks_late=True, task_ignore_result=True, worker_prefetch_multiplier=1)


@cache
def _clients() -> Clients:
    from benchmarks.peers.blocking_clients import Clients

    return Clients()


@app.task(name="peer.job")
def job(job_id: str, user: str, message: str) -> None:
    """Do the job."""
    _clients().job(job_id, user, message)


if __name__ == "__main__":
    if sys.argv[1] == "work":
        import benchmarks.peers.blocking_clients  # noqa: F401 before the fork

        app.worker_main(["worker", "--without-gossip", "--without-mingle", "--without-heartbeat",
                         "--loglevel", "ERROR", *sys.argv[2:]])  # fmt: skip
    else:
        with app.producer_or_acquire() as producer:
            for arguments in jobs(sys.argv[2], int(sys.argv[3])):
                job.apply_async(arguments, producer=producer)
