"""What Prometheus gets: from workers what they did, from the ledger how the fleet stands."""

from __future__ import annotations

import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.request import urlopen

import pytest

from afterword.producer import Producer, TurnState
from tests.kit.promql.evaluate import evaluate, selectors
from tests.kit.promql.queries import all_queries
from tests.kit.promql.recording import Recording
from tests.kit.servers.fork_server import COMMAND
from tests.kit.waiting import wait_until
from tests.kit.workers.fleet import CANARY, Fleet, WorkerProcess

#: Series that nobody has before an attempt fails: tests/deploy has them.
ONLY_AFTER_FAILURES = {"afterword_job_attempts_total", "afterword_turn_attempts_total"}

pytestmark = [pytest.mark.system, pytest.mark.redis, pytest.mark.slow]


def scraped(url: str) -> dict[str, float]:
    """Return the samples of a scrape by their names and labels."""
    with urlopen(url) as answer:
        text = answer.read().decode()
    assert f"{CANARY} tea" not in text.lower()
    return samples(text)


def samples(text: str) -> dict[str, float]:
    """Return the samples of an exposition by their names and labels."""
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


def url_of(worker: WorkerProcess) -> str:
    """Return where a worker says that it serves metrics."""
    (url,) = re.findall(r"metrics at (http://127\.0\.0\.1:\d+/metrics)", worker.log)
    return str(url)


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    with Fleet(AFTERWORD_METRICS_LISTEN="127.0.0.1:0") as running:
        running.start("responses", "memories")
        with Producer(running.settings) as producer:
            job = producer.submit(user_id="ann", message=f"I like {CANARY} tea.")
            job.wait(timeout=60)
            wait_until(lambda: job.status().turn is TurnState.STORED, "it is stored", 30)
        yield running


def test_each_worker_counts_what_it_does(fleet: Fleet) -> None:
    replies, memories = fleet.workers

    found = scraped(url_of(replies))
    assert found['afterword_replies_total{not_remembered="no"}'] == 1
    assert found["afterword_job_queue_wait_seconds_count"] == 1
    assert found["process_cpu_seconds_total"] > 0
    assert [name for name in found if "worker_info" in name and 'queues="replies"' in name]
    wait_until(lambda: _lag_is_measured(replies), "the loop's lag is measured")

    # The turn is stored a moment before its worker hears of that and counts it.
    wait_until(lambda: _stored(memories), "it is counted")
    found = scraped(url_of(memories))
    assert found['afterword_turns_settled_total{code="",outcome="stored"}'] == 1
    assert found["afterword_turn_age_seconds_count"] == 1
    assert found['afterword_store_seconds_count{outcome="stored"}'] == 1


def _stored(worker: WorkerProcess) -> bool:
    return any(name.startswith("afterword_turns_settled_total") for name in scraped(url_of(worker)))


def _lag_is_measured(worker: WorkerProcess) -> bool:
    return scraped(url_of(worker))["afterword_event_loop_lag_seconds_count"] > 0


def test_a_worker_whose_port_is_taken_says_so_and_ends(fleet: Fleet) -> None:
    taken = url_of(fleet.workers[0]).removeprefix("http://").removesuffix("/metrics")

    worker = fleet.launch("memories", AFTERWORD_METRICS_LISTEN=taken)

    wait_until(lambda: not worker.runs, "it has ended", 30)
    assert f"AFTERWORD_METRICS_LISTEN: cannot listen on {taken}" in worker.log
    worker.end()
    fleet.workers.remove(worker)


def test_the_fleet_is_printed_once(fleet: Fleet) -> None:
    found = samples(fleet.afterword("metrics").stdout)

    assert found["afterword_ledger_up"] == 1
    assert found["afterword_ledger_problems"] == 0
    assert found['afterword_jobs{state="succeeded"}'] == 1
    assert found['afterword_turns{state="stored"}'] == 1
    assert found["afterword_users_late"] == 0
    workers = {name: count for name, count in found.items() if name.startswith("afterword_workers")}
    assert sorted(name.split('"')[1] for name in workers) == ["memories", "replies"]
    assert set(workers.values()) == {1}


def test_a_gate_is_there_until_it_is_open_again(fleet: Fleet) -> None:
    fleet.afterword("gate", "shut", "remember", "--apply")
    found = samples(fleet.afterword("metrics").stdout)
    assert found["afterword_gates_shut"] == 1
    assert [name for name in found if 'gate="remember"' in name]

    fleet.afterword("gate", "open", "remember", "--apply")
    wait_until(lambda: _gates(fleet) == (0, []), "it is open")


def _gates(fleet: Fleet) -> tuple[float, list[str]]:
    found = samples(fleet.afterword("metrics").stdout)
    return found["afterword_gates_shut"], [name for name in found if "afterword_gate{" in name]


def test_wrong_options_are_named(fleet: Fleet) -> None:
    refused = fleet.afterword("metrics", "--listen", "9465", code=2).stderr
    assert refused.startswith("afterword: --listen: must be a host and a port")
    refused = fleet.afterword("metrics", "--listen", "0.0.0.0:0", code=2).stderr
    assert "AFTERWORD_METRICS_TOKEN: must be set" in refused
    assert "--every: " in fleet.afterword("metrics", "--every", "0.1s", code=2).stderr


def test_every_query_that_we_publish_reads_what_is_really_served(fleet: Fleet) -> None:
    fleet.afterword("gate", "shut", "recall", "--apply")  # an open gate has no series
    scrapes = [urlopen(url_of(worker)).read().decode() for worker in fleet.workers]
    scrapes.append(fleet.afterword("metrics").stdout)
    fleet.afterword("gate", "open", "recall", "--apply")
    wait_until(lambda: _gates(fleet) == (0, []), "it is open")
    recording = Recording()
    for at in (0.0, 30.0):
        for number, text in enumerate(scrapes):
            recording.scrape(at, f"target-{number}", text)

    for name, query in all_queries().items():
        for metric, labels in selectors(query):
            if metric not in ONLY_AFTER_FAILURES:
                assert labels - {"job"} <= recording.labels_of(metric), (name, metric)
        evaluate(query, recording, 30.0)


@contextmanager
def exporter(fleet: Fleet) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run `afterword metrics` as a server; yield the process and its address."""
    options = ("--listen", "127.0.0.1:0", "--every", "1s")
    process = fleet.popen(*COMMAND, "metrics", *options, AFTERWORD_SUBMIT_TIMEOUT_S="5")
    assert process.stdout is not None
    try:
        yield process, process.stdout.readline().removeprefix("metrics at ").strip()
    finally:
        process.kill()
        process.communicate()


def test_no_figure_outlives_a_ledger_that_is_away() -> None:
    with Fleet() as fleet, exporter(fleet) as (process, url):
        wait_until(lambda: scraped(url)["afterword_ledger_up"] == 1, "the ledger is read")
        assert "afterword_users_late" in scraped(url)

        fleet.valkey.kill()
        wait_until(lambda: scraped(url)["afterword_ledger_up"] == 0, "it is away", 30)
        assert [name for name in scraped(url) if name.startswith("afterword_")] == [
            "afterword_ledger_up"
        ]

        fleet.valkey.start()
        wait_until(lambda: scraped(url)["afterword_ledger_up"] == 1, "it is back", 30)
        assert "afterword_users_late" in scraped(url)

        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=30)
        assert process.returncode == 0
        assert said.splitlines()[-1] == "the ledger answers again"
