"""`afterword chat`: a conversation on the terminal or through a pipe."""

from __future__ import annotations

import secrets
import sys
import time
from collections.abc import Iterator
from contextlib import nullcontext

import click

from afterword.producer.cli.render import tenant_option
from afterword.producer.cli.stack import attached
from afterword.producer.client.sync_client import Job, Producer
from afterword.shared.contracts import Reply
from afterword.shared.errors import AfterwordError
from afterword.shared.lifecycle import TurnState
from afterword.shared.settings import Settings

_FAREWELLS = frozenset({"quit", "exit"})

#: How long the end of a conversation waits for its last turns to be stored.
STORED_S = 10.0
LOOK_AGAIN_S = 0.1


@click.command()
@click.option("--user", "user_id", default="me", show_default=True, help="Who is speaking.")
@tenant_option
def chat(*, user_id: str, tenant: str) -> None:
    """Talk to a model that remembers you; `quit` or the end of the input ends it.

    Starts the embedded stack if nothing is configured or running.
    """
    settings = Settings.load()
    with nullcontext() if settings.redis_url else attached() as stack:
        served = Settings.load(stack.env) if stack else settings
        with Producer(served) as producer:
            _converse(producer, {"user_id": user_id, "tenant": tenant})


def _converse(producer: Producer, speaker: dict[str, str]) -> None:
    speaker = speaker | {"conversation_id": f"chat-{secrets.token_hex(8)}"}
    jobs: list[Job] = []
    for line in _lines():
        try:
            jobs.append(_turn(producer, speaker, line))
        except AfterwordError as error:
            click.echo(f"[{error}]")
    _see_off(jobs)


def _lines() -> Iterator[str]:
    """Give each line the user says; echo it if it comes through a pipe."""
    piped = not sys.stdin.isatty()
    while True:
        click.echo("You: ", nl=False)
        line = sys.stdin.readline()
        if piped or not line:
            click.echo(line.rstrip("\n"))
        if not line or line.strip().lower() in _FAREWELLS:
            return
        if line.strip():
            yield line.strip()


def _turn(producer: Producer, speaker: dict[str, str], line: str) -> Job:
    job = producer.submit(message=line, user_id=speaker["user_id"], tenant=speaker["tenant"],
                          conversation_id=speaker["conversation_id"])  # fmt: skip
    click.echo("Agent: ", nl=False)
    for event in job.stream():
        if event.type == "delta":
            click.echo(event.text, nl=False)
        elif event.type == "restart":
            click.echo("\n[the reply begins anew]\nAgent: ", nl=False)
        elif event.type == "failed":
            click.echo(f"[no reply: {event.code}]")
        elif event.reply is not None:
            click.echo()
            _footnotes(event.reply, job.status().turn)
    return job


def _footnotes(reply: Reply, turn: TurnState) -> None:
    click.echo(f"[Retrieved {len(reply.memories)} memories]")
    if reply.memory == "degraded":
        click.echo("[Memory could not be read for this reply]")
    if reply.memory != "off":
        click.echo(f"[Memory {'skipped' if turn is TurnState.SKIPPED else 'queued'}]")


def _see_off(jobs: list[Job]) -> None:
    """Give the memory worker a moment, so that what was said is there next time at once."""
    give_up = time.monotonic() + STORED_S
    while jobs and time.monotonic() < give_up:
        jobs = [job for job in jobs if not job.status().turn.settled]
        if jobs:
            time.sleep(LOOK_AGAIN_S)  # noqa: TID251 nothing announces that a turn is stored
    if jobs:
        click.echo(f"[{len(jobs)} turns are still to be stored; they will be, next time]")
