"""`afterword job`: what became of one job, step by step."""

from __future__ import annotations

import asyncio

import click

from afterword.producer.admin.async_admin import AsyncOperator
from afterword.producer.cli import render
from afterword.producer.cli.command import command
from afterword.producer.cli.options import json_option
from afterword.producer.cli.story_text import print_story
from afterword.shared.ledger.story_records import JobStory
from afterword.shared.names import check_job_id


@command(examples=["afterword job JOB_ID", "afterword job JOB_ID --with-content --json"])
@click.argument("job_id")
@click.option(
    "--with-content", is_flag=True, help="Show the message, the reply and the memories, too."
)
@json_option
def job(*, job_id: str, with_content: bool, as_json: bool) -> None:
    """Show what became of a job and of its turn, step by step.

    Waits and why, attempts and their workers, what was recalled, found and left out, calls of
    models with the provider's request ids, how the turn got into memory, and later replies that
    were given its memories. Without --with-content, nothing that was said is shown; secrets never
    are, where memory holds none. Nothing is changed.
    """
    check_job_id(job_id)
    story = asyncio.run(_story(job_id, content=with_content))
    if as_json:
        render.json_record(story)
    else:
        print_story(story)


async def _story(job_id: str, *, content: bool) -> JobStory:
    async with AsyncOperator() as operator:
        return await operator.story(job_id, content=content)
