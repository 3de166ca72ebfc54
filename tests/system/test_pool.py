"""The pool runs coroutine tasks, many at once, as Celery expects of a pool."""

from __future__ import annotations

import re
import time

import pytest

from afterword.shared.names import MEMORIES, REPLIES, RUN_TASK, WRITE_TASK
from afterword.shared.transport.hint_sender import HintSender
from tests.kit.ledger.hint_messages import hint_list, hint_message
from tests.kit.servers.valkey import Valkey
from tests.kit.waiting import wait_until
from tests.kit.workers.probe_worker import ProbeWorker

pytestmark = [pytest.mark.system, pytest.mark.redis]


def test_hints_pushed_to_any_list_are_run(server: Valkey) -> None:
    with ProbeWorker(server) as worker:
        worker.redis.lpush(hint_list(REPLIES), hint_message(RUN_TASK, "noop:1", "h1"))
        worker.redis.lpush(
            hint_list(REPLIES, "normal"), hint_message(RUN_TASK, "noop:2", "h2", step=3)
        )
        worker.redis.lpush(hint_list(MEMORIES), hint_message(WRITE_TASK, "lane", "h3"))
        worker.wait_for("ended noop:1", "ended noop:2", "wrote lane")


def test_a_hint_that_is_taken_leaves_no_copy(server: Valkey) -> None:
    with Valkey() as broker, ProbeWorker(server, broker=broker) as worker:
        worker.hint("noop:1")
        worker.wait_for("ended noop:1")
        with broker.client() as client:
            done = client.info("commandstats")
        assert "cmdstat_blmpop" in done
        assert "cmdstat_hset" not in done


async def test_hints_of_a_sender_are_run_like_those_of_the_scripts(server: Valkey) -> None:
    with ProbeWorker(server) as worker:
        sender = HintSender(server.url, "afterword")
        sender.send([("replies.0", "noop:1"), ("replies.6", "noop:2"), ("memories.0", "lane")])
        await sender.aclose()
        worker.wait_for("ended noop:1", "ended noop:2", "wrote lane")


def test_the_broker_may_be_on_a_unix_socket(server: Valkey) -> None:
    with ProbeWorker(server, AFTERWORD_BROKER_URL=server.socket_url) as worker:
        worker.hint("noop:1")
        worker.wait_for("ended noop:1")


def test_a_worker_takes_only_the_queue_it_is_given(server: Valkey) -> None:
    with ProbeWorker(server, "-Q", REPLIES) as worker:
        worker.redis.lpush(hint_list(MEMORIES), hint_message(WRITE_TASK, "lane", "h1"))
        worker.hint("noop:1")
        worker.wait_for("ended noop:1")
        assert worker.redis.llen(hint_list(MEMORIES)) == 1


def test_a_thousand_jobs_are_in_flight_on_one_thread(server: Valkey) -> None:
    with ProbeWorker(server, "-c", "1000") as worker:
        threads = worker.threads
        jobs = [f"hold:{number}" for number in range(1000)]
        for job in jobs:
            worker.hint(job)
        worker.wait_for(*[f"began {job}" for job in jobs])
        assert worker.threads == threads
        worker.release()
        worker.wait_for(*[f"ended {job}" for job in jobs])


def test_no_more_jobs_leave_the_queue_than_there_are_slots(server: Valkey) -> None:
    with ProbeWorker(server, "-c", "2") as worker:
        _push(worker, *[f"hold:{number}" for number in range(5)])
        worker.wait_for("began hold:0", "began hold:1")
        assert worker.ask("stats")["pool"]["running"] == 2
        assert worker.redis.llen(hint_list(REPLIES)) == 3
        worker.release()
        worker.wait_for(*[f"ended hold:{number}" for number in range(5)])


def test_waiting_hints_are_taken_with_one_command(server: Valkey) -> None:
    with ProbeWorker(server, "-c", "100") as worker:
        jobs = [f"noop:{number}" for number in range(100)]
        worker.redis.config_resetstat()
        _push(worker, *jobs)
        worker.wait_for(*[f"ended {job}" for job in jobs])
        asked = worker.redis.info("commandstats")["cmdstat_blmpop"]["calls"]
        assert asked < len(jobs) / 2, "a seventh of them, and one a second while idle"


def _push(worker: ProbeWorker, *names: str) -> None:
    """Push hints with one command, in the order in which they are to be taken."""
    hints = [hint_message(RUN_TASK, name, f"hint of {name}") for name in names]
    worker.redis.lpush(hint_list(REPLIES), *hints)


def test_a_free_slot_goes_to_the_oldest_waiting_hint(server: Valkey) -> None:
    with ProbeWorker(server, "-c", "1") as worker:
        started = time.monotonic()
        _push(worker, *[f"noop:{number}" for number in range(20)])
        worker.wait_for(*[f"ended noop:{number}" for number in range(20)])
        assert time.monotonic() - started < 15, "each does not wait a second for the next answer"
        ended = [line for line in worker.seen if line.startswith("ended")]
        assert ended == [f"ended noop:{number}" for number in range(20)]


def test_the_number_of_slots_can_change_while_jobs_run(server: Valkey) -> None:
    with ProbeWorker(server, "-c", "1") as worker:
        for number in range(3):
            worker.hint(f"hold:{number}")
        worker.wait_for("began hold:0")
        assert worker.ask("pool_grow", n=1) == {"ok": "pool will grow"}
        worker.wait_for("began hold:1")
        assert worker.ask("pool_shrink", n=1) == {"ok": "pool will shrink"}
        assert "one slot" in str(worker.ask("pool_shrink", n=1))
        assert worker.ask("stats")["pool"]["max-concurrency"] == 1
        assert "began hold:2" not in worker.seen


def test_inspect_shows_what_runs(server: Valkey) -> None:
    with ProbeWorker(server, "-c", "3") as worker:
        worker.hint("hold:1")
        worker.wait_for("began hold:1")
        [active] = worker.ask("active")
        assert (active["id"], active["name"], active["args"]) == ("hold:1", RUN_TASK, "")
        assert active["acknowledged"]
        assert active["time_start"]
        pool = worker.ask("stats")["pool"]
        assert pool["implementation"] == "afterword.workers.celery_runtime.pool:TaskPool"
        assert (pool["running"], pool["waiting"], pool["stuck"]) == (1, 0, 0)
        assert pool["loop-lag-s"] >= 0
        worker.release()
        worker.wait_for("ended hold:1")
        wait_until(lambda: worker.ask("active") == [], "nothing runs any more")


def test_a_failing_job_harms_no_other_and_logs_no_content(server: Valkey) -> None:
    with ProbeWorker(server, PROBE_SIGNALS="1") as worker:
        worker.hint("fail:1")
        worker.hint("exit:1")
        worker.wait_for_log("afterword.run[exit:1] failed: RuntimeError at ")
        worker.wait_for_log("afterword.run[fail:1] failed: ValueError at ")
        worker.hint("noop:1")
        worker.wait_for("ended noop:1")
        assert "my secret" not in worker.log


def test_the_tracer_sends_the_signals_of_celery(server: Valkey) -> None:
    with ProbeWorker(server, PROBE_SIGNALS="1") as worker:
        worker.hint("noop:1")
        worker.wait_for(
            _signal("prerun", "noop:1", "task=_run task_id=noop:1"),
            _signal("success", "noop:1", "result=None runtime=float", call=False),
            _signal("postrun", "noop:1", "retval=None state=SUCCESS task=_run task_id=noop:1"),
        )
        worker.hint("fail:1")
        failure = "einfo=ExceptionInfo exception=ValueError kwargs={} task_id=fail:1"
        worker.wait_for(
            f"signal failure afterword.run request=fail:1 args=['fail:1'] {failure} "
            "traceback=traceback",
            _signal(
                "postrun", "fail:1", "retval=ValueError state=FAILURE task=_run task_id=fail:1"
            ),
        )
        assert len([line for line in worker.seen if line.startswith("signal ")]) == 6


def _signal(name: str, job: str, facts: str, *, call: bool = True) -> str:
    arguments = f"args=['{job}'] kwargs={{}} " if call else ""
    return f"signal {name} afterword.run request={job} {arguments}{facts}"


def test_a_blocked_loop_is_reported_with_the_line_that_blocks_it(server: Valkey) -> None:
    with ProbeWorker(server) as worker:
        worker.hint("block:1")
        worker.wait_for("ended block:1")
        said = r"loop has been blocked for \d+\.\d s, now at tests/kit/workers/probe_app\.py:\d+"
        assert re.search(said, worker.log)


def test_a_synchronous_task_is_refused_at_the_start(server: Valkey) -> None:
    with ProbeWorker(server, PROBE_FLAW="synchronous").launch() as worker:
        assert worker.exit_code() == 1
        assert "runs coroutine functions only, not probe.synchronous" in worker.log
        assert "Traceback" not in worker.log


def test_a_misconfigured_worker_logs_one_line_and_exits(server: Valkey) -> None:
    with ProbeWorker(server, PROBE_FLAW="misconfigured").launch() as worker:
        assert worker.exit_code() == 1
        assert "cannot start: AFTERWORD_MODEL: does not exist" in worker.log
        assert "Traceback" not in worker.log


def test_a_runtime_that_breaks_stops_the_worker(server: Valkey) -> None:
    with ProbeWorker(server, PROBE_FLAW="breaks") as worker:
        worker.hint("hold:1")
        worker.wait_for("began hold:1")
        worker.release()
        assert worker.exit_code() == 1
        assert "its background work failed: RuntimeError at " in worker.log
