"""How a broker on a server of its own fails, and what comes of it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass

from redis import Redis

from afterword.shared.errors import Fault
from tests.kit.failures.row import FailureRow
from tests.kit.servers.valkey import Valkey

_TEST = "tests/ledger/test_broker_failures.py::"
_PLAYED = f"{_TEST}test_jobs_are_accepted_and_their_hints_follow"


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerFailure:
    """One way to fail, that can be played: how it begins and ends, and the code in the log."""

    what: str
    code: str
    fault: Fault
    begin: Callable[[Valkey], object]
    end: Callable[[Valkey], object]


def _signal(which: signal.Signals) -> Callable[[Valkey], object]:
    return lambda broker: os.kill(broker.pid, which)


def _refuse_login(broker: Valkey) -> None:
    with broker.client() as client:
        client.config_set("requirepass", "another")
        client.execute_command("CLIENT", "KILL", "TYPE", "normal")


def _accept_login(broker: Valkey) -> None:
    with Redis.from_url(broker.url, password="another") as client:
        client.config_set("requirepass", "")


def _configure(name: str, value: str) -> Callable[[Valkey], object]:
    def configure(broker: Valkey) -> None:
        with broker.client() as client:
            client.config_set(name, value)

    return configure


def _replicate(*primary: str) -> Callable[[Valkey], object]:
    def replicate(broker: Valkey) -> None:
        with broker.client() as client:
            client.execute_command("REPLICAOF", *primary)

    return replicate


BROKER_FAILURES = [
    BrokerFailure(
        what="refuses connections", code="unavailable", fault=Fault.PROVIDER,
        begin=Valkey.kill, end=lambda broker: broker.start(),
    ),
    BrokerFailure(
        what="is silent", code="unavailable", fault=Fault.PROVIDER,
        begin=_signal(signal.SIGSTOP), end=_signal(signal.SIGCONT),
    ),
    BrokerFailure(
        what="is read-only", code="unavailable", fault=Fault.PROVIDER,
        begin=_replicate("127.0.0.1", "1"), end=_replicate("NO", "ONE"),
    ),
    BrokerFailure(
        what="is full (`maxmemory`)", code="full", fault=Fault.OPERATOR,
        begin=_configure("maxmemory", "1"), end=_configure("maxmemory", "0"),
    ),
    BrokerFailure(
        what="refuses the password", code="refused", fault=Fault.OPERATOR,
        begin=_refuse_login, end=_accept_login,
    ),
]  # fmt: skip

_WARNS = (
    "one warning, `hints not sent`, when it begins; workers that cannot take hints are not alive"
)
_FOLLOW = "every job is accepted at once; hints go out within 2 s of the return"
_SWEEP = "every job is accepted at once; the sweep sends its hint again within a minute"

BROKER_ROWS = [
    *(
        FailureRow(
            what=one.what, code=one.code, fault=one.fault, operator=_WARNS, ends=_FOLLOW,
            test=_PLAYED,
        )
        for one in BROKER_FAILURES
    ),
    FailureRow(
        what="is slow", code="", fault=Fault.PROVIDER, operator="nothing",
        ends="every job is accepted at once; its hint comes late",
        test=f"{_TEST}test_a_slow_broker_delays_no_submit",
    ),
    FailureRow(
        what="has no database of that number", code="refused", fault=Fault.OPERATOR,
        operator=_WARNS, ends=_SWEEP,
        test=f"{_TEST}test_a_database_that_does_not_exist_is_told_once",
    ),
    FailureRow(
        what="restarts empty, or loses messages", code="", fault=Fault.PROVIDER,
        operator="`sweep` lines that count hints sent again",
        ends=_SWEEP, test="tests/ledger/test_sweep.py::"
        "test_a_hint_lost_elsewhere_is_sent_again_though_nothing_else_happens",
    ),
    FailureRow(
        what="is another one, or another database, than the workers'", code="",
        fault=Fault.OPERATOR, ends=_SWEEP,
        operator="the age of the oldest hint in `status` grows to a minute",
        test="tests/ledger/test_sweep.py::"
        "test_a_hint_lost_elsewhere_is_sent_again_though_nothing_else_happens",
    ),
    FailureRow(
        what="holds messages that are no hints", code="not_a_hint", fault=Fault.OPERATOR,
        operator="an error and a note in the quarantine for each",
        ends="they are dropped undecoded; no job is touched",
        test="tests/system/test_consumer.py::test_a_message_that_is_no_hint_is_reported_and_delays_no_hint",
    ),
    FailureRow(
        what="says what is no command on the control channel", code="not_a_command",
        fault=Fault.OPERATOR, operator="the same", ends="the same",
        test="tests/system/test_consumer.py::"
        "test_broken_commands_are_dropped_and_valid_ones_are_followed",
    ),
    FailureRow(
        what="answers nobody's requests for hints, but new connections", code="",
        fault=Fault.PROVIDER,
        operator="a critical line, `no hint taken`; the worker ends with code 1",
        ends="its supervisor starts it anew; its jobs are given back",
        test="tests/system/test_watchdog.py::test_a_worker_whose_answers_never_come_ends",
    ),
]  # fmt: skip
