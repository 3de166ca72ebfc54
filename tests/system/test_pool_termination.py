"""The pool ends jobs: at their limits, when they are revoked, and when the worker stops."""

from __future__ import annotations

import signal

import pytest

from tests.kit.servers.valkey import Valkey
from tests.kit.waiting import wait_until
from tests.kit.workers.probe_worker import ProbeWorker

pytestmark = [pytest.mark.system, pytest.mark.redis]


def test_a_soft_limit_cancels_the_coroutine_and_is_a_failure(server: Valkey) -> None:
    with ProbeWorker(server, PROBE_SIGNALS="1") as worker:
        worker.hint("hold:1", task="probe.soft")
        worker.wait_for("cancelled hold:1")
        worker.wait_for_log("Soft time limit (0.3s) exceeded for probe.soft[hold:1]")
        wait_until(lambda: _signals(worker, "postrun"), "the job's end is told")
        assert "exception=SoftTimeLimitExceeded" in _signals(worker, "failure")[0]
        assert "state=FAILURE" in _signals(worker, "postrun")[0]
        wait_until(lambda: worker.ask("active") == [], "its slot is free")


def test_a_hard_limit_cancels_the_coroutine_and_fails_once(server: Valkey) -> None:
    with ProbeWorker(server, PROBE_SIGNALS="1") as worker:
        worker.hint("hold:1", task="probe.hard")
        worker.wait_for("cancelled hold:1")
        worker.wait_for_log("Hard time limit (0.3s) exceeded for probe.hard[hold:1]")
        wait_until(lambda: _signals(worker, "postrun"), "the job's end is told")
        wait_until(lambda: _signals(worker, "failure"), "so is its failure")
        [failure] = _signals(worker, "failure")
        assert "exception=TimeLimitExceeded" in failure
        wait_until(lambda: worker.ask("stats")["pool"]["running"] == 0, "its slot is free")


def test_a_limit_of_the_worker_holds_for_every_task(server: Valkey) -> None:
    with ProbeWorker(server, "--time-limit", "1") as worker:
        worker.hint("hold:1")
        worker.wait_for("cancelled hold:1")
        worker.wait_for_log("Hard time limit (1.0s) exceeded for afterword.run[hold:1]")


def test_a_job_that_ignores_its_limits_keeps_its_slot_and_is_counted(server: Valkey) -> None:
    with ProbeWorker(server, "-c", "2") as worker:
        worker.hint("stubborn:1", task="probe.both")
        worker.wait_for_log("Hard time limit (0.4s) exceeded for probe.both[stubborn:1]")
        worker.wait_for_log("CRITICAL")
        assert "task probe.both[stubborn:1] ignores its cancellation" in worker.log
        pool = worker.ask("stats")["pool"]
        assert (pool["running"], pool["stuck"]) == (1, 1)
        # For Celery the job has ended; it must not take more hints than there are free slots.
        worker.hint("hold:2")
        worker.hint("hold:3")
        worker.wait_for("began hold:2")
        pool = worker.ask("stats")["pool"]
        assert (pool["running"], pool["waiting"]) == (2, 0)
        worker.release()
        worker.wait_for("ended stubborn:1", "ended hold:3")
        wait_until(lambda: worker.ask("stats")["pool"]["stuck"] == 0, "it is not stuck any more")


def test_a_warm_stop_waits_for_jobs(server: Valkey) -> None:
    with ProbeWorker(server) as worker:
        worker.hint("hold:1")
        worker.wait_for("began hold:1")
        worker.process.send_signal(signal.SIGTERM)
        worker.wait_for_log("Warm shutdown")
        worker.release()
        assert worker.exit_code() == 0
        assert worker.seen == ["opened", "began hold:1", "ended hold:1", "closed"]


def test_timers_go_on_while_a_warm_stop_waits(server: Valkey) -> None:
    with ProbeWorker(server, PROBE_TIMER="1") as worker:
        worker.hint("hold:1")
        worker.wait_for("began hold:1")
        worker.process.send_signal(signal.SIGTERM)
        worker.wait_for_log("Warm shutdown")
        ticks = worker.log.count("tick")
        wait_until(lambda: worker.log.count("tick") > ticks + 20, "timers go on")
        worker.release()
        assert worker.exit_code() == 0


def test_a_warm_stop_cancels_jobs_after_the_grace_period(server: Valkey) -> None:
    with ProbeWorker(server, AFTERWORD_DRAIN_S="0.5") as worker:
        worker.hint("hold:1")
        worker.wait_for("began hold:1")
        assert worker.stop() == 0
        assert worker.seen == ["opened", "began hold:1", "cancelled hold:1", "closed"]


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGQUIT])
def test_the_lifespan_is_open_until_cancelled_jobs_have_cleaned_up(
    server: Valkey, how: signal.Signals
) -> None:
    with ProbeWorker(server, AFTERWORD_DRAIN_S="0.1") as worker:
        worker.hint("tidy:1")
        worker.wait_for("began tidy:1")
        worker.stop(how)
        assert worker.seen == ["opened", "began tidy:1", "tidied", "cancelled tidy:1", "closed"]


def test_a_cold_stop_may_come_during_a_warm_one(server: Valkey) -> None:
    with ProbeWorker(server) as worker:
        worker.hint("hold:1")
        worker.wait_for("began hold:1")
        worker.process.send_signal(signal.SIGTERM)
        worker.wait_for_log("Warm shutdown")
        worker.stop(signal.SIGQUIT)
        assert worker.seen == ["opened", "began hold:1", "cancelled hold:1", "closed"]


@pytest.mark.slow
def test_a_stop_does_not_wait_for_ever_for_a_job_that_ignores_it(server: Valkey) -> None:
    with ProbeWorker(server, AFTERWORD_DRAIN_S="0.1", PROBE_CANCEL_TIMEOUT_S="0.5") as worker:
        worker.hint("stubborn:1")
        worker.wait_for("began stubborn:1")
        worker.stop()  # and it is never released
        assert "the event loop did not stop" in worker.log


def test_an_idle_worker_stops_at_once(server: Valkey) -> None:
    with ProbeWorker(server) as worker:
        assert worker.stop() == 0
        assert worker.seen == ["opened", "closed"]


def test_a_worker_that_still_starts_can_be_stopped(server: Valkey) -> None:
    with ProbeWorker(server, PROBE_FLAW="slow").launch() as worker:
        worker.wait_for("opening")
        assert worker.stop() == 0


def _signals(worker: ProbeWorker, name: str) -> list[str]:
    return [line for line in worker.seen if line.startswith(f"signal {name} ")]
