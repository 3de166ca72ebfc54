"""What an operator reads of single jobs: their stories, and which jobs a user has."""

from __future__ import annotations

from typing import Annotated, TypeAlias

from pydantic import Field

from afterword.producer.checked_ledger import CheckedLedger
from afterword.producer.portal import Portal
from afterword.shared.arguments import AnyId, Id, Moment, checked
from afterword.shared.ledger.story_records import JobStory, UserJobs

#: How many jobs a page has, at most.
JobsLimit: TypeAlias = Annotated[int, Field(ge=1, le=100)]


class AsyncStories:
    """The part of `AsyncOperator` that reads single jobs."""

    @checked
    async def story(self, job_id: AnyId, *, content: bool = False) -> JobStory:
        """Return what became of a job and of its turn, step by step.

        Nothing is changed. Raises `JobNotFound`, and `NewerRecord` if a newer version wrote it.

        Args:
            job_id: the job.
            content: whether to read the message, the reply and the memories as well; what
                `AFTERWORD_REDACTION` replaces in memory is replaced here, too.

        """
        return await (await self._checked.for_reading()).stories.of(job_id, content=content)

    @checked
    async def user_jobs(
        self,
        user_id: Id,
        *,
        tenant: Id = "default",
        since: Moment | None = None,
        limit: JobsLimit = 20,
        after: AnyId | None = None,
    ) -> UserJobs:
        """Return a page of a user's jobs, the newest first, without content.

        Those that are queued or running are among them. The ledger lists the newest 100 jobs of
        each user while it keeps the newest of them, and the newest 100 imported turns. Nothing is
        changed.

        Args:
            user_id: the user.
            tenant: whose user it is.
            since: only jobs that were submitted at this time or later.
            limit: the most jobs of the page, 1 to 100.
            after: the `next` of the page before.

        """
        ledger = await self._checked.for_reading()
        return await ledger.stories.users.newest(
            user_id, tenant, since=since, limit=limit, after=after
        )

    @property
    def _checked(self) -> CheckedLedger:
        raise NotImplementedError


class Stories:
    """The part of `Operator` that reads single jobs."""

    _portal: Portal
    _operator: AsyncStories

    def story(self, job_id: AnyId, *, content: bool = False) -> JobStory:
        """Return what became of a job and of its turn, step by step.

        Nothing is changed. Raises `JobNotFound`, and `NewerRecord` if a newer version wrote it.

        Args:
            job_id: the job.
            content: whether to read the message, the reply and the memories as well; what
                `AFTERWORD_REDACTION` replaces in memory is replaced here, too.

        """
        return self._portal.call(self._operator.story(job_id, content=content))

    def user_jobs(
        self,
        user_id: Id,
        *,
        tenant: Id = "default",
        since: Moment | None = None,
        limit: JobsLimit = 20,
        after: AnyId | None = None,
    ) -> UserJobs:
        """Return a page of a user's jobs, the newest first, without content.

        Those that are queued or running are among them. The ledger lists the newest 100 jobs of
        each user while it keeps the newest of them, and the newest 100 imported turns. Nothing is
        changed.

        Args:
            user_id: the user.
            tenant: whose user it is.
            since: only jobs that were submitted at this time or later.
            limit: the most jobs of the page, 1 to 100.
            after: the `next` of the page before.

        """
        return self._portal.call(
            self._operator.user_jobs(user_id, tenant=tenant, since=since, limit=limit, after=after)
        )
