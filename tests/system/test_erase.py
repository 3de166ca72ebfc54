"""A user is erased with real workers: what they said is then found nowhere (promise I12)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from afterword.producer import ErasureState, Job, JobFailed, Operator, Producer, TurnState
from afterword.shared.settings import Settings
from tests.kit.claude_api.scripted_answers import ClaudeAnswer
from tests.kit.mem0_api.server import KEY
from tests.kit.servers.provider_thread import ProviderThread
from tests.kit.servers.valkey import Valkey
from tests.kit.waiting import wait_until
from tests.kit.workers.forked_workers import ForkedWorkers

pytestmark = [pytest.mark.system, pytest.mark.redis, pytest.mark.slow]

ANN, BOB = "marmalade-4711", "liquorice-4712"


class Town:
    """Two workers on a Redis that writes everything down."""

    def __init__(
        self, valkey: Valkey, providers: ProviderThread, workers: ForkedWorkers, folder: Path
    ) -> None:
        self.valkey = valkey
        self.providers = providers
        self.environ = {
            "AFTERWORD_REDIS_URL": valkey.url,
            "AFTERWORD_MEMORY": "hosted",
            "AFTERWORD_DATA_DIR": str(folder),
            "AFTERWORD_LEASE_S": "1",
            "AFTERWORD_SWEEP_S": "0.1",
            "AFTERWORD_WRITE_TIMEOUT_S": "2",
            "AFTERWORD_PENDING_S": "1",
            "ANTHROPIC_API_KEY": "test-key",
            "ANTHROPIC_BASE_URL": providers.claude.url,
            "MEM0_API_KEY": KEY,
            "MEM0_HOST": providers.mem0.url,
        }
        self.settings = Settings.load(self.environ)
        self.logs = [folder / f"{queue}.log" for queue in ("replies", "memories")]
        for log in self.logs:
            workers.start(self.environ, log, "-Q", log.stem, "-n", f"{log.stem}@town")

    def said(self, job: Job) -> None:
        """Wait until a turn is stored."""
        job.wait(timeout=60)
        wait_until(lambda: job.status().turn is TurnState.STORED, "it is stored", 30)

    def finds(self, mark: str) -> list[str]:
        """Return where a text still stands: in a key, a file of Redis, mem0, or a log."""
        with self.valkey.client() as redis:
            keys = [key for key in redis.scan_iter() if mark in repr(redis.dump(key))]
        files = [*self.valkey.folder.rglob("*.aof"), *self.valkey.folder.rglob("*.rdb"), *self.logs]
        held = [str(file) for file in files if mark.encode() in _content(file)]
        mem0 = self.providers.mem0
        rows = self.providers.do(lambda: [row["id"] for row in mem0.rows if mark in repr(row)])
        return [*keys, *held, *rows]


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    folder = tmp_path_factory.mktemp("town")
    options = ("--appendonly", "yes", "--appendfsync", "always", "--rdbcompression", "no")
    with (
        Valkey(*options) as valkey,
        ProviderThread() as providers,
        ForkedWorkers() as workers,
    ):
        yield Town(valkey, providers, workers, folder)


def test_the_text_of_an_erased_user_is_gone_and_that_of_others_is_kept(town: Town) -> None:
    with Producer(town.settings) as producer, Operator(town.settings) as operator:
        for user, mark in (("ann", ANN), ("bob", BOB)):
            for number in range(2):
                town.said(
                    producer.submit(
                        user_id=user,
                        message=f"I like {mark} {number}.",
                        conversation_id="talk",
                        idempotency_key=f"{user}-{number}",
                    )
                )
        town.providers.do(
            lambda: town.providers.claude.interject(ClaudeAnswer(match=ANN, hold=True))
        )
        running = producer.submit(user_id="ann", message=f"Still {ANN}.")
        wait_until(lambda: town.providers.claude.held, "it is being answered", 20)
        assert town.finds(ANN)

        operator.forget("ann")

        with pytest.raises(JobFailed) as caught:
            running.wait(timeout=60)
        assert caught.value.code == "erased"
        wait_until(lambda: _is_erased(operator), "ann is erased", 60)
        wait_until(lambda: not town.finds(ANN), "nothing of hers is left", 20)
        assert len(town.finds(BOB)) > 4

        town.said(producer.submit(user_id="ann", message="I am back."))


def _content(file: Path) -> bytes:
    """Return what is in a file: nothing if Redis has replaced it meanwhile."""
    with suppress(FileNotFoundError):
        return file.read_bytes()
    return b""


def _is_erased(operator: Operator) -> bool:
    receipt = operator.erasure("ann")
    return receipt is not None and receipt.state is ErasureState.ERASED
