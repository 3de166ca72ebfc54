"""`afterword submit`: one message in, a job id or a reply out."""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from afterword.producer.cli import render
from afterword.producer.cli.chat_wait import look
from afterword.producer.cli.command import command
from afterword.producer.cli.options import (
    Duration,
    PointInTime,
    json_option,
    tenant_option,
    with_options,
)
from afterword.producer.cli.terminal import echo, one_line
from afterword.producer.client.sync_client import Job, Producer
from afterword.shared.discovery import settings_in_use
from afterword.shared.errors import InvalidRequest, JobFailed, NoReplyInTime

_USER_OPTIONS = (
    click.option("--user", "user_id", required=True, metavar="USER_ID", help="Who is speaking."),
    tenant_option,
    click.option(
        "--conversation",
        "conversation_id",
        metavar="ID",
        help="Conversation of the message. Its messages are answered in order.",
    ),
    click.option(
        "--when-busy",
        type=click.Choice(["enqueue", "reject", "interrupt", "merge"]),
        default="enqueue",
        show_default=True,
        help="What to do while an earlier message of the conversation has no reply: wait for it, "
        "refuse this message, cancel the earlier ones, or join the newest if its reply has not "
        "begun.",
    ),
)

_REPLY_OPTIONS = (
    click.option(
        "--idempotency-key",
        metavar="KEY",
        help="Submitting the same message of the same user with the same key again gives the "
        "same job.",
    ),
    click.option("--system", metavar="TEXT", help="System prompt of this reply."),
    click.option("--model", metavar="NAME", help="Model of this reply. Default: AFTERWORD_MODEL."),
    click.option("--max-tokens", type=int, metavar="N", help="Most tokens of the reply."),
    click.option("--metadata", metavar="JSON", help="A JSON object that is kept with the job."),
    click.option(
        "--priority",
        type=click.Choice(["high", "normal", "low"]),
        default="normal",
        show_default=True,
        help="Jobs of a higher priority run first.",
    ),
    click.option(
        "--no-remember",
        "remember",
        flag_value=False,
        default=True,
        help="Answer with what memory knows, and store nothing of this message.",
    ),
    click.option(
        "--at",
        type=PointInTime(),
        help="When the message was said, if not now: ISO 8601 (UTC unless it has an offset), or a "
        "duration before now such as 10m, 2h or 3d.",
    ),
    click.option("--timezone", metavar="ZONE", help="Time zone of the user, as Europe/Berlin."),
    click.option(
        "--expires-in", type=Duration(), help="Give the job up after this long, such as 30s or 5m."
    ),
)

_OUTPUT_OPTIONS = (
    click.option(
        "--wait",
        "wait_s",
        type=Duration(),
        help="Wait this long for the reply, such as 60s, and print it.",
    ),
    click.option("--stream", is_flag=True, help="Print the reply while it is written."),
    json_option,
)


@command(
    exit_1="the job was not accepted; with --wait or --stream: it failed or has no reply in time",
    examples=[
        'afterword submit "I prefer Celsius." --user user_42',
        'afterword submit "How warm is 70 F?" --user user_42 --wait 60s',
        "afterword submit - --user user_42 --stream < message.txt",
    ],
)
@click.argument("message")
@with_options(*_USER_OPTIONS, *_REPLY_OPTIONS, *_OUTPUT_OPTIONS)
def submit(
    *, message: str, wait_s: float | None, stream: bool, as_json: bool, **fields: Any
) -> None:
    """Submit a message and print the id of its job, or its reply.

    MESSAGE is the text, or "-" to read standard input. With --stream --json, each event of the
    reply is printed as one line of JSON.
    """
    if stream and wait_s is not None:
        raise click.UsageError("--stream waits until the reply ends: leave out --wait")
    text = _standard_input() if message == "-" else message
    fields["metadata"] = _metadata(fields["metadata"])
    with Producer() as producer:
        job = producer.submit(message=text, **fields)
        if stream:
            _print_stream(job, as_json=as_json)
        elif wait_s is not None:
            _print_reply(job, wait_s, as_json=as_json)
        elif as_json:
            render.json_record({"job_id": job.id})
        else:
            echo(job.id)


def _standard_input() -> str:
    """Read the message byte by byte as it is; bytes that are no text are refused with it."""
    return sys.stdin.buffer.read().decode(errors="surrogateescape")


def _metadata(text: str | None) -> Any:
    if text is None:
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise InvalidRequest("metadata", "is not valid JSON") from None


def _print_reply(job: Job, wait_s: float, *, as_json: bool) -> None:
    try:
        reply = job.wait(timeout=wait_s)
    except NoReplyInTime:
        if found := look(job, settings_in_use()):
            echo(f"[Waiting: {one_line(found.text)}]", err=True)
        raise
    if as_json:
        render.json_record(reply)
    else:
        echo(reply.text)


def _print_stream(job: Job, *, as_json: bool) -> None:
    for event in job.stream():
        if as_json:
            render.json_line(event)
        elif event.type == "delta":
            echo(event.text or "", nl=False)
        elif event.type == "restart":
            echo("\n[Reply restarted]")
        elif event.type == "final":
            echo()
        if event.type == "failed":
            raise JobFailed(job.id, str(event.state), str(event.code))
