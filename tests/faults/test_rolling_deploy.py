"""Workers replaced one by one under load by those of the next version: nothing lost or doubled."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.kit.fault_runs.crash_run import SharedServers, shared_servers
from tests.kit.fault_runs.load_run import PATIENCE_S, LoadRun, SubmitLoad
from tests.kit.servers.valkey import Valkey
from tests.kit.waiting import wait_until
from tests.kit.workers.forked_workers import NEWER_APP
from tests.kit.workers.newer_build import NEWER_VERSION, modules_that_know_a_version

pytestmark = [pytest.mark.faults, pytest.mark.system, pytest.mark.redis, pytest.mark.slow]

AGENDA = "replies.3"

#: Jobs that are accepted, at least, while two workers of different versions run.
SIDE_BY_SIDE = 10


@pytest.fixture
def on(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SharedServers]:
    with shared_servers(tmp_path_factory.mktemp("rolling")) as made:
        yield made


def go_on(run: LoadRun) -> None:
    """Wait until so many more jobs have been accepted."""
    enough = len(run.accepted) + SIDE_BY_SIDE
    wait_until(lambda: len(run.accepted) >= enough, "more jobs are accepted", 2 * PATIENCE_S)


def test_workers_of_two_versions_lose_and_double_nothing_under_load(
    on: SharedServers, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Valkey("--appendonly", "yes") as valkey, LoadRun(on, valkey) as run:
        run.start(2)
        for module in modules_that_know_a_version():  # the backends of this test are newer
            monkeypatch.setattr(module, "RECORD_VERSION", NEWER_VERSION)
        newer = [run.submit_as(f"newer{number}", timezone="Europe/Berlin") for number in range(3)]
        for job in newer:
            wait_until(lambda job=job: is_held(run, job.id), "it is held", PATIENCE_S)  # type: ignore[misc]
        assert {run.inspector.job(job.id)["version"] for job in newer} == {str(NEWER_VERSION)}

        with SubmitLoad(run, 4 * SIDE_BY_SIDE):
            for _ in range(2):
                run.start(app=NEWER_APP)
                go_on(run)
                run.stop_oldest()
                go_on(run)
        for job in newer:
            run.inspector.make_due(job.id)  # a minute later, if no newer worker has it by now

        report = run.settle()
        assert report.wrong == {}
        assert {job.id for job in newer} < report.accepted
        assert "canary" not in run.logs()


def is_held(run: LoadRun, job_id: str) -> bool:
    return run.inspector.redis.zscore(run.inspector.keys.place("held", AGENDA), job_id) is not None
