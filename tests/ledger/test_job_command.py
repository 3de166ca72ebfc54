"""`afterword job`, `Operator.story` and `Operator.user_jobs`, on a real ledger."""

from __future__ import annotations

import asyncio
import json

import pytest

from afterword.producer import InvalidRequest, JobNotFound, Operator, Settings
from afterword.shared.ledger.ledger import Ledger
from tests.kit.command_line import Printed, afterword
from tests.kit.ledger.builder import submit_and_answer
from tests.kit.printed_json import assert_fits_schema

pytestmark = pytest.mark.redis

UNKNOWN = f"j00_{7:032x}"
SECRET = "marmalade"


async def job(settings: Settings, *arguments: str) -> Printed:
    """Run `afterword job` while the ledger of the test stays open."""
    env = {
        "AFTERWORD_REDIS_URL": str(settings.redis_url),
        "AFTERWORD_NAMESPACE": settings.namespace,
        "AFTERWORD_MEMORY": "off",
        "AFTERWORD_DURABILITY": settings.durability,
    }
    printed = await asyncio.to_thread(afterword, "job", *arguments, env=env)
    if printed.code == 0:
        assert_fits_schema(["job", *arguments], printed.stdout)
    return printed


async def test_the_story_is_printed_for_people_and_for_programs(
    settings: Settings, ledger: Ledger
) -> None:
    job_id = await submit_and_answer(ledger, SECRET)

    shown = await job(settings, job_id)
    told = await job(settings, job_id, "--json")
    whole = await job(settings, job_id, "--with-content", "--json")

    assert f"job: {job_id} is succeeded" in shown.stdout
    assert "replied" in shown.stdout
    kinds = [step["kind"] for step in json.loads(told.stdout)["steps"]]
    assert kinds == ["accepted", "claimed", "replied"]
    assert SECRET not in shown.everything + told.everything
    assert json.loads(whole.stdout)["message"] == SECRET


async def test_the_jobs_of_a_user_are_printed(settings: Settings, ledger: Ledger) -> None:
    older, newer = [await submit_and_answer(ledger) for _ in range(2)]

    shown = await job(settings, "--user", "ann", "--limit", "1")
    told = await job(settings, "--user", "ann", "--after", newer, "--since", "1d", "--json")

    assert shown.stdout.splitlines()[1].startswith(newer)
    assert f"--after {newer}" in shown.stderr
    assert "--after" not in shown.stdout
    assert [one["job_id"] for one in json.loads(told.stdout)["jobs"]] == [older]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([UNKNOWN], "is not known"),
        (["j"], "is not known"),
        ([], "either the id of a job or --user"),
        ([UNKNOWN, "--user", "ann"], "either the id of a job or --user"),
        (["--user", "ann", "--after", UNKNOWN], "--after"),
        (["--user", " "], "--user"),
        (["--user", "ann", "--limit", "101"], "--limit"),
    ],
    ids=str,
)
async def test_what_is_wrong_is_named_with_the_exit_code_2(
    settings: Settings, arguments: list[str], said: str
) -> None:
    printed = await job(settings, *arguments)

    assert printed.code == 2
    assert said in printed.stderr


async def test_an_operator_without_a_loop_reads_the_same(
    settings: Settings, ledger: Ledger
) -> None:
    job_id = await submit_and_answer(ledger, SECRET)

    def read() -> None:
        with Operator(settings) as operator:
            assert operator.story(job_id).steps[-1].kind == "replied"
            assert operator.story(job_id, content=True).message == SECRET
            assert [one.job_id for one in operator.user_jobs("ann").jobs] == [job_id]
            with pytest.raises(JobNotFound):
                operator.story(UNKNOWN)
            with pytest.raises(InvalidRequest, match="after"):
                operator.user_jobs("ann", after=UNKNOWN)

    await asyncio.to_thread(read)
