"""Each role works as its user of `deploy/redis/users.acl`: no command is missing, none is too many.

One role works at a time, so that what Redis counts is what that role ran. A role may run what was
counted and what its scripts call on paths that this short life does not take.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import click
import pytest
from redis import Redis
from redis.exceptions import NoPermissionError

from afterword.producer import MemoriesUnavailable, Operator, Producer
from afterword.producer.cli.main import cli
from afterword.producer.web.app import PAGES
from afterword.shared.ledger.access_keys import AccessScope
from afterword.shared.ledger.ledger import Ledger
from afterword.shared.names import lane_id, memory_key
from afterword.shared.settings import Settings
from afterword.shared.transport.signatures import script_names
from tests.kit.console_client import WITH_KEY, console_client, new_key
from tests.kit.servers.acl_file import PASSWORD, acl_users, commands_of, counted_commands
from tests.kit.waiting import wait_until
from tests.kit.workers.fleet import Fleet, Kind
from tests.kit.workers.forked_workers import REAL_APP

pytestmark = [pytest.mark.system, pytest.mark.redis, pytest.mark.slow]

USERS = acl_users()
LANE = lane_id(memory_key("default", "ann"), 0)
CELERY = (sys.executable, "-m", "celery", "-A", REAL_APP)

#: Which scripts each role runs; workers also what `healthcheck` and `doctor` read in their pods.
_READING = {
    "gate/list", "maintenance/account", "maintenance/identify", "maintenance/overview",
    "maintenance/tenants", "message_batch/list", "order/list",
}  # fmt: skip
_WORKING = _READING | {
    "admission/reserve", "admission/settle", "gate/ask", "gate/open", "gate/report",
    "job/cancel", "maintenance/balance_cap", "maintenance/budgets", "maintenance/forget_spenders",
    "maintenance/heartbeat",
    "maintenance/inconsistencies", "maintenance/quarantine", "maintenance/sweep",
    "maintenance/try_write", "maintenance/witness", "run/outcomes",
}  # fmt: skip
_ASKING = {"memory_request/ask", "memory_request/remind", "memory_request/withdraw"}
SCRIPTS: dict[str, set[str]] = {
    "producer": _ASKING | {
        "job/submit", "job/cancel", "maintenance/identify", "maintenance/spending",
    },
    "responses": _WORKING | {
        "job/claim", "job/count_usage", "job/delta", "job/due_lost_attempts", "job/fail",
        "job/finish", "job/hint_next", "job/renew", "job/snooze", "maintenance/spending",
        "turn/record_facts",
    },
    "memories": _WORKING | {
        "dead_letter/bury", "erasure/advance", "erasure/empty_jobs", "erasure/remove_keys",
        "job/count_usage", "maintenance/spending", "memory_request/answer",
        "memory_request/claim", "message_batch/answer", "message_batch/close",
        "message_batch/note", "message_batch/open", "message_batch/take", "turn/begin",
        "turn/claim", "turn/due_duplicate_checks", "turn/due_late_copies",
        "turn/finish_late_copies", "turn/hold", "turn/mend",
        "turn/finish_duplicate_check", "turn/postpone", "turn/record_event", "turn/release",
        "turn/settle", "turn/wake",
    },
    "operator": _READING | _ASKING | {
        "dead_letter/bury_waiting", "dead_letter/discard", "dead_letter/read", "dead_letter/replay",
        "erasure/begin",
        "gate/open", "gate/shut", "job/cancel", "maintenance/budgets",
        "maintenance/inconsistencies", "maintenance/try_write", "maintenance/witness",
        "migration/advance", "migration/begin",
        "order/give", "order/lift", "run/audit", "run/begin", "run/choose", "run/end",
        "run/outcomes", "run/record", "run/take_over", "turn/import",
    },
}  # fmt: skip


#: What an operator runs, and how each command ends: no worker lives beside them.
OPERATED = {
    "status": 0, "status --tenants": 0, "status JOB": 0, "account": 0, "reconcile": 0,
    "restored --apply": 0, "dead list": 0, "dead runs": 0, "dead export": 0, "dead show JOB": 2,
    "dead bury JOB --apply": 1, "dead replay --all --apply": 0, "dead discard --all --apply": 0,
    "dead abort none": 2, "dead resume none": 2, "gate list": 0, "gate shut remember --apply": 0,
    "gate open remember --apply": 0, "quarantine list": 0, "quarantine clear --apply": 0,
    "audit": 0, "usage": 0, "budgets": 0, "budgets default": 0, "metrics": 0, "schema status": 0,
    "orders": 0, "pause replies --tenant acme --apply": 0,
    "resume replies --tenant acme --apply": 0, "strike acme --apply": 0,
    "strike acme --lift --apply": 0, "limits acme --weight 2 --apply": 0, "limits acme": 0,
    "drain gone:1 --apply": 2, "keys create bea": 0, "keys list": 0, "keys revoke none": 1,
    "job JOB": 0, "job JOB --with-content": 0, "job --user ann": 0,
    "import TURNS": 0, "forget ann --apply": 0,
    "memories list cy --timeout 0.1s": 1, "memories search cy tea --timeout 0.1s": 1,
    "memories show cy none --timeout 0.1s": 1, "memories export cy --timeout 0.1s": 1,
    "memories edit cy none tea --apply --timeout 0.1s": 1,
    "memories delete cy none --apply --timeout 0.1s": 1,
    "migrate memories --from embedded --to embedded --to-env TARGET --apply": 0,
    "doctor": 1,
}  # fmt: skip

#: Commands of other roles, and what runs until it is stopped; `top` shows what `status` does, and
#: the pages of a console are opened.
NOT_OPERATED = {"chat", "console", "healthcheck", "submit", "top", "up", "worker"}

#: With these, kombu refreshes its bindings from time to time: a short life may see none of it.
_OF_KOMBU = {"exec", "multi", "script|exists", "script|load"}


@dataclass
class Life:
    """A fleet whose every role is a user of its own, and what each ran."""

    fleet: Fleet
    redis: Redis
    ran: dict[str, set[str]] = field(default_factory=dict)
    denied: list[tuple[str, str, str]] = field(default_factory=list)
    job: str = ""

    def as_role(self, role: str, work: Callable[[], None]) -> None:
        """Let one role work, alone, and note what Redis ran meanwhile."""
        self.become(role)
        self.redis.script_flush()  # so that it loads what it needs, whoever came before
        counted_commands(self.redis)
        work()
        wait_until(self._is_alone, "all that was sent has been counted")
        log: list[Any] = list(self.redis.acl_log())
        self.denied += [(role, one["reason"], one["object"]) for one in log]
        self.redis.acl_log_reset()
        self.ran[role] = self.ran.get(role, set()) | counted_commands(self.redis)

    def become(self, role: str) -> None:
        """Let what is started from now on be that role."""
        url = self.fleet.valkey.url
        self.fleet.variables["AFTERWORD_REDIS_URL"] = USERS[role].url(url) if role in USERS else url

    def _is_alone(self) -> bool:
        return {one["user"] for one in self.redis.client_list()} == {"default"}

    def submit(self) -> None:
        """Do what a backend does: submit, follow for a moment, look, cancel."""
        settings = Settings.load(self.fleet.variables)
        with Producer(settings) as producer:
            job = producer.submit(user_id="ann", message="I prefer Celsius.", idempotency_key="1")
            assert job.status().state == "queued"
            self.job = job.id
            dropped = producer.submit(user_id="bea", message="Tea.", conversation_id="c")
            dropped.cancel()
            assert [event.type for event in dropped.stream()] == ["failed"]
            with pytest.raises(MemoriesUnavailable):  # no worker lives beside
                producer.memories("ann").list(timeout=0.1)
        self.export()

    def export(self) -> None:
        """Read what an export reads of the ledger; memories would take a worker."""

        async def read() -> None:
            async with Ledger(Settings.load(self.fleet.variables), patience_s=5.0) as ledger:
                lane = lane_id(memory_key("default", "bea"), 0)
                assert [section async for section, _ in ledger.user_records.all(lane)]

        asyncio.run(read())

    def ask_about_memories(self) -> None:
        """Ask, as nobody's role, what a memory worker answers when it lives next."""
        self.become("default")

        async def ask() -> None:
            async with Ledger(Settings.load(self.fleet.variables), patience_s=5.0) as ledger:
                said = {"id": "no such memory"}
                for action in ("show", "delete"):
                    assert (await ledger.memory_requests.ask(LANE, action, said, 60))[1] == "asked"

        asyncio.run(ask())

    def request_erasure(self) -> None:
        """Ask, as nobody's role, for what a memory worker does when it lives next."""
        self.become("default")
        with Operator(Settings.load(self.fleet.variables)) as operator:
            operator.forget("dee")

    def work(self, kind: Kind, until: str) -> None:
        """Let one worker live until it has logged something, look at it, and stop it."""
        (worker,) = self.fleet.start(kind)
        wait_until(lambda: until in worker.log, until, 60)
        self.fleet.afterword("healthcheck", kind)
        self.fleet.exit_code("doctor")
        self.fleet.stop()

    def control(self) -> None:
        """Let an operator ask a worker with Celery's tools, which takes both of them."""
        self.become("responses")
        (worker,) = self.fleet.start("responses")
        self.become("operator")
        # It waits for the answer of one node, and not for a second for those of all.
        whose = ("--destination", worker.node, "--timeout", "60")
        assert "pong" in self.fleet.run(*CELERY, "inspect", *whose, "ping").stdout
        self.fleet.stop()

    def operate(self) -> None:
        """Run every command that an operator has, and open every page of a console."""
        turns, target = self.fleet.folder / "past.jsonl", self.fleet.folder / "target.env"
        turn = {"message": "I moved to Oslo.", "reply": "Noted.", "at": "2024-01-01T00:00:00Z"}
        turns.write_text(json.dumps({"user_id": "cy", "key": "1", **turn}))
        (other := self.fleet.folder / "other").mkdir(mode=0o700)
        target.write_text(f"AFTERWORD_DATA_DIR={other}\n")
        known = {"JOB": self.job, "TURNS": str(turns), "TARGET": str(target)}
        for command, code in OPERATED.items():
            words = [known.get(word, word) for word in command.split()]
            assert self.fleet.exit_code(*words) == code, command
        asyncio.run(self._open_the_console())
        self.export()

    async def _open_the_console(self) -> None:
        settings = Settings.load(self.fleet.variables)
        key = await new_key(settings, AccessScope.CONTENT, AccessScope.OPERATE)
        async with console_client(settings, WITH_KEY) as browser:
            await browser.log_in(key)
            for page in PAGES:
                if page.method == "GET":
                    path = re.sub(r"\{job_id\}", self.job, page.path)
                    await browser.get(path, params={"user_id": "ann"})
            assert (await browser.post(f"/jobs/{self.job}/content")).is_success
            shown = await browser.post("/orders/pause", work="replies", tenant="acme")
            assert shown.is_success


@pytest.fixture(scope="module")
def life() -> Iterator[Life]:
    with (
        Fleet(
            AFTERWORD_MEMORY="embedded", AFTERWORD_WRITE_TIMEOUT_S="2", AFTERWORD_SHARDS="2"
        ) as fleet,
        fleet.valkey.client() as redis,
    ):
        for user in USERS.values():
            user.create(redis)
        life = Life(fleet, redis)
        life.as_role("producer", life.submit)
        life.as_role("responses", lambda: life.work("responses", "reply published"))
        life.as_role("memories", lambda: life.work("memories", "turn stored"))
        life.ask_about_memories()
        life.as_role("memories", lambda: life.work("memories", "answered delete of memories"))
        life.request_erasure()
        life.as_role("memories", lambda: life.work("memories", "user erased; memories"))
        life.as_role("operator", life.operate)
        life.as_role("operator", life.control)
        yield life


def test_no_role_was_denied_anything(life: Life) -> None:
    assert life.denied == []


@pytest.mark.parametrize("role", USERS)
def test_a_role_may_run_what_it_runs_and_nothing_else(life: Life, role: str) -> None:
    called = set().union(*map(commands_of, SCRIPTS[role]))
    assert called <= USERS[role].commands
    sometimes = set() if role == "producer" else _OF_KOMBU
    assert USERS[role].commands <= called | life.ran[role] | sometimes


def test_an_operator_runs_every_command() -> None:
    groups = {name for name, command in cli.commands.items() if isinstance(command, click.Group)}
    every = {*cli.commands} - groups - NOT_OPERATED
    for group in groups:
        inner = cli.commands[group]
        assert isinstance(inner, click.Group)
        every |= {f"{group} {name}" for name in inner.commands}
    ran = {" ".join(one.split()[: 1 + (one.split()[0] in groups)]) for one in OPERATED}
    assert ran == every


def test_every_script_is_run_by_some_role() -> None:
    assert set().union(*SCRIPTS.values()) == set(script_names())


@pytest.mark.parametrize("role", USERS)
def test_no_role_reaches_what_is_not_ours(life: Life, role: str) -> None:
    with Redis.from_url(USERS[role].url(life.fleet.valkey.url)) as redis:
        for command in (("HGET", "celery", "x"), ("PUBLISH", "celery", "x"), ("FLUSHALL",)):
            with pytest.raises(NoPermissionError):
                redis.execute_command(*command)


def test_the_file_has_no_password_of_its_own() -> None:
    assert {rule for user in USERS.values() for rule in user.rules if rule[0] in "><#!"} == {
        f">{PASSWORD}"
    }
