"""What an operator reads of single jobs: their stories, and which jobs a user has."""

from __future__ import annotations

from afterword.producer.checked_ledger import CheckedLedger
from afterword.producer.portal import Portal
from afterword.shared.arguments import AnyId, checked
from afterword.shared.ledger.story_records import JobStory


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
