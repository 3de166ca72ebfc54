"""The doors of a running worker: whatever its broker holds, it lives, and answers what is good."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator

import pytest

from afterword.shared.names import MEMORIES, REPLIES, RUN_TASK
from tests.fuzz.test_control import COMMAND, ENVELOPE
from tests.kit.fuzz.broken import Broken, broken
from tests.kit.fuzz.doors import door
from tests.kit.ledger.hint_messages import hint_list, hint_message
from tests.kit.process_inspection import peak_mb
from tests.kit.servers.valkey import Valkey
from tests.kit.workers.probe_worker import CONTROL_CHANNEL, ProbeWorker

pytestmark = [
    pytest.mark.system, pytest.mark.redis, pytest.mark.slow, pytest.mark.finding(14),
]  # fmt: skip

HINT = json.loads(hint_message(RUN_TASK, "noop:broken", "noop:broken.7", step=3))
PING = COMMAND | {"method": "ping", "arguments": {}, "destination": None}

#: After so many messages a good one must be answered.
_EACH = 50
_MOST_MB = 400.0


class Battered:
    """A worker that is sent whatever, and a good hint now and then."""

    def __init__(self, worker: ProbeWorker) -> None:
        self._worker = worker
        self._sent = 0

    def push(self, message: object) -> None:
        """Put something into both queues."""
        raw = json.dumps(message, separators=(",", ":"))
        for queue in (REPLIES, MEMORIES):
            self._worker.redis.lpush(hint_list(queue), raw)
        self._check()

    def say(self, message: object) -> None:
        """Say something on the control channel."""
        self._worker.redis.publish(CONTROL_CHANNEL, json.dumps(message))
        self._check()

    def _check(self) -> None:
        self._sent += 1
        if self._sent % _EACH == 0:
            good = f"noop:{self._sent}"
            self._worker.hint(good)
            self._worker.wait_for(f"ended {good}")  # which fails if the worker has died
            assert peak_mb(self._worker.process.pid) < _MOST_MB


@pytest.fixture(scope="module")
def battered() -> Iterator[Battered]:
    with Valkey() as server, ProbeWorker(server, "-c", "2") as worker:
        yield Battered(worker)


@door("queues of a running worker", inputs=1500, message=broken(HINT))
def test_a_worker_survives_every_message(battered: Battered, message: Broken) -> None:
    battered.push(message.value)


@door("envelopes to a running worker", inputs=750, said=broken(ENVELOPE))
def test_a_worker_survives_every_envelope(battered: Battered, said: Broken) -> None:
    battered.say(said.value)


@door("commands to a running worker", inputs=750, said=broken(PING))
def test_a_worker_survives_every_command(battered: Battered, said: Broken) -> None:
    body = base64.b64encode(json.dumps(said.value).encode()).decode()
    battered.say(ENVELOPE | {"body": body})
