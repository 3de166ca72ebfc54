"""Writes the corpus: every state of a job and its turn, as this build writes it.

Run by hand, once for each version of the records: `python -m tests.ledger.corpus.record`. It packs
this build's `afterword.shared` beside the dumps, so that later builds can be tried against it.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

import afterword.shared
from afterword.shared.contracts import RECORD_VERSION, Reply
from afterword.shared.ledger.records import Claim
from afterword.shared.names import Keys
from tests.kit.ledger.builder import chat_request, lane_of, reply_to
from tests.kit.ledger.dump import dump
from tests.kit.ledger.older_build import OlderBuild
from tests.kit.servers.valkey import Valkey

FOLDER = Path(__file__).parent
VERSION = f"v{RECORD_VERSION}"
ARCHIVE = FOLDER / f"{VERSION}.zip"
EARLIER, JOB = (f"j00_{number:032x}" for number in (1, 2))
REQUEST = {"user_id": "ann", "message": "canary asked", "conversation_id": "c"}
KEY = "k"


def reply() -> Reply:
    """Return the reply to either job, but for its id."""
    body = chat_request(**REQUEST).body()
    return reply_to(Claim(JOB, "1", 1, 0, body, lane_of(), True, 0, 0, 0, 0), "canary replied")


class Recorder:
    """Leads a job of the packed build into one state."""

    def __init__(self, older: OlderBuild) -> None:
        """Let a message of the same conversation have been answered and stored before."""
        self._older = older
        self._tokens = (f"token-{number}" for number in itertools.count())
        self._submit(EARLIER)
        self._claim(EARLIER)
        self._finish(EARLIER)
        self._settle(EARLIER, "stored")

    def queued(self) -> None:
        self._submit(JOB, idempotency_key=KEY)

    def running(self) -> None:
        self.queued()
        self._claim(JOB)
        for number, text in enumerate(("canary ", "half"), start=1):
            self._older.do("delta", JOB, number, text)

    def snoozed(self) -> None:
        self.running()
        self._older.do("snooze", JOB, 60)

    def failed(self) -> None:
        self.running()
        self._older.do("fail", JOB)

    def cancelled(self) -> None:
        self.running()
        self._older.do("cancel", JOB)

    def expired(self) -> None:
        self._submit(JOB, idempotency_key=KEY, expires_in=0.001)
        self._older.do("sweep")

    def pending(self) -> None:
        self.running()
        self._finish(JOB)

    def skipped(self) -> None:
        self.running()
        self._finish(JOB, "policy")

    def writing(self) -> None:
        self.pending()
        self._begin(JOB)

    def stored(self) -> None:
        self.pending()
        self._settle(JOB, "stored")

    def nothing(self) -> None:
        self.pending()
        self._settle(JOB, "nothing")

    def dead(self) -> None:
        self.writing()
        self._older.do("bury", lane_of(), JOB)
        self._older.do("release", lane_of())

    def _submit(self, job_id: str, **more: object) -> None:
        self._older.do("submit", REQUEST | more, job_id)

    def _claim(self, job_id: str) -> None:
        assert self._older.do("claim", job_id, next(self._tokens))

    def _finish(self, job_id: str, skip: str = "") -> None:
        written = reply().model_dump(mode="json") | {"job_id": job_id}
        self._older.do("finish", job_id, written, skip)

    def _begin(self, job_id: str) -> None:
        assert self._older.do("take", lane_of(), next(self._tokens)) == [job_id]
        self._older.do("begin", lane_of(), job_id)

    def _settle(self, job_id: str, outcome: str) -> None:
        self._begin(job_id)
        self._older.do("settle", lane_of(), job_id, outcome)
        self._older.do("release", lane_of())


STATES: tuple[Callable[[Recorder], None], ...] = (
    Recorder.queued,
    Recorder.running,
    Recorder.snoozed,
    Recorder.failed,
    Recorder.cancelled,
    Recorder.expired,
    Recorder.pending,
    Recorder.skipped,
    Recorder.writing,
    Recorder.stored,
    Recorder.nothing,
    Recorder.dead,
)


def pack() -> None:
    """Pack this build's `afterword.shared`: the same sources give the same bytes."""
    package = Path(afterword.shared.__file__).parent
    sources = sorted(file for file in package.rglob("*") if file.suffix in (".py", ".lua"))
    with ZipFile(ARCHIVE, "w") as archive:
        for source in sources:
            name = source.relative_to(package.parents[1])
            archive.writestr(ZipInfo(str(name)), source.read_bytes(), ZIP_DEFLATED, 9)


def main() -> None:
    """Record each state, in a namespace of its own."""
    pack()
    with ExitStack() as stack:
        server = stack.enter_context(Valkey())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for lead in STATES:
            name = lead.__name__
            settings = {"redis_url": server.url, "namespace": name, "durability": "none"}
            with OlderBuild(ARCHIVE, folder / name, memory="embedded", **settings) as older:
                lead(Recorder(older))
            dump(server.client(), Keys(name, 0).root, FOLDER / f"{VERSION}-{name}.json")


if __name__ == "__main__":
    main()
