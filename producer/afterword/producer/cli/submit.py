"""`afterword submit`: one message in, a job id or a reply out."""

from __future__ import annotations

import json
import math
import sys
from typing import Any

import click

from afterword.producer.cli.render import json_option, print_json, tenant_option
from afterword.producer.client.sync_client import Job, Producer
from afterword.shared.errors import InvalidRequest, JobFailed


class _Seconds(click.FloatRange):
    """A finite time: `nan` is less than nothing and so within every range."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Refuse what is no number of seconds."""
        seconds: float = super().convert(value, param, ctx)
        if not math.isfinite(seconds):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return seconds


@click.command()
@click.argument("message")
@click.option("--user", "user_id", required=True, help="Who is speaking.")
@tenant_option
@click.option("--conversation", "conversation_id", help="The conversation it belongs to.")
@click.option(
    "--when-busy",
    type=click.Choice(["enqueue", "reject", "interrupt"]),
    default="enqueue",
    show_default=True,
    help="What to do while an earlier message of the conversation has no reply.",
)
@click.option("--idempotency-key", help="Sending the same key again gives the same job.")
@click.option("--system", help="Instructions for this reply.")
@click.option("--model", help="The model that replies.")
@click.option("--max-tokens", type=int, help="Longest reply.")
@click.option("--metadata", help="A JSON object that stays with the job.")
@click.option("--priority", type=click.Choice(["high", "normal", "low"]), default="normal")
@click.option("--expires-in", type=float, help="Give up after so many seconds.")
@click.option("--wait", type=_Seconds(min=0), metavar="SECONDS", help="Wait and print the reply.")
@click.option("--stream", is_flag=True, help="Print the reply as it is written.")
@json_option
def submit(*, message: str, wait: float | None, stream: bool, as_json: bool, **fields: Any) -> None:
    """Submit MESSAGE ("-": standard input) and print the id of its job.

    With --stream --json, each event of the reply is a line of JSON.
    """
    if stream and wait is not None:
        raise click.UsageError("--stream waits for the end: leave out --wait")
    text = sys.stdin.read() if message == "-" else message
    fields["metadata"] = _metadata(fields["metadata"])
    with Producer() as producer:
        job = producer.submit(message=text, **fields)
        if stream:
            _print_stream(job, as_json=as_json)
        elif wait is not None:
            _print_reply(job, wait, as_json=as_json)
        elif as_json:
            print_json({"job_id": job.id})
        else:
            click.echo(job.id)


def _metadata(text: str | None) -> Any:
    if text is None:
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise InvalidRequest("metadata", "is no JSON") from None


def _print_reply(job: Job, wait_s: float, *, as_json: bool) -> None:
    reply = job.wait(timeout=wait_s)
    if as_json:
        print_json(reply)
    else:
        click.echo(reply.text)


def _print_stream(job: Job, *, as_json: bool) -> None:
    for event in job.stream():
        if as_json:
            click.echo(event.model_dump_json())
        elif event.type == "delta":
            click.echo(event.text, nl=False)
        elif event.type == "restart":
            click.echo("\n[the reply begins anew]")
        elif event.type == "final":
            click.echo()
        if event.type == "failed":
            raise JobFailed(job.id, str(event.state), str(event.code))
