"""Real workers on the selfhosted memory: facts are extracted, kept in PostgreSQL, recalled."""

from __future__ import annotations

from pathlib import Path

import pytest

from afterword.producer import ErasureState, Operator, Producer, TurnState
from afterword.workers.adapters.mem0.pgvector.database import TABLE
from tests.kit.claude_api.message_batches import PATH
from tests.kit.claude_api.scripted_answers import ClaudeAnswer
from tests.kit.claude_api.wire_format import told
from tests.kit.servers.postgres import Postgres
from tests.kit.waiting import wait_until
from tests.kit.workers.fleet import Fleet

pytestmark = [pytest.mark.system, pytest.mark.redis, pytest.mark.slow]

SAID = "I prefer all temperatures in Celsius."
QUESTION = "What is a comfortable room temperature?"


def test_a_preference_is_extracted_once_stored_and_recalled(postgres: Postgres) -> None:
    url = postgres.new_database()
    with Fleet(AFTERWORD_MEMORY="selfhosted", AFTERWORD_POSTGRES_URL=url) as fleet:
        fleet.start("responses", "memories")
        postgres.tell(f"ALTER TABLE {TABLE} ADD CONSTRAINT no CHECK (false) NOT VALID", url)
        with Producer(fleet.settings) as producer:
            job = producer.submit(user_id="ann", message=SAID)
            job.wait()
            wait_until(lambda: "store_failed" in _logs(fleet), "the store has failed", 30)
            postgres.tell(f"ALTER TABLE {TABLE} DROP CONSTRAINT no", url)
            wait_until(lambda: job.status().turn is TurnState.STORED, "the turn is stored", 40)
            paid = job.status().extraction
            stranger = producer.submit(user_id="bob", message=QUESTION).wait()
            again = producer.submit(user_id="ann", message=QUESTION).wait()
        asked = [told(one["body"]) for one in fleet.claude.requests()]
        fleet.stop()
    assert [memory.text for memory in again.memories] == [SAID]
    assert paid is not None  # for one call, though two attempts stored
    assert (paid.usage.input > 0, paid.usage.output > 0, paid.facts) == (True, True, 1)
    assert ("21 °C" in again.text, "70 °F" in stranger.text) == (True, True)
    extractions = [texts[-1] for texts in asked if "Memory Extractor" in texts[0]]
    assert len([text for text in extractions if SAID in text.partition("## New")[2]]) == 1


def test_a_message_batch_outlives_the_worker_that_sent_it(postgres: Postgres) -> None:
    with Fleet(
        AFTERWORD_MEMORY="selfhosted",
        AFTERWORD_POSTGRES_URL=postgres.new_database(),
        AFTERWORD_EXTRACTION="batch",
        AFTERWORD_EXTRACTION_GATHER_S="0.1",
    ) as fleet:
        _, sender = fleet.start("responses", "memories")
        with Producer(fleet.settings) as producer:
            job = producer.submit(user_id="ann", message=SAID)
            job.wait()
            wait_until(lambda: "message batch sent" in sender.log, "the batch is sent", 60)
            sender.kill()
            fleet.claude.end_batches()
            fleet.start("memories")
            wait_until(lambda: job.status().turn is TurnState.STORED, "the turn is stored", 120)
            again = producer.submit(user_id="ann", message=QUESTION).wait()
        asked = fleet.claude.requests()
        fleet.stop()
    assert [memory.text for memory in again.memories] == [SAID]
    batches = [one for one in asked if one["path"] == PATH and "requests" in one["body"]]
    assert len(batches) == 1
    alone = [one for one in asked if one["path"] == "/v1/messages"]
    assert not [one for one in alone if "Memory Extractor" in told(one["body"])[0]]


def test_a_refused_extraction_is_retried(postgres: Postgres) -> None:
    url = postgres.new_database()
    with Fleet(AFTERWORD_MEMORY="selfhosted", AFTERWORD_POSTGRES_URL=url) as fleet:
        fleet.start("responses", "memories")
        fleet.claude.will_answer(ClaudeAnswer(match="Memory Extractor", text="no JSON at all"))
        with Producer(fleet.settings) as producer:
            job = producer.submit(user_id="ann", message=SAID)
            job.wait()
            wait_until(lambda: job.status().turn is TurnState.STORED, "the turn is stored", 40)
        fleet.stop()
        assert "extraction_malformed" in _logs(fleet)


def test_an_erased_user_is_in_no_table_and_after_a_vacuum_not_on_disk(
    postgres: Postgres,
) -> None:
    url, mark = postgres.new_database(), "canary-5c1e"
    with Fleet(
        AFTERWORD_MEMORY="selfhosted",
        AFTERWORD_POSTGRES_URL=url,
        AFTERWORD_WRITE_TIMEOUT_S="2",
        AFTERWORD_LEASE_S="1",
    ) as fleet:
        fleet.start("responses", "memories")
        with Producer(fleet.settings) as producer, Operator(fleet.settings) as operator:
            for user in ("ann", "bob"):
                job = producer.submit(user_id=user, message=f"I like {mark} of {user}.")
                wait_until(lambda job=job: job.status().turn is TurnState.STORED, "stored", 40)  # type: ignore[misc]
            operator.forget("ann")
            wait_until(lambda: _erased(operator, "ann"), "ann is erased", 40)
        fleet.stop()
        assert f"{mark} of ann" not in _logs(fleet)
    rows = str(postgres.tell(f"SELECT * FROM {TABLE}", url))
    assert (f"{mark} of bob" in rows, f"{mark} of ann" in rows) == (True, False)
    postgres.tell(f"VACUUM FULL {TABLE}", url)
    [(path,)] = postgres.tell(
        f"SELECT current_setting('data_directory') || '/' || pg_relation_filepath('{TABLE}')", url
    )
    postgres.tell("CHECKPOINT", url)
    kept = b"".join(file.read_bytes() for file in Path(path).parent.glob("*") if file.is_file())
    assert (f"{mark} of bob".encode() in kept, f"{mark} of ann".encode() in kept) == (True, False)


def _erased(operator: Operator, user: str) -> bool:
    receipt = operator.erasure(user)
    return receipt is not None and receipt.state is ErasureState.ERASED


def _logs(fleet: Fleet) -> str:
    return "".join(worker.log for worker in fleet.workers)
