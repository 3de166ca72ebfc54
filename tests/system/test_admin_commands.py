"""What operators run beside replay: the account, the reconciler, forgetting a user."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from afterword.producer import Producer, TurnState
from tests.kit.ledger.builder import LedgerInspector
from tests.kit.waiting import wait_until
from tests.kit.workers.fleet import CANARY, Fleet

pytestmark = [pytest.mark.system, pytest.mark.redis, pytest.mark.slow]

SETTLED = "60"


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    with Fleet(AFTERWORD_WRITE_TIMEOUT_S="2") as running:
        running.start("responses", "memories")
        yield running


@pytest.fixture(scope="module", autouse=True)
def _said(fleet: Fleet) -> None:
    """Let two users say something, and wait until it is stored."""
    with Producer(fleet.settings) as producer:
        jobs = [
            producer.submit(user_id=user, tenant="t", message=f"I like {CANARY} tea, I am {user}.")
            for user in ("ann", "bob")
        ]
        for job in jobs:
            job.wait(timeout=60)
            wait_until(lambda job=job: job.status().turn is TurnState.STORED, "stored", 30)  # type: ignore[misc]


def test_the_account_has_every_turn(fleet: Fleet) -> None:
    found = json.loads(fleet.afterword("account", "--json").stdout)
    assert [one["tenant"] for one in found["tenants"]] == ["t"]
    assert sum(found["total"]["turns"].values()) >= 2
    assert found["total"]["users_behind"] == 0
    shown = fleet.afterword("account").stdout
    assert shown.splitlines()[0].split()[:2] == ["tenant", "stored"]


def test_the_account_of_a_tenant_that_is_not_there_is_empty(fleet: Fleet) -> None:
    found = json.loads(fleet.afterword("account", "--tenant", "nobody", "--json").stdout)
    assert found["tenants"] == []


def test_inconsistencies_are_shown_and_fixed(fleet: Fleet) -> None:
    assert fleet.afterword("reconcile").stdout == "no inconsistencies\n"
    with Producer(fleet.settings) as producer:
        job = producer.submit(user_id="cy", tenant="t", message=f"I like {CANARY} cocoa.")
        wait_until(lambda: job.status().turn is TurnState.STORED, "stored", 30)
    inspector = LedgerInspector(fleet.settings)
    inspector.redis.hset(inspector.keys.job(job.id), "turn", "dead")
    assert f"{job.id}  not_listed" in fleet.afterword("reconcile", code=1).stdout
    assert "Fixed." in fleet.afterword("reconcile", "--fix", code=1).stdout
    assert fleet.afterword("reconcile").stdout == "no inconsistencies\n"
    inspector.redis.hset(inspector.keys.job(job.id), "turn", "stored")
    inspector.redis.delete(inspector.keys.dead_turns)
    inspector.redis.close()


@pytest.mark.finding(32)
def test_a_gate_is_shut_and_opened_by_hand(fleet: Fleet) -> None:
    assert fleet.afterword("gate", "list").stdout == "all gates are open\n"
    shut = ("gate", "shut", "claude/m", "--by", "olga", "--reason", "budget", "--for", "2h",
            "--apply")  # fmt: skip
    assert "shut by olga: budget" in fleet.afterword(*shut).stdout
    [gate] = json.loads(fleet.afterword("gate", "list", "--json").stdout)
    assert (gate["name"], gate["by"], gate["reason"]) == ("claude/m", "olga", "budget")
    assert "shut by olga: budget" in fleet.afterword("status").stdout
    assert "afterword gate open claude/m --apply" in fleet.afterword("doctor", code=1).stdout

    assert fleet.afterword("gate", "open", "claude/m", "--by", "bo", "--apply").stdout == (
        "gate claude/m opens\n"
    )
    assert fleet.afterword("gate", "open", "claude/m").stdout == "gate claude/m is not shut\n"
    audited = [one["action"] for one in json.loads(fleet.afterword("audit", "--json").stdout)]
    assert audited[:2] == ["gate_open", "gate_shut"]
    refused = fleet.afterword("gate", "shut", "clade", code=2).stderr
    assert refused == "afterword: GATE: must be recall, remember or claude/<model>\n"


def test_a_dry_run_forgets_nobody(fleet: Fleet) -> None:
    shown = fleet.afterword("forget", "bob", "--tenant", "t", code=1).stdout
    assert "Add --apply" in shown
    assert "bob" in json.loads(_memories(fleet))


def test_a_user_is_forgotten_and_nobody_else(fleet: Fleet) -> None:
    gone = fleet.afterword("forget", "ann", "--tenant", "t", "--apply", "--wait", SETTLED, "--json")
    receipt = json.loads(gone.stdout)
    assert (receipt["user_id"], receipt["tenant"], receipt["state"]) == ("ann", "t", "erased")
    assert receipt["jobs"] == 1
    assert "state: erased" in fleet.afterword("forget", "ann", "--tenant", "t").stdout
    assert "ann" not in (left := json.loads(_memories(fleet)))
    assert "bob" in left
    audit_entries = json.loads(fleet.afterword("audit", "--json").stdout)
    assert "forget" in [audit_entry["action"] for audit_entry in audit_entries]
    account = json.loads(fleet.afterword("account", "--tenant", "t", "--json").stdout)
    assert account["total"]["turns"]["erased"] == 1


def test_a_user_that_could_not_be_is_refused_by_name(fleet: Fleet) -> None:
    assert "USER_ID: " in fleet.afterword("forget", " ann", "--apply", code=2).stderr


def _memories(fleet: Fleet) -> str:
    """Return whose memories there are, by a program of its own."""
    return fleet.python(
        "import json, sqlite3, sys\n"
        "sql = sqlite3.connect(sys.argv[1])\n"
        "rows = sql.execute('SELECT DISTINCT payload FROM memories').fetchall()\n"
        "owners = {json.loads(row[0])['user_id'].partition('/')[2] for row in rows}\n"
        "sql.close()\n"
        "print(json.dumps(sorted(owners)))",
        str(fleet.data_dir / "memory" / "memories.sqlite"),
    )
