"""`afterword worker`: one worker, which is Celery's command with our options."""

from __future__ import annotations

import os
import sys

import click

from afterword.producer.admin.async_steering import QUEUES
from afterword.producer.cli.command import command
from afterword.producer.cli.local_stack import require
from afterword.shared.discovery import running_stack
from afterword.shared.settings import Settings


@command(
    exit_1="the worker stopped itself (other codes are those of Celery)",
    examples=["afterword worker responses --concurrency 1000", "afterword worker memories"],
    context_settings={"ignore_unknown_options": True},
)
@click.argument("kind", type=click.Choice(list(QUEUES)))
@click.option(
    "--concurrency",
    type=int,
    metavar="N",
    help="Jobs in flight at once. Default: AFTERWORD_CONCURRENCY.",
)
@click.argument("celery_options", nargs=-1, type=click.UNPROCESSED)
def worker(*, kind: str, concurrency: int | None, celery_options: tuple[str, ...]) -> None:
    """Run one worker in the foreground.

    "responses" workers reply to messages; "memories" workers write turns to memory. The command
    becomes `celery -A afterword.workers.app:app worker`; further options are passed to Celery.
    SIGTERM stops the worker after its jobs, or after AFTERWORD_DRAIN_S.
    """
    require("celery", "mem0", "anthropic", extra="workers")
    options = ["-Q", QUEUES[kind], "-n", f"{kind}-{os.getpid()}@%h"]
    options += ["--loglevel", Settings.load().log_level]
    if concurrency is not None:
        options += ["--concurrency", str(concurrency)]
    argv = [sys.executable, "-m", "celery", "-A", "afterword.workers.app:app", "worker"]
    environment = os.environ | _local_stack_environment()
    os.execve(sys.executable, [*argv, *options, *celery_options], environment)  # noqa: S606 ours


def _local_stack_environment() -> dict[str, str]:
    """Return the variables of a running local stack that the environment does not set."""
    settings = Settings.load()
    served = {} if settings.redis_url else running_stack(settings.data_dir) or {}
    return {name: value for name, value in served.items() if name not in os.environ}
