"""Our wheel in a project that has `shared`, `workers`, `producer` and `tests` of its own."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import pytest

from tests.kit.claude_api.process import ClaudeProcess
from tests.kit.servers.valkey import Valkey
from tests.kit.workers.fleet import WorkerProcess
from tests.packaging.installed import make_environment

pytestmark = [pytest.mark.redis, pytest.mark.system]

THEIRS = ("producer", "shared", "tests", "workers")

#: A program of that project: it uses its own packages and ours side by side.
PROGRAM = """
    import time

    import producer, shared, tests, workers
    from afterword.producer import Producer

    print(*(package.OWNER for package in (producer, shared, tests, workers)))
    with Producer() as client:
        job = client.submit(user_id="ann", message="I live in Lisbon.")
        print(job.wait(timeout=30).text)
        while job.status().turn not in ("stored", "nothing", "skipped", "dead"):
            time.sleep(0.05)
        print(job.status().turn)
"""


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_environment(tmp_path_factory.mktemp("all"), wheel, "workers", "embedded")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    for name in THEIRS:
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").write_text('OWNER = "theirs"\n')
    (folder / "chat.py").write_text(dedent(PROGRAM))
    return folder


@pytest.fixture
def environ(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Give the settings of producer and worker; nothing of this tree is on their path."""
    with Valkey("--appendonly", "yes") as valkey, ClaudeProcess() as claude:
        env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        yield env | {
            "AFTERWORD_REDIS_URL": valkey.url,
            "AFTERWORD_DATA_DIR": str(tmp_path / "data"),
            "ANTHROPIC_API_KEY": "test-key",
            "ANTHROPIC_BASE_URL": claude.url,
        }


def test_producer_and_worker_run_beside_packages_of_the_same_names(
    python: Path, project: Path, environ: dict[str, str]
) -> None:
    celery = [str(python), "-m", "celery", "-A", "afterword.workers.app:app", "worker"]
    queues = ["-Q", "replies,memories", "-n", "beside@localhost"]
    worker = WorkerProcess(
        "responses",
        "beside@localhost",
        ["env", "-C", str(project), *celery, *queues],
        environ,
        project,
    )
    try:
        worker.ready()
        ran = subprocess.run(
            [python, "chat.py"],
            cwd=project, env=environ, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
    finally:
        worker.end()
    assert ran.returncode == 0, ran.stderr
    owners, reply, turn = ran.stdout.splitlines()
    assert owners == "theirs theirs theirs theirs"
    assert reply
    assert turn == "stored"
