"""The commands that steer a fleet: dry until `--apply`, exact in scope, clear about errors."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from afterword.shared.ledger.ledger import Ledger
from afterword.shared.ledger.order_records import OrderKind
from afterword.shared.ledger.orders import Whom
from afterword.shared.settings import Settings
from tests.kit.command_line import Printed, afterword
from tests.kit.ledger.builder import LedgerInspector, submit_job
from tests.kit.printed_json import assert_fits_schema

pytestmark = pytest.mark.redis


class Shell:
    """Runs commands on the ledger of a test."""

    def __init__(self, settings: Settings, inspector: LedgerInspector) -> None:
        self._settings = settings
        self._inspector = inspector
        self._env = {
            "AFTERWORD_REDIS_URL": str(settings.redis_url),
            "AFTERWORD_NAMESPACE": settings.namespace,
            "AFTERWORD_DURABILITY": "none",
        }

    def run(self, line: str, *more: str) -> Printed:
        return afterword(*line.split(), *more, env=self._env)

    def json(self, line: str, *more: str, code: int = 0) -> Any:
        printed = self.run(line, *more, "--json")
        assert printed.code == code, printed.everything
        assert_fits_schema([*line.split(), *more, "--json"], printed.stdout)
        return json.loads(printed.stdout)

    def beat(self, worker: str, instance: str, queues: str = "replies") -> None:
        async def sent() -> None:
            async with Ledger(self._settings, patience_s=5.0) as ledger:
                await ledger.maintenance.record_heartbeat(queues, worker, [], instance=instance)
            # However long a test takes, it is not gone.
            workers = self._inspector.keys.workers
            self._inspector.redis.zincrby(workers, 3_600_000, f"{queues} {worker}")

        asyncio.run(sent())

    def end(self, worker: str, queues: str = "replies") -> None:
        async def sent() -> None:
            async with Ledger(self._settings, patience_s=5.0) as ledger:
                await ledger.maintenance.forget_worker(queues, worker)

        asyncio.run(sent())


@pytest.fixture
def shell(settings: Settings, inspector: LedgerInspector) -> Shell:
    return Shell(settings, inspector)


ORDERS = {
    "pause memories --reason moves --for 2h": ("pause-memories", None, None),
    "pause replies --tenant acme": ("pause-replies", "acme", None),
    "pause replies --user ann": ("pause-replies", "default", "ann"),
    "strike acme": ("block", "acme", None),
    "strike acme --user ann --per-minute 30": ("slow", "acme", "ann"),
    "strike acme --every 5s --until 2999-01-01T10:00": ("slow", "acme", None),
    "limits acme --weight 3 --most-open 7": ("limits", "acme", None),
    "limits acme --user-usd 0.5 --tenant-tokens 9 --for 1h": ("limits", "acme", None),
}


@pytest.mark.parametrize("line", ORDERS)
def test_an_order_is_dry_until_it_is_applied(shell: Shell, line: str) -> None:
    planned = shell.json(line)
    assert (planned["state"], shell.json("orders")) == ("dry", [])
    given = shell.json(line, "--apply", "--by", "kim")
    found = shell.json("orders")

    assert given == {"state": "done", "orders": found}
    (order,) = found
    assert (order["kind"], order["tenant"], order["user_id"]) == ORDERS[line]
    assert order["by"] == "kim"
    same = ("kind", "tenant", "user_id", "reason", "every_s", "limits")
    assert {name: planned["orders"][0][name] for name in same} == {
        name: order[name] for name in same
    }
    assert bool(planned["orders"][0]["until"]) == bool(order["until"])
    assert "Add --apply" in shell.run(line).stdout
    assert order["kind"] in shell.run("orders").stdout
    assert order["kind"] in shell.run("status").stdout


@pytest.mark.parametrize(
    ("given", "other", "lifts"),
    [
        ("pause replies --tenant acme", "resume replies", "resume replies --tenant acme"),
        ("pause memories", "resume replies", "resume memories"),
        ("pause replies --user ann", "resume replies --user bob", "resume replies --user ann"),
        ("strike acme", "strike acme --user ann --lift", "strike acme --lift"),
        ("strike acme --every 5s", "strike other --lift", "strike acme --lift"),
        ("limits acme --weight 3", "limits other --lift", "limits acme --lift"),
    ],
)
def test_only_the_same_scope_is_lifted_and_only_with_apply(
    shell: Shell, given: str, other: str, lifts: str
) -> None:
    shell.json(given, "--apply")
    assert shell.json(other, "--apply")["orders"] == []
    assert "no such order" in shell.run(other, "--apply").stdout
    assert len(shell.json(lifts)["orders"]) == len(shell.json("orders")) == 1
    assert "Add --apply" in shell.run(lifts).stdout

    lifted = shell.json(lifts, "--apply")

    assert (lifted["state"], len(lifted["orders"])) == ("done", 1)
    assert shell.json("orders") == []
    assert shell.run("orders").stdout == "no orders are in force\n"
    assert {one["action"] for one in shell.json("audit")} >= {given.split(maxsplit=1)[0]}


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("pause all --apply", "all"),
        ("pause replies --for 5m --until 2999-01-01 --apply", "--until"),
        ("pause replies --until 2020-01-01 --apply", "--until: must be in the future"),
        ("pause replies --until 2h", "--until: must be in the future"),  # two hours ago
        ("pause replies --for 0s", "--for"),
        ("strike acme --per-minute 6 --lift", "--per-minute"),
        ("strike acme --per-minute 6 --every 5s", "--per-minute"),
        ("strike acme --every 0s", "--every"),
        ("limits acme --most-open 0", "--most-open"),
        ("limits acme --user-usd -1 --apply", "--user-usd"),
        ("limits acme --user-usd nan --apply", "--user-usd"),
        ("limits acme --user-tokens 1.5 --apply", "--user-tokens"),
        ("limits acme --apply", "limit"),
        ("limits acme --weight 2 --lift --apply", "--lift"),
        ("drain", "--kind"),
        ("drain host:1 --kind responses", "--kind"),
        ("drain host:1 --apply", "worker: no worker of this name runs"),
        ("drain --kind memories", "--kind: no worker of the kind memories"),
    ],
)
def test_what_is_wrong_is_named_and_nothing_is_written(shell: Shell, line: str, says: str) -> None:
    printed = shell.run(line)

    assert printed.code == 2
    assert says.lower() in printed.stderr.lower()
    assert shell.json("orders") == []
    assert shell.json("audit") == []


def test_limits_without_a_limit_shows_those_of_the_tenant(shell: Shell) -> None:
    assert "the settings count" in shell.run("limits acme").stdout
    shell.json("limits acme --weight 3 --apply")
    shell.json("limits acme --most-running 5 --apply")

    (order,) = shell.json("limits acme")["orders"]

    assert (order["limits"]["weight"], order["limits"]["most_running"]) == (3, 5)
    assert "weight 3, most_running 5" in shell.run("limits acme").stdout


def test_drain_names_whom_it_waits_for_and_ends_when_they_have_left(shell: Shell) -> None:
    shell.beat("host:1", "a")
    shell.beat("host:2", "b", "memories")

    assert shell.json("drain host:1")["state"] == "dry"
    assert shell.json("orders") == []
    waited = shell.json("drain host:1 --apply --wait 0s", code=1)
    assert waited["left"] == ["host:1"]
    assert "still running: host:1" in shell.run("drain host:1 --apply --wait 0s").stdout
    assert shell.json("drain host:1 --apply")["left"] == ["host:1"], "nobody waited: that is fine"

    shell.end("host:1")
    printed = shell.run("drain host:1 --apply")
    assert (printed.code, "no worker of this name" in printed.stderr) == (2, True)
    (of_kind,) = shell.json("drain --kind memories --apply")["orders"]
    assert of_kind["worker"] == "host:2"


def test_status_says_what_is_in_force_and_how_many_wait(shell: Shell, settings: Settings) -> None:
    async def waiting() -> None:
        async with Ledger(settings, patience_s=5.0) as ledger:
            job_id = await submit_job(ledger, tenant="acme")
            await ledger.orders.give(OrderKind.PAUSE_REPLIES, Whom("acme"), {"by": "kim"})
            assert await ledger.jobs.claim(job_id, "t") is None

    asyncio.run(waiting())
    found = shell.json("status")

    assert [(one["kind"], one["waiting"]) for one in found["orders"]] == [("pause-replies", 1)]
    assert found["queues"]["replies"]["delayed"] == 1


def test_who_gives_limits_is_told_that_earlier_ones_end_with_them(shell: Shell) -> None:
    def told(line: str) -> str:
        return shell.run(f"limits acme {line}").stderr

    for state in ("", " --apply"):
        assert "This is also" not in told(f"--tenant-usd 9 --until 2999-01-01T00:00Z{state}")
    assert "when tenant_usd ends, set before" in told("--user-tokens 0 --for 2h")
    assert "This is also" not in told("--tenant-usd 5 --for 2h"), "it replaces the earlier one"
    assert "it is lifted" in shell.run("limits acme --weight 2").stdout
