"""`afterword chat`: a conversation on the terminal or through a pipe."""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial

import click

from afterword.producer.cli.chat_commands import is_command, message_in, run_command
from afterword.producer.cli.chat_input import open_input
from afterword.producer.cli.chat_output import print_turn
from afterword.producer.cli.chat_session import ChatSession, interrupt_deferred
from afterword.producer.cli.chat_wait import explained, look, print_unread
from afterword.producer.cli.command import command
from afterword.producer.cli.local_stack import attached, left_at_once
from afterword.producer.cli.options import tenant_option
from afterword.producer.cli.terminal import WaitingMark, echo, one_line
from afterword.producer.client.sync_client import Job, Producer
from afterword.shared.errors import AfterwordError, InvalidRequest
from afterword.shared.settings import Settings

_FAREWELLS = frozenset({"quit", "exit"})
_ENDS = "Ctrl-C again, or Ctrl-D, ends the chat"

_HINT = '[/memories shows what is remembered, /help all commands; "quit" ends the chat]'

_SMALL_MODEL = """\
[model] No ANTHROPIC_API_KEY: SmolLM2, a tiny model on this machine, answers.
[model] Tell it a fact, quit, come back and ask. Its numbers are often wrong, and
[model] it knows only English; memories are found in any language.
[model] To talk to Claude: export ANTHROPIC_API_KEY=..., then start again."""

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

    Each line you type, or of a pipe, is a message or a command; /help lists those, and "quit" or
    the end of the input ends the chat. On a terminal, Ctrl-C stops a reply. Lines in brackets say
    which memories a reply was given, whether its turn goes to memory, and once that has happened.
    Without AFTERWORD_REDIS_URL, this uses the local stack and starts it if it is not running.
    """
    settings = Settings.load()
    with nullcontext() if settings.redis_url else attached() as stack:
        served = Settings.load(stack.env) if stack else settings
        with Producer(served) as producer, left_at_once(stack):
            session = ChatSession(producer, served, open_input(), tenant)
            session.speak_as(user_id)
            if stack and stack.has_small_model:
                echo(_SMALL_MODEL, err=True)
            if session.source.interactive:
                echo(_HINT, err=True)
            _converse(session)


def _converse(session: ChatSession) -> None:
    while True:
        try:
            line = session.source.read()
            if line is None or _is_farewell(line):
                break
            session.interrupted = False
            _answer(session, line.strip())
        except KeyboardInterrupt:
            if session.interrupted or not session.source.interactive:
                raise
            session.interrupted = True
            echo(f"[{_ENDS}]")
        except InvalidRequest as error:
            if not session.source.interactive:
                raise
            _print_error(error)
    if not session.interrupted:
        session.queued.wait(_STORED_S)


def _is_farewell(line: str) -> bool:
    return line.strip().lower().removeprefix("/") in _FAREWELLS


def _answer(session: ChatSession, line: str) -> None:
    typed = session.source.interactive
    if is_command(line, typed=typed):
        _command(session, line)
    elif line:
        try:
            _turn(session, message_in(line, typed=typed))
        except AfterwordError as error:
            _print_error(error)


def _command(session: ChatSession, line: str) -> None:
    """Run a command; raise `InvalidRequest` if that ends a pipe: its next lines build on it."""
    if not session.source.interactive:
        session.queued.wait(_STORED_S)  # nobody sees there whether what was said is stored
    try:
        run_command(session, line)
    except InvalidRequest:
        raise
    except AfterwordError as error:
        _print_error(error)


def _print_error(error: AfterwordError) -> None:
    echo(f"[{one_line(str(error))}]")


def _turn(session: ChatSession, message: str) -> None:
    job = None
    session.queued.print_settled()
    try:
        with interrupt_deferred():
            job = session.submit(message)
        why = partial(look, job, session.settings)
        mark = WaitingMark(can_erase=session.source.edits)
        session.last_reply = reply = print_turn(explained(job.stream(), why, mark=mark))
        if reply and reply.not_remembered is None:
            session.queued.add(job)
        if reply and reply.memory == "degraded":
            print_unread(job, session.settings, session.told)
    except KeyboardInterrupt:
        if job is None:
            raise
        _stop(session, job)


def _stop(session: ChatSession, job: Job) -> None:
    """Cancel a job, so that it costs nothing more; another Ctrl-C meanwhile ends the chat."""
    session.interrupted = True
    stopped = job.cancel()
    if not session.source.interactive:
        raise KeyboardInterrupt
    echo(f"[{'Stopped' if stopped else 'It was complete already'}. {_ENDS}]")
