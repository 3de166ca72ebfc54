"""`afterword chat`: a conversation on the terminal or through a pipe."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Iterator
from contextlib import nullcontext

import click

from afterword.producer.cli.chat_memory import QueuedTurns
from afterword.producer.cli.chat_output import print_turn
from afterword.producer.cli.command import command
from afterword.producer.cli.local_stack import attached
from afterword.producer.cli.options import tenant_option
from afterword.producer.cli.terminal import echo, one_line
from afterword.producer.client.sync_client import Job, Producer
from afterword.shared.errors import AfterwordError
from afterword.shared.settings import Settings

_FAREWELLS = frozenset({"quit", "exit"})

#: How long the end of a conversation waits for its last turns to be stored.
_STORED_S = 10.0


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
    Lines in brackets say which memories a reply was given, whether its turn goes to memory, and
    once that has happened. Without AFTERWORD_REDIS_URL, this uses the local stack and starts it if
    it is not running.
    """
    settings = Settings.load()
    with nullcontext() if settings.redis_url else attached() as stack:
        served = Settings.load(stack.env) if stack else settings
        with Producer(served) as producer:
            _converse(producer, {"user_id": user_id, "tenant": tenant})


def _converse(producer: Producer, speaker: dict[str, str]) -> None:
    speaker = speaker | {"conversation_id": f"chat-{secrets.token_hex(8)}"}
    queued = QueuedTurns()
    for line in _lines():
        try:
            queued.print_settled()
            job = _submit(producer, speaker, line)
            if print_turn(job):
                queued.add(job)
        except AfterwordError as error:
            echo(f"[{one_line(str(error))}]")
    queued.wait(_STORED_S)


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


def _submit(producer: Producer, speaker: dict[str, str], line: str) -> Job:
    return producer.submit(message=line, user_id=speaker["user_id"], tenant=speaker["tenant"],
                           conversation_id=speaker["conversation_id"])  # fmt: skip
