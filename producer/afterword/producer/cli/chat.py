"""`afterword chat`: a conversation on the terminal or through a pipe."""

from __future__ import annotations

import secrets
import sys
import time
from collections.abc import Iterator
from contextlib import nullcontext

import click

from afterword.producer.cli import render
from afterword.producer.cli.command import command
from afterword.producer.cli.local_stack import attached
from afterword.producer.cli.options import tenant_option
from afterword.producer.cli.terminal import echo, one_line
from afterword.producer.client.sync_client import Job, Producer
from afterword.shared.contracts import Reply
from afterword.shared.errors import AfterwordError
from afterword.shared.lifecycle import TurnState
from afterword.shared.settings import Settings

_FAREWELLS = frozenset({"quit", "exit"})

#: How long the end of a conversation waits for its last turns to be stored.
_STORED_S = 10.0
_LOOK_AGAIN_S = 0.1


@command(
    exit_1="the local stack does not start",
    examples=["afterword chat", "echo 'I prefer Celsius.' | afterword chat --user ann"],
)
@click.option(
    "--user", "user_id", default="me", show_default=True, metavar="USER_ID", help="Who you are."
)
@tenant_option
def chat(*, user_id: str, tenant: str) -> None:
    """Talk to a model that remembers you.

    Each line you type, or of a pipe, is a message; "quit" or the end of the input ends the chat.
    After each reply, lines in brackets say how many memories it was given and whether the turn
    goes to memory. Without AFTERWORD_REDIS_URL, this uses the local stack and starts it if it is
    not running.
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
            echo(f"[{one_line(str(error))}]")
    _wait_until_stored(jobs)


def _lines() -> Iterator[str]:
    """Yield each line that the user enters; echo it if it comes through a pipe."""
    piped = not sys.stdin.isatty()
    while True:
        echo("You: ", nl=False)
        line = sys.stdin.readline()
        if piped or not line:
            echo(line.rstrip("\n"))
        if not line or line.strip().lower() in _FAREWELLS:
            return
        if line.strip():
            yield line.strip()


def _turn(producer: Producer, speaker: dict[str, str], line: str) -> Job:
    job = producer.submit(message=line, user_id=speaker["user_id"], tenant=speaker["tenant"],
                          conversation_id=speaker["conversation_id"])  # fmt: skip
    echo("Agent: ", nl=False)
    for event in job.stream():
        if event.type == "delta":
            echo(event.text or "", nl=False)
        elif event.type == "restart":
            echo("\n[Reply restarted]\nAgent: ", nl=False)
        elif event.type == "failed":
            echo(f"[No reply: {event.code}]")
        elif event.reply is not None:
            echo()
            _print_memory(event.reply, job.status().turn)
    return job


def _print_memory(reply: Reply, turn: TurnState) -> None:
    echo(f"[Retrieved {len(reply.memories)} memories]")
    if reply.memory == "degraded":
        echo("[Memory could not be read for this reply]")
    if reply.memory != "off":
        echo(f"[Memory {'skipped' if turn is TurnState.SKIPPED else 'queued'}]")


def _wait_until_stored(jobs: list[Job]) -> None:
    """Give the memory workers a moment, so that the next chat finds these turns in memory."""
    give_up = time.monotonic() + _STORED_S
    while jobs and time.monotonic() < give_up:
        jobs = [job for job in jobs if not job.status().turn.settled]
        if jobs:
            time.sleep(_LOOK_AGAIN_S)  # noqa: TID251 nothing announces that a turn is stored
    if jobs:
        left = render.quantity(len(jobs), "turn")
        echo(f"[Not in memory yet: {left}; memory workers will store them]")
