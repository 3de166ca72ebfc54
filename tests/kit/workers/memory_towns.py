"""Real workers on each memory backend, and what a test looks at and breaks there."""

from __future__ import annotations

import json
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from typing import Literal, Self

from afterword.producer import Job, Operator, Producer, Reply, TurnState
from afterword.shared.names import lane_id, memory_key
from afterword.workers.adapters.mem0.pgvector.database import TABLE
from tests.kit.claude_api.scripted_answers import ClaudeAnswer
from tests.kit.claude_api.wire_format import told
from tests.kit.ledger.builder import LedgerInspector
from tests.kit.mem0_api.process import Mem0Process
from tests.kit.mem0_api.scripted_answers import Mem0Answer
from tests.kit.mem0_api.server import KEY
from tests.kit.servers.postgres import Postgres
from tests.kit.servers.scripted_http_server import Cue
from tests.kit.waiting import wait_until
from tests.kit.workers.fleet import MEMORY_FAULT_APP, Fleet, WorkerProcess
from tests.kit.workers.memory_faults import answers_are_lost, calls_are_rejected, calls_hang

Backend = Literal["embedded", "selfhosted", "hosted"]
BACKENDS: Sequence[Backend] = ("embedded", "selfhosted", "hosted")

#: What a request for extraction holds, and no request for a reply.
EXTRACTOR = "Memory Extractor"

#: How long a lane waits after a lost answer, unless a test makes it due: longer than any test.
_PAUSE_S = "300"


class MemoryTown(ABC):
    """A fleet on one backend, a producer and an inspector of the ledger."""

    kind: Backend

    def __init__(self, **environ: str) -> None:
        self._opened = ExitStack()
        self.environ = {"AFTERWORD_MEMORY": self.kind, "AFTERWORD_VISIBLE_S": _PAUSE_S} | environ

    @abstractmethod
    def kept(self) -> str:
        """Return all that the backend holds, as text."""

    @abstractmethod
    def sent(self) -> str:
        """Return all that a service was sent which stores, searches or extracts, as text."""

    @abstractmethod
    def adds_are_lost(self) -> AbstractContextManager[None]:
        """Let mem0 store what it is given, and nobody know of it."""

    @abstractmethod
    def adds_are_held(self) -> AbstractContextManager[Callable[[], bool]]:
        """Hold up whatever turns are stored with; yields what says whether a turn is held."""

    @abstractmethod
    def lookups_are_rejected(self) -> AbstractContextManager[None]:
        """Let mem0 refuse to say what it has of a turn, as if the turn were to blame."""

    def restart(self) -> None:
        """End the workers, and what keeps memories if that is a server, and start them again."""
        self.fleet.stop()
        self._start()

    def say(self, user: str, message: str, **fields: str) -> tuple[Job, Reply]:
        """Submit a message and wait for the reply."""
        job = self.producer.submit(user_id=user, message=message, **fields)  # type: ignore[arg-type]
        return job, job.wait(timeout=60)

    def told(self, user: str, message: str, **fields: str) -> Job:
        """Say something and wait until it is stored."""
        job, _ = self.say(user, message, **fields)
        self.ends(job, TurnState.STORED)
        return job

    def ends(self, job: Job, state: TurnState) -> None:
        """Wait until the turn of a job is in this state."""
        wait_until(lambda: job.status().turn is state, f"the turn is {state}", 60)

    def half_told(self, user: str, message: str, **fields: str) -> Job:
        """Say something that mem0 stores without a word of it; its lane waits."""
        with self.adds_are_lost():
            job, _ = self.say(user, message, **fields)
            wait_until(lambda: self.waits(user), "the lane waits", 60)
        wait_until(lambda: job.id in self.kept(), "it is stored", 60)
        return job

    def waits(self, user: str) -> bool:
        """Return whether the lane of a user waits for its pause to end."""
        lane = self.lane(user)
        waiting = [place for place, _ in self.inspector.places(lane)] == ["waiting"]
        return waiting and self.inspector.waits_s(lane) > float(_PAUSE_S) / 2

    def open_gates(self) -> None:
        """Open what earlier failures of mem0 have shut."""
        with Operator(self.fleet.settings) as operator:
            for gate in operator.gates():
                operator.open_gate(gate.name)

    def lane(self, user: str) -> str:
        """Return the lane of a user."""
        return lane_id(memory_key("default", user), 0)

    def last_prompt(self) -> str:
        """Return the last message of Claude's last request for a reply."""
        asked = [told(one["body"]) for one in self.fleet.claude.requests()]
        return next(texts[-1] for texts in reversed(asked) if EXTRACTOR not in texts[0])

    def writer(self) -> WorkerProcess:
        """Return the one memory worker that runs."""
        [writer] = [one for one in self.fleet.workers if one.kind == "memories" and one.runs]
        return writer

    def _start(self) -> None:
        self.fleet.start("responses", "memories", app=MEMORY_FAULT_APP)

    def __enter__(self) -> Self:
        with self._opened as opened:
            self.fleet = opened.enter_context(Fleet(**self.environ))
            self._start()
            self.producer = opened.enter_context(Producer(self.fleet.settings))
            self.inspector = LedgerInspector(self.fleet.settings)
            opened.callback(self.inspector.close)
            self._opened = opened.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()


class EmbeddedTown(MemoryTown):
    """On the file of the embedded memory."""

    kind = "embedded"

    def kept(self) -> str:
        path = self.fleet.data_dir / "memory" / "memories.sqlite"
        with closing(sqlite3.connect(path)) as file:
            return "\n".join(file.iterdump())

    def sent(self) -> str:
        return ""

    def adds_are_lost(self) -> AbstractContextManager[None]:
        return answers_are_lost(self.fleet.data_dir, "add")

    def adds_are_held(self) -> AbstractContextManager[Callable[[], bool]]:
        return calls_hang(self.fleet.data_dir, "add")

    def lookups_are_rejected(self) -> AbstractContextManager[None]:
        return calls_are_rejected(self.fleet.data_dir, "find")


class SelfHostedTown(MemoryTown):
    """On a database of its own in a PostgreSQL."""

    kind = "selfhosted"

    def __init__(self, postgres: Postgres, **environ: str) -> None:
        self.url = postgres.new_database()
        self._postgres = postgres
        super().__init__(AFTERWORD_POSTGRES_URL=self.url, **environ)

    def kept(self) -> str:
        rows = self._postgres.tell(f"SELECT id, payload FROM {TABLE}", self.url)
        return json.dumps([[str(row[0]), row[1]] for row in rows], ensure_ascii=False)

    def sent(self) -> str:
        asked = [told(one["body"]) for one in self.fleet.claude.requests()]
        return "\n".join(texts[-1] for texts in asked if EXTRACTOR in texts[0])

    def adds_are_lost(self) -> AbstractContextManager[None]:
        return answers_are_lost(self.fleet.data_dir, "add")

    @contextmanager
    def adds_are_held(self) -> Iterator[Callable[[], bool]]:
        self.fleet.claude.will_answer(ClaudeAnswer(match=EXTRACTOR, hold=True))
        yield lambda: self.fleet.claude.held() > 0
        self.fleet.claude.release()

    def lookups_are_rejected(self) -> AbstractContextManager[None]:
        return calls_are_rejected(self.fleet.data_dir, "find")

    def restart(self) -> None:
        self.fleet.stop()
        self._postgres.restart()
        self._start()

    def _start(self) -> None:
        self.fleet.data_dir.mkdir(exist_ok=True)  # for what a test has in store
        super()._start()


class HostedTown(MemoryTown):
    """On the stand-in of mem0's platform."""

    kind = "hosted"

    def __init__(self, **environ: str) -> None:
        self.mem0 = Mem0Process()
        super().__init__(MEM0_API_KEY=KEY, **environ)

    def kept(self) -> str:
        return json.dumps(self.mem0.order()["rows"], ensure_ascii=False)

    def sent(self) -> str:
        bodies = [one["body"] for one in self.mem0.order()["seen"]]
        return json.dumps(bodies, ensure_ascii=False)

    @contextmanager
    def adds_are_lost(self) -> Iterator[None]:
        self.mem0.will_answer(Mem0Answer(verb="add", status=504, done=True, times=None))
        yield
        self.mem0.calm()

    @contextmanager
    def adds_are_held(self) -> Iterator[Callable[[], bool]]:
        self.mem0.will_answer(Mem0Answer(verb="add", cue=Cue.HOLD, done=True))
        yield lambda: self.mem0.held > 0
        self.mem0.release()

    @contextmanager
    def lookups_are_rejected(self) -> Iterator[None]:
        self.mem0.will_answer(Mem0Answer(verb="get_all", status=400, times=None))
        yield
        self.mem0.calm()

    def __enter__(self) -> Self:
        self.mem0.__enter__()
        self.environ["MEM0_HOST"] = self.mem0.url
        try:
            return super().__enter__()
        except BaseException:
            self.mem0.__exit__()
            raise

    def __exit__(self, *_: object) -> None:
        super().__exit__()
        self.mem0.__exit__()


def town_of(kind: Backend, postgres: Postgres, **environ: str) -> MemoryTown:
    """Return the town on a backend."""
    if kind == "selfhosted":
        return SelfHostedTown(postgres, **environ)
    return HostedTown(**environ) if kind == "hosted" else EmbeddedTown(**environ)
