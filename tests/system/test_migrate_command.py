"""`afterword migrate memories`: a fleet moves from the embedded memory to mem0's platform."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from afterword.producer import Producer, TurnState
from tests.kit.mem0_api.process import Mem0Process
from tests.kit.mem0_api.server import KEY
from tests.kit.waiting import wait_until
from tests.kit.workers.fleet import CANARY, Fleet

pytestmark = [pytest.mark.system, pytest.mark.redis]

SAID = [f"I keep five birds, says the {CANARY}.", "My sister lives in Oslo."]


def test_a_fleet_moves_to_another_backend_and_knows_what_it_knew(tmp_path: Path) -> None:
    file = tmp_path / "hosted.env"
    command = ("migrate", "memories", "--from", "embedded", "--to", "hosted", "--to-env", str(file))
    with Mem0Process() as mem0, Fleet(AFTERWORD_MEMORY="embedded") as fleet:
        file.write_text(f'# mem0\nMEM0_API_KEY="{KEY}"\nexport MEM0_HOST={mem0.url}\n')
        fleet.start("responses", "memories")
        with Producer(fleet.settings) as producer:
            jobs = [producer.submit(user_id="ann", message=text) for text in SAID]
            for job in jobs:
                wait_until(lambda job=job: job.status().turn is TurnState.STORED, "stored", 60)  # type: ignore[misc]
        refused = fleet.afterword(*command[:2], *["--from", "hosted", "--to", "embedded"], code=2)
        assert "--from must be the backend in use" in refused.stderr
        dry = fleet.afterword(*command)
        assert "copied: 2" in dry.stdout
        assert "Nothing was changed" in dry.stdout
        assert not mem0.seen("add")

        fast = (*command, "--rate", "1000", "--apply")
        noted = fleet.afterword(*fast)
        assert ("Memory workers run" in noted.stderr, "Verified" in noted.stdout) == (True, True)
        fleet.stop()
        done = fleet.afterword(*fast, "--json")
        report = json.loads(done.stdout)
        assert (report["verified"], report["memories"], report["present"]) == (True, 2, 2)
        assert "Memory workers run" in done.stderr or not done.stderr  # their heartbeats are recent
        assert [len(mem0.rows(job.id)) for job in jobs] == [1, 1]
        assert {"migrate", "pause", "resume"} <= set(fleet.afterword("audit").stdout.split())

        hosted = {"AFTERWORD_MEMORY": "hosted", "MEM0_API_KEY": KEY, "MEM0_HOST": mem0.url}
        fleet.start("responses", **hosted)
        with Producer(fleet.settings) as producer:
            asked = producer.submit(user_id="ann", message="Where does my sister live?")
            texts = [memory.text for memory in asked.wait(timeout=60).memories]
        assert SAID[1] in texts


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("MEM0_API_KEY", "line 1"),
        ("\nA B=c", "line 2"),
        ("AFTERWORD_NONSENSE=1", "AFTERWORD_NONSENSE"),
        ("AFTERWORD_SHARDS=many", "AFTERWORD_SHARDS"),
    ],
)
def test_a_file_of_variables_that_is_wrong_is_refused_by_its_line(
    tmp_path: Path, text: str, problem: str
) -> None:
    file = tmp_path / "target.env"
    file.write_text(text)
    with Fleet(AFTERWORD_MEMORY="embedded") as fleet:
        options = ("--from", "embedded", "--to", "hosted", "--to-env", str(file))
        assert problem in fleet.afterword("migrate", "memories", *options, code=2).stderr


def test_a_target_that_is_the_source_is_refused() -> None:
    with Fleet(AFTERWORD_MEMORY="embedded") as fleet:
        options = ("--from", "embedded", "--to", "embedded", "--apply")
        assert "are the same" in fleet.afterword("migrate", "memories", *options, code=2).stderr
