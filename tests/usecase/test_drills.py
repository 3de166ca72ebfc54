"""The drills of the pages on backups, on moving the ledger and on its shards, step by step."""

from __future__ import annotations

import asyncio
import copy
import logging
import shutil
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydantic import SecretStr

from afterword.producer.admin.fleet_status import found_in
from afterword.producer.cli.checks.finding import Finding
from afterword.producer.cli.checks.ledger import look_at_ledger
from afterword.shared.errors import Misconfigured
from afterword.shared.ledger.dead_letter_records import DeadLetterFilter
from afterword.shared.ledger.ledger import Ledger
from afterword.shared.lifecycle import JobState, TurnState
from afterword.shared.names import lane_id, memory_key, shard_of
from afterword.shared.settings import Settings
from afterword.workers.adapters.mem0.sqlite.recipe import open_embedded
from afterword.workers.background.rollback_detector import RollbackDetector, SeenFile, place_of
from afterword.workers.ports import MigratableMemories, RecalledMemory, Turn
from afterword.workers.wiring import open_memories
from tests.kit.command_line import afterword
from tests.kit.ledger.builder import (
    LedgerInspector,
    claim_job,
    reply_to,
    submit_and_answer,
    submit_and_claim,
    submit_job,
)
from tests.kit.ledger.lane_writer import FailingMemories, LaneWriter
from tests.kit.servers.postgres import Postgres, program
from tests.kit.servers.valkey import Valkey
from tests.kit.waiting import wait_until

pytestmark = pytest.mark.redis

ANN = memory_key("default", "ann")


@pytest.fixture
def servers() -> Iterator[tuple[Valkey, Valkey]]:
    """Give two servers; the first one runs."""
    first, second = Valkey("--appendonly", "yes"), Valkey("--appendonly", "yes")
    with first:
        yield first, second
        second.stop()


def settings_of(server: Valkey, tmp_path: Path, **changed: object) -> Settings:
    fields: dict[str, object] = {"namespace": "drill", "memory": "embedded"} | changed
    return Settings(redis_url=server.url, state_dir=tmp_path / "state", **fields)


class Life:
    """A ledger on some server, with a memory worker and what its machine has seen."""

    def __init__(self, settings: Settings, ledger: Ledger, memories: FailingMemories) -> None:
        self.ledger = ledger
        self.writer = LaneWriter(settings, ledger, memories)
        self.memories = memories
        self._settings = settings

    async def look(self) -> None:
        """Do what each worker does when it starts, and from time to time."""
        assert self.ledger.identity is not None
        file = SeenFile(
            self._settings.state_dir, self.ledger.identity.name, place_of(self._settings)
        )
        await RollbackDetector(self.ledger.maintenance, file).check()

    async def tell(self, text: str) -> str:
        """Answer a message; its turn waits in its lane."""
        return await submit_and_answer(self.ledger, text)

    async def tell_of_any_shard(self, text: str) -> str:
        """Answer a message and store its turn, wherever its user's lane is."""
        turn_id = await self.tell(text)
        lane = lane_id(ANN, shard_of(ANN, self._settings.shards))
        await self.writer.write(lane)
        return turn_id

    async def state(self, turn_id: str) -> TurnState:
        return (await self.ledger.queries.status(turn_id)).turn

    def rows(self) -> dict[str, int]:
        """Return how often memory holds each text."""
        texts = [row.text for row in self.memories.rows]
        return {text: texts.count(text) for text in texts}


class Lives:
    """Opens ledgers, one after the other."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self._stack = stack

    async def begin(self, settings: Settings, memories: FailingMemories) -> Life:
        ledger = await self._stack.enter_async_context(Ledger(settings, patience_s=5.0))
        await ledger.check(founds=True)
        return Life(settings, ledger, memories)


@pytest.fixture
async def lives() -> AsyncIterator[Lives]:
    async with AsyncExitStack() as stack:
        yield Lives(stack)


def _alarms(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [one.message for one in caplog.records if one.levelno == logging.CRITICAL]


def save_ledger(server: Valkey, file: Path) -> None:
    """Copy the ledger while it is in use, as `redis-cli --rdb` does."""
    with server.client() as redis:
        redis.save()
    shutil.copy(server.folder / "dump.rdb", file)


def restore_ledger(server: Valkey, file: Path) -> None:
    """Start a server from a copy, and let it write its append-only file anew."""
    shutil.copy(file, server.folder / "dump.rdb")
    server.start("--appendonly", "no", "--dbfilename", "dump.rdb")
    with server.client() as redis:
        redis.config_set("appendonly", "yes")
        wait_until(lambda: _is_written(redis.info("persistence")), "an append-only file", 30)
    server.restart()


def _is_written(persistence: dict[str, object]) -> bool:
    going_on = ("aof_rewrite_in_progress", "aof_rewrite_scheduled")
    return bool(persistence["aof_enabled"]) and not any(persistence[name] for name in going_on)


async def test_a_backup_of_the_ledger_and_then_of_memory_is_restored(
    servers: tuple[Valkey, Valkey],
    lives: Lives,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    first, second = servers
    life = await lives.begin(settings_of(first, tmp_path), FailingMemories())
    before = await life.tell("I prefer Celsius.")
    await life.writer.write()
    between = await life.tell("My dog is called Rex.")

    save_ledger(first, tmp_path / "ledger.rdb")
    await life.writer.write()  # life goes on between the two copies
    kept = copy.deepcopy(life.memories.rows)
    await life.tell("I play cello.")
    await life.writer.write()
    await life.look()
    first.kill()

    restore_ledger(second, tmp_path / "ledger.rdb")
    memories = FailingMemories()
    memories.rows = kept
    again = await lives.begin(settings_of(second, tmp_path), memories)
    await again.look()
    [alarm] = _alarms(caplog)
    assert "went back" in alarm
    assert (await again.state(before), await again.state(between)) == ("stored", "pending")
    await again.writer.write()
    assert await again.state(between) is TurnState.STORED
    assert again.rows() == {"I prefer Celsius.": 1, "My dog is called Rex.": 1}
    assert "add" not in again.writer.calls, "it was found by its turn"
    found = await memories.search(ANN, "Which temperature do I prefer, Celsius?", 5)
    assert "I prefer Celsius." in [row.text for row in found.memories]
    new = await again.tell("I moved to Oslo.")
    await again.writer.write()
    assert await again.state(new) is TurnState.STORED


async def test_on_a_machine_that_never_saw_the_ledger_an_operator_says_that_it_was_restored(
    servers: tuple[Valkey, Valkey], lives: Lives, tmp_path: Path
) -> None:
    """Step 4 of a restore: nobody else can know which turns memory holds already."""
    first, second = servers
    life = await lives.begin(settings_of(first, tmp_path), FailingMemories())
    turn = await life.tell("My dog is called Rex.")
    save_ledger(first, tmp_path / "ledger.rdb")
    await life.writer.write()
    await life.look()
    first.kill()

    restore_ledger(second, tmp_path / "ledger.rdb")
    here, elsewhere = settings_of(second, tmp_path), settings_of(second, tmp_path / "elsewhere")
    again = await lives.begin(elsewhere, life.memories)
    assert "after a restore, run afterword restored" in (await restored_finding(elsewhere)).detail
    assert (await restored_finding(here)).level == "fail"
    assert "Nothing was changed" in await restored(second)
    assert (await restored_finding(here)).level == "fail"
    assert "knows" in await restored(second, "--apply", "--by", "ann")
    assert (await restored_finding(here)).level == "ok"

    life.memories.calls.clear()
    await again.writer.write()
    assert await again.state(turn) is TurnState.STORED
    assert "add" not in again.writer.calls, "it was found by its turn"
    assert again.rows() == {"My dog is called Rex.": 1}
    (entry,) = await again.ledger.replay_runs.audit_entries(1)
    assert (entry.by, entry.action) == ("ann", "restored")


async def restored_finding(settings: Settings) -> Finding:
    """Return what doctor finds, on the machine with this state folder."""
    (found,) = [one for one in await look_at_ledger(settings) if one.check == "restored"]
    return found


async def restored(server: Valkey, *options: str) -> str:
    """Run the command; return what it prints."""
    env = {
        "AFTERWORD_REDIS_URL": server.url,
        "AFTERWORD_NAMESPACE": "drill",
        "AFTERWORD_MEMORY": "embedded",
    }
    return (await asyncio.to_thread(afterword, "restored", *options, env=env)).stdout


async def test_a_memory_that_is_older_than_its_ledger_lacks_what_the_ledger_calls_stored(
    servers: tuple[Valkey, Valkey], lives: Lives, tmp_path: Path
) -> None:
    """Why the ledger is copied first."""
    first, second = servers
    life = await lives.begin(settings_of(first, tmp_path), FailingMemories())
    turn = await life.tell("I prefer Celsius.")
    kept = copy.deepcopy(life.memories.rows)
    await life.writer.write()
    save_ledger(first, tmp_path / "ledger.rdb")
    first.kill()

    restore_ledger(second, tmp_path / "ledger.rdb")
    memories = FailingMemories()
    memories.rows = kept
    again = await lives.begin(settings_of(second, tmp_path), memories)
    await again.writer.write()
    assert await again.state(turn) is TurnState.STORED
    assert again.rows() == {}


async def test_the_embedded_file_is_copied_while_it_is_written(tmp_path: Path) -> None:
    """Step 2 of a backup, on the embedded memory: what SQLite's `.backup` does."""
    here, there = tmp_path / "here", tmp_path / "there"
    memories = await open_embedded(Settings(data_dir=here))
    said = Turn("turn-1", "I prefer Celsius.", "", datetime(2026, 5, 8, tzinfo=UTC))
    await memories.add(ANN, said)
    copied = there / "memory" / "memories.sqlite"
    copied.parent.mkdir(parents=True)
    there.chmod(0o700)
    copied.parent.chmod(0o700)
    with (
        closing(sqlite3.connect(here / "memory" / "memories.sqlite")) as file,
        closing(sqlite3.connect(copied)) as copy_of_it,
    ):
        file.backup(copy_of_it)
    await memories.add(ANN, replace(said, id="turn-2", user_text="I moved to Oslo."))
    await memories.aclose()

    restored = await open_embedded(Settings(data_dir=there))
    found = await restored.search(ANN, "Which temperature do I prefer?", 5)
    assert [row.text for row in found.memories] == ["I prefer Celsius."]
    await restored.add(ANN, said)
    assert len(await restored.find(ANN, "turn-1")) == 1, "the same turn again adds nothing"
    await restored.aclose()


async def test_a_database_of_memories_is_dumped_while_it_is_written(postgres: Postgres) -> None:
    """Step 2 of a backup, on PostgreSQL: what `pg_dump` and `pg_restore` do."""
    here, there = postgres.new_database(), postgres.new_database()
    memories = await open_database(here)
    said = RecalledMemory("m1", ANN, "I prefer Celsius.", None, datetime(2026, 5, 8, tzinfo=UTC))
    await memories.copy(ANN, replace(said, turn_id="turn-1"))
    dump = postgres.folder / "memories.dump"
    await run_program("pg_dump", "--format=custom", "--file", str(dump), here)
    await memories.copy(ANN, replace(said, id="m2", text="I moved to Oslo.", turn_id="turn-2"))
    await memories.aclose()

    await run_program("pg_restore", "--exit-on-error", "--no-owner", "--dbname", there, str(dump))
    restored = await open_database(there)
    found = await restored.search(ANN, "Which temperature do I prefer?", 5)
    assert [row.text for row in found.memories] == ["I prefer Celsius."]
    assert len(await restored.find(ANN, "turn-1")) == 1, "so the same turn is not added again"
    await restored.copy(ANN, replace(said, id="m2", text="I moved to Oslo.", turn_id="turn-2"))
    assert len(await restored.find(ANN, "turn-2")) == 1
    await restored.aclose()


async def open_database(url: str) -> MigratableMemories:
    settings = Settings(
        memory="selfhosted",
        postgres_url=SecretStr(url),
        anthropic_api_key=SecretStr("none-is-asked"),
        anthropic_base_url="http://127.0.0.1:9",
    )
    memories = await open_memories(settings)
    assert memories is not None
    return memories


async def run_program(name: str, *arguments: str) -> None:
    """Run a program of PostgreSQL to its end."""
    running = await asyncio.create_subprocess_exec(str(program(name)), *arguments)
    assert await running.wait() == 0


async def test_a_ledger_moves_to_another_redis_with_all_that_is_open(
    servers: tuple[Valkey, Valkey],
    lives: Lives,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    first, second = servers
    life = await lives.begin(settings_of(first, tmp_path), FailingMemories())
    queued = await submit_job(life.ledger, user_id="cy", idempotency_key="k")
    running = await submit_and_claim(life.ledger, user_id="bob")
    pending = await life.tell("I prefer Celsius.")
    await life.look()

    second.start()
    with first.client() as old, second.client() as new:
        new.replicaof("127.0.0.1", str(first.port))
        wait_until(lambda: new.info("replication")["master_link_status"] == "up", "linked", 30)
        old.client_pause(600_000, all=False)  # nobody writes any more
        wait_until(lambda: _offset(new) == _offset(old), "the copy is complete", 30)
        new.replicaof("NO", "ONE")
    first.kill()

    moved = await lives.begin(settings_of(second, tmp_path), life.memories)
    assert moved.ledger.identity == life.ledger.identity
    await moved.look()
    assert _alarms(caplog) == []
    await moved.ledger.jobs.finish(running, reply_to(running))
    status = await moved.ledger.queries.status(running.job_id)
    assert status.state is JobState.SUCCEEDED
    await moved.writer.write()
    assert await moved.state(pending) is TurnState.STORED
    assert await submit_job(moved.ledger, user_id="cy", idempotency_key="k") == queued
    claim = await claim_job(moved.ledger, queued)
    assert int(claim.fence.partition(".")[0]) > int(running.fence.partition(".")[0])


def _offset(redis: object) -> int:
    found = redis.info("replication")  # type: ignore[attr-defined]
    return int(found.get("slave_repl_offset", found["master_repl_offset"]))


async def test_a_ledger_gets_more_shards_by_a_namespace_beside_it(
    servers: tuple[Valkey, Valkey], lives: Lives, tmp_path: Path
) -> None:
    server, _ = servers
    few = settings_of(server, tmp_path)
    memories = FailingMemories()
    old = await lives.begin(few, memories)
    queued = await submit_job(old.ledger, "My dog is called Rex.")
    pending = await old.tell("I prefer Celsius.")
    with pytest.raises(Misconfigured, match="AFTERWORD_SHARDS"):
        await lives.begin(few.model_copy(update={"shards": 4}), memories)

    more = few.model_copy(update={"shards": 4, "namespace": "drill2"})
    new = await lives.begin(more, memories)
    claim = await claim_job(old.ledger, queued)  # the old workers go on until nothing is left
    await old.ledger.jobs.finish(claim, reply_to(claim))
    await old.writer.write()
    inspector = LedgerInspector(few)
    assert inspector.open_ends() == set()
    assert [await old.state(turn) for turn in (queued, pending)] == [TurnState.STORED] * 2
    left = DeadLetterFilter()
    assert [one async for one in old.ledger.dead_letters.select(left, content=False)] == []
    inspector.close()

    told = await new.tell_of_any_shard("I play cello.")
    assert await new.state(told) is TurnState.STORED
    assert set(memories.turns(ANN)) == {queued, pending, told}, "memory is one, whatever the ledger"


@pytest.mark.parametrize(("before", "after"), [(1, 4), (4, 2)])
async def test_a_ledger_that_is_drained_gets_another_number_of_shards(
    servers: tuple[Valkey, Valkey],
    lives: Lives,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    before: int,
    after: int,
) -> None:
    """`docs/how-to/redis.md`, "Change the number of shards", with users who change their shard."""
    server, _ = servers
    settings = settings_of(server, tmp_path, shards=before)
    memories = FailingMemories()
    old = await lives.begin(settings, memories)
    answered = {
        user: await submit_and_answer(old.ledger, "I prefer Celsius.", user_id=user)
        for user in map("user-{}".format, range(8))
    }
    for user in answered:
        await old.writer.write(lane_at(user, before))
    assert await is_drained(old.ledger)
    await old.look()

    with server.client() as redis:  # step 3, once all have stopped
        assert redis.hdel("drill:{00}:identity", "shards", "layout") == 2
    new = await lives.begin(settings.model_copy(update={"shards": after}), memories)
    await new.look()
    assert _alarms(caplog) == []
    with pytest.raises(Misconfigured, match="AFTERWORD_SHARDS"):
        await lives.begin(settings, memories)
    for user, job_id in answered.items():
        if shard_of(memory_key("default", user), before) < after:
            assert (await new.ledger.queries.status(job_id)).turn is TurnState.STORED
        turn = await submit_and_answer(new.ledger, "I moved to Oslo.", user_id=user)
        await new.writer.write(lane_at(user, after))
        assert await new.state(turn) is TurnState.STORED
        assert memories.turns(memory_key("default", user)) == [job_id, turn]
    assert await is_drained(new.ledger)


def lane_at(user: str, shards: int) -> str:
    """Return the lane of a user in a ledger with so many shards."""
    owner = memory_key("default", user)
    return lane_id(owner, shard_of(owner, shards))


async def is_drained(ledger: Ledger) -> bool:
    """Return whether nothing is open, behind or dead, as step 1 asks for, and all is in order."""
    found = await found_in(ledger)
    accounts = await ledger.accounts.by_tenant(late_s=60)
    open_ones = [found["jobs"][state] for state in ("queued", "running")]
    problems = [one async for one in ledger.maintenance.find_inconsistencies()]
    dead = found["dead_letters"].values()
    return not any((*open_ones, *dead, *(one.users_behind for one in accounts), problems))
