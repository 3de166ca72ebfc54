"""`afterword job`: what became of one job, step by step; or which jobs a user has."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Any

import click

from afterword.producer.admin.async_admin import AsyncOperator
from afterword.producer.admin.explanation import explained
from afterword.producer.cli import render
from afterword.producer.cli.command import command
from afterword.producer.cli.options import PointInTime, json_option, limit_option, tenant_option
from afterword.producer.cli.story_text import print_story, print_user_jobs
from afterword.shared.errors import InvalidRequest
from afterword.shared.ledger.story_records import JobStory, UserJobs
from afterword.shared.names import check_job_id

#: Most jobs that are listed of a user.
_MOST = 100


@command(
    examples=[
        "afterword job JOB_ID",
        "afterword job JOB_ID --with-content --json",
        "afterword job --user user_42 --since 2d",
    ]
)
@click.argument("job_id", required=False)
@click.option("--user", "user_id", metavar="USER_ID", help="List the newest jobs of this user.")
@tenant_option
@click.option("--since", type=PointInTime(), help="Only jobs submitted since then, or for so long.")
@limit_option(20, _MOST)
@click.option("--after", metavar="JOB_ID", help="Continue the list after this job.")
@click.option(
    "--with-content", is_flag=True, help="Show the message, the reply and the memories, too."
)
@json_option
def job(  # noqa: PLR0913 each is an option
    *,
    job_id: str | None,
    user_id: str | None,
    tenant: str,
    since: datetime | None,
    limit: int,
    after: str | None,
    with_content: bool,
    as_json: bool,
) -> None:
    """Tell the story of a job, or list the jobs of a user.

    First in words what may be the cause of a complaint, then all steps: waits and why, attempts and
    their workers, what was recalled, found and left out, calls of models with the provider's
    request ids, how the turn got into memory, and later replies that were given its memories.
    Without --with-content, nothing that was said is shown. Of each user, the newest 100 jobs are
    listed, open ones as well, and the newest 100 imported turns. Nothing is changed.
    """
    if (job_id is None) == (user_id is None):
        raise InvalidRequest("job_id", "give either the id of a job or --user")
    if user_id is not None:
        page = asyncio.run(_jobs_of(user_id, tenant=tenant, since=since, limit=limit, after=after))
        (render.json_record if as_json else print_user_jobs)(page)
    elif job_id is not None:
        story = asyncio.run(_story(check_job_id(job_id), content=with_content))
        (_print_json if as_json else print_story)(story)


def _print_json(story: JobStory) -> None:
    render.json_record({**render.plain(story), "explanation": list(explained(story))})


async def _story(job_id: str, *, content: bool) -> JobStory:
    async with AsyncOperator() as operator:
        return await operator.story(job_id, content=content)


async def _jobs_of(user_id: str, **options: Any) -> UserJobs:
    async with AsyncOperator() as operator:
        return await operator.user_jobs(user_id, **options)
