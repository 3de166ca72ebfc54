"""How Redis fails: the rows of its table, each named by the test that plays it."""

from __future__ import annotations

from afterword.shared.errors import Fault
from tests.kit.failures.row import FailureRow

_FAULTS = "tests/faults/test_redis.py"
_CAUSES = "tests/ledger/test_causes.py"
_PREFLIGHT = "tests/ledger/test_preflight.py"
_REPLICAS = "tests/ledger/test_replicas.py"
_READING = "tests/ledger/test_reading.py"
_FOR_A_WHILE = f"{_FAULTS}::test_a_command_that_redis_refuses_for_a_while_is_repeated"

_WAITS = "`doctor` fails with the cause; a submit raises `LedgerUnavailable`"
_NAMED = "every command and every process names it in one line (`Misconfigured`)"
_REFUSES = "nothing starts, in one line; `status` reads and warns"
_BY_ITSELF = "all goes on by itself, nothing lost or doubled"
_MENDED = "once it is mended and the processes are started"


def _transient(
    what: str, cause: str, test: str, *, ends: str = _BY_ITSELF, fault: Fault = Fault.PROVIDER
) -> FailureRow:
    return FailureRow(what=what, code=cause, fault=fault, operator=_WAITS, ends=ends, test=test)


def _unfit(what: str, test: str, *, operator: str = _REFUSES) -> FailureRow:
    return FailureRow(
        what=what, code="", fault=Fault.OPERATOR, operator=operator, ends=_MENDED, test=test
    )


def _unusable(what: str, test: str) -> FailureRow:
    return _unfit(what, test, operator=_NAMED)


REDIS_ROWS = (
    _transient(
        "is killed, and started again",
        "refused",
        f"{_FAULTS}::test_a_redis_that_is_killed_three_times_loses_and_doubles_nothing",
    ),
    _transient(
        "cuts its connections, or lets them fall silent",
        "closed",
        f"{_FAULTS}::test_workers_come_back_after_their_line_broke",
    ),
    _transient(
        "stands still",
        "silent",
        f"{_FAULTS}::test_a_stopped_redis_is_told_of_in_time_with_what_to_do",
    ),
    FailureRow(
        what="answers late, within `AFTERWORD_SUBMIT_TIMEOUT_S`",
        code="",
        fault=Fault.PROVIDER,
        operator="nothing",
        ends="accepted, late",
        test=f"{_CAUSES}::test_a_redis_that_pauses_is_waited_for",
    ),
    _transient("still loads its data", "loading", _FOR_A_WHILE),
    _transient("is blocked by a script of another client", "busy", _FOR_A_WHILE),
    _transient("became a replica (read-only)", "read_only", _FOR_A_WHILE),
    _transient(
        "is killed, and a replica takes over (hosts, Sentinels, a cluster; `d3`)",
        "too_few_replicas",
        "tests/ledger/test_failover.py::test_nothing_accepted_is_lost_when_sentinels_fail_over",
    ),
    _transient(
        "has no primary that its Sentinels know",
        "no_primary",
        "tests/ledger/test_servers.py::test_a_primary_that_no_sentinel_knows_is_named",
        ends="once one is promoted, or the name in the URL is right",
        fault=Fault.OPERATOR,
    ),
    _transient(
        "has two primaries among its hosts",
        "two_primaries",
        "tests/ledger/test_servers.py::test_two_primaries_are_refused",
        ends="once one of them is stopped, or a replica",
        fault=Fault.OPERATOR,
    ),
    _transient(
        "is a cluster that moves a slot",
        "slot_closed",
        "tests/ledger/test_failover.py::test_nothing_is_lost_or_doubled_when_a_slot_is_moved",
    ),
    _unfit(
        "is not the server that the ledger has in that place, of several",
        "tests/ledger/test_servers.py::test_the_servers_of_a_ledger_are_named_in_its_order",
    ),
    _transient("cannot write to its disk", "cannot_persist", _FOR_A_WHILE),
    FailureRow(
        what="forgets its scripts",
        code="",
        fault=Fault.PROVIDER,
        operator="nothing",
        ends=_BY_ITSELF,
        test=_FOR_A_WHILE,
    ),
    FailureRow(
        what="is at its `maxmemory`",
        code="",
        fault=Fault.OPERATOR,
        operator="`doctor` fails (write); a submit raises `QueueFull`",
        ends="what is open ends; new jobs once there is room",
        test=f"{_FAULTS}::test_a_full_redis_refuses_what_is_new_and_ends_what_is_open",
    ),
    _transient(
        "lost its replicas (`d3`)",
        "too_few_replicas",
        f"{_REPLICAS}::test_too_few_replicas_are_a_reason_to_wait",
        ends="as soon as a replica is back; reading works",
    ),
    FailureRow(
        what="does not replicate what it took (`d3`)",
        code="",
        fault=Fault.PROVIDER,
        operator="a submit raises `NotReplicated`",
        ends="sent again with its key: the same job",
        test=f"{_REPLICAS}::test_without_the_replica_a_submit_has_an_unknown_outcome_and_can_be_repeated",
    ),
    FailureRow(
        what="comes back with an older file, or empty",
        code="",
        fault=Fault.OPERATOR,
        operator="a critical line in the log",
        ends="what was accepted in between is lost; no number is given twice",
        test="tests/ledger/test_rollback_detector.py::test_an_older_file_put_back_is_noticed",
    ),
    _unfit("evicts keys", f"{_READING}::test_every_verb_reads_and_warns"),
    _unfit(
        "has no append-only file",
        f"{_PREFLIGHT}::test_a_redis_without_a_file_is_refused",
    ),
    _unfit(
        "goes on without replicas (`d3`)",
        f"{_REPLICAS}::test_a_redis_that_goes_on_alone_is_refused",
    ),
    _unfit("is too old", f"{_READING}::test_a_redis_that_is_too_old_is_read"),
    _unusable("refuses the password", f"{_CAUSES}::test_a_wrong_password_is_named"),
    _unusable("has no such database", f"{_CAUSES}::test_a_database_that_is_not_there_is_named"),
    _unusable(
        "allows its user too little", f"{_CAUSES}::test_a_command_that_a_user_may_not_run_is_named"
    ),
    _unusable("is a node of a cluster", f"{_CAUSES}::test_a_node_of_a_cluster_is_named"),
    _unusable("is a Sentinel", f"{_CAUSES}::test_a_sentinel_is_named"),
    _unusable("is no Redis", f"{_CAUSES}::test_a_server_that_is_no_redis_is_named"),
    _transient(
        "shows a certificate that is not trusted",
        "untrusted_certificate",
        f"{_CAUSES}::test_a_certificate_that_is_not_trusted_is_named",
        ends="once it is trusted (`ssl_ca_certs` in the URL)",
        fault=Fault.OPERATOR,
    ),
    _transient(
        "wants TLS, or does not speak it",
        "no_tls",
        f"{_CAUSES}::test_a_server_that_wants_tls_is_told_from_one_that_does_not",
        ends="once the URL says `rediss://`, or `redis://`",
        fault=Fault.OPERATOR,
    ),
)
