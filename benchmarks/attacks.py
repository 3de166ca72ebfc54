"""What a soak adds with `--hostile`: a greedy tenant, poison, malformed rows, half failures.

The attacks go on beside the load and the faults of the soak. Four books are kept of what must not
happen: content of one user in the prompt of another (`leaked`), an honest submit that a stranger
delayed or refused (`stalled`), an item of `submit_many` without a result of its own (`unanswered`),
and a command line that could not say how things are (`blind`).
"""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections import Counter
from collections.abc import Coroutine, Sequence
from functools import partial
from typing import Any

from click.testing import CliRunner, Result
from redis.exceptions import RedisError

from afterword.producer import AsyncProducer
from afterword.producer.cli.main import cli
from afterword.shared.error_location import error_location, error_name
from afterword.shared.errors import AfterwordError, LedgerUnavailable, QueueFull
from afterword.shared.names import MEMORIES, REPLIES, RUN_TASK, memory_key, queue_list
from afterword.shared.settings import Settings
from tests.kit.claude_api import wire_format as wire
from tests.kit.claude_api.scripted_answers import ClaudeAnswer
from tests.kit.claude_api.server import echo
from tests.kit.ledger.hint_messages import hint_message
from tests.kit.mem0_api.scripted_answers import Mem0Answer
from tests.kit.servers.provider_thread import ProviderThread
from tests.kit.servers.valkey import Valkey

TENANT = "mob"
BOOKS = ("leaked", "stalled", "unanswered", "blind")

#: How a text names its speaker, and how long a submit may take while Redis is there.
_SPEAKER = re.compile(r"canary-4711 of ([\w-]+)")
_LONGEST_SUBMIT_S = 2.0

_FLOOD = 300
_JUNK: tuple[Any, ...] = ("oops", None, 7, {}, {"user_id": "x"}, {"user_id": "x", "message": 1})
_READERS = (
    ("status", "--json"), ("doctor", "--json"), ("account", "--json"), ("dead", "list", "--json"),
    ("quarantine", "list", "--json"),
)  # fmt: skip

_HINT: dict[str, Any] = json.loads(hint_message(RUN_TASK, "canary", "poison"))
_POISON: tuple[str | bytes, ...] = (
    "canary", b"\0\0\0", "[1]", b"x" * 1_000_000, json.dumps(_HINT | {"body": "1"}),
    json.dumps(_HINT | {"headers": _HINT["headers"] | {"timelimit": ["a", "b"]}}),
    json.dumps(_HINT | {"headers": _HINT["headers"] | {"compression": "bz2"}}),
    json.dumps(_HINT | {"headers": _HINT["headers"] | {"eta": "9999-01-01T00:00:00"}}),
    json.dumps(_HINT | {"properties": {}}),
)  # fmt: skip
_CONTROL = ("[1]", "5", '"a"', "{}", b"\xff", '{"method": "shutdown"}', "null")

#: What mem0 does by halves, and for how long each time.
_PLAYS = (
    Mem0Answer(verb="event", status=404, times=None),
    Mem0Answer(verb="search", delay_s=2.0, times=None),
)
_PLAYED_S = 5.0

#: Rows that a search of some users returns as well.
_ROWS: tuple[dict[str, Any], ...] = (
    {"memory": None}, {"memory": 7}, {"memory": {"text": "x"}}, {"memory": "a \ud800"},
    {"id": None}, {"id": {}}, {"metadata": {"turn_id": [1]}}, {"metadata": "x"},
    {"score": 1e999}, {"score": "high"}, {"user_id": None}, {"user_id": 7}, {"created_at": 9e99},
)  # fmt: skip


class Attacks:
    """Attacks a soak's servers, and keeps the books; `settings` are those of its workers."""

    def __init__(self, settings: Settings, valkey: Valkey, providers: ProviderThread) -> None:
        self.books: dict[str, list[str]] = {name: [] for name in BOOKS}
        self.done: Counter[str] = Counter()
        self._settings = settings
        self._environ: dict[str, str] = {}
        self._valkey = valkey
        self._providers = providers
        self._random = random.Random(815)

    def begin(self, environ: dict[str, str], users: Sequence[str]) -> None:
        """Plant malformed rows for some users, and read all prompts from now on."""
        self._environ = environ
        self._providers.claude.reply = self._reply
        for user, broken in zip(users, _ROWS, strict=False):
            owner = memory_key("default", user)
            row = {"id": "stray", "memory": "I like tea.", "user_id": owner, "score": 0.9}
            self._providers.do(partial(self._plant, owner, row | broken))

    def ways(self) -> Sequence[Coroutine[None, None, None]]:
        """Return what goes on for as long as the load does."""
        return (self._flood(), self._poison(), self._half_fail(), self._look())

    def submitted(self, user: str, seconds: float, *, redis_is_there: bool) -> None:
        """Note how long an honest submit took."""
        if seconds > _LONGEST_SUBMIT_S and redis_is_there:
            self.books["stalled"].append(f"{user}: {seconds:.1f} s")

    def refused(self, user: str, error: AfterwordError) -> None:
        """Note why an honest submit was refused."""
        if isinstance(error, QueueFull):
            self.books["stalled"].append(f"{user}: {error}")

    def _plant(self, owner: str, row: dict[str, Any]) -> None:
        self.done["malformed rows planted"] += 1
        self._providers.mem0.plant(owner, row)

    def _reply(self, body: wire.Json) -> str:
        """Answer as ever, and look whose words the model was told."""
        speakers = {name for text in wire.told(body) for name in _SPEAKER.findall(text)}
        if len(speakers) > 1:
            self.books["leaked"].append(", ".join(sorted(speakers)))
        return echo(body)

    async def _flood(self) -> None:
        """Queue hundreds of urgent jobs in one conversation, junk among them, then interrupt."""
        async with AsyncProducer(self._settings) as producer:
            while True:
                talk = {"tenant": TENANT, "user_id": "greedy", "conversation_id": "all"}
                urgent = [talk | {"message": "More!", "priority": "high"}] * _FLOOD
                wanted: list[Any] = [*urgent, *_JUNK]
                self._random.shuffle(wanted)
                try:
                    results = await producer.submit_many(wanted)
                except Exception as error:  # noqa: BLE001 whatever it is, it is what we look for
                    self.books["unanswered"].append(f"{type(error).__name__} for all")
                else:
                    self._count(wanted, results)
                interrupt = talk | {"message": "Stop!", "when_busy": "interrupt"}
                await producer.submit_many([interrupt])
                await asyncio.sleep(5)

    def _count(self, wanted: Sequence[Any], results: Sequence[object]) -> None:
        if len(results) != len(wanted):
            self.books["unanswered"].append(f"{len(wanted)} items, {len(results)} results")
        refused = sum(isinstance(one, AfterwordError) for one in results)
        self.done["jobs of a greedy tenant"] += len(results) - refused
        self.done["its requests refused"] += refused

    async def _poison(self) -> None:
        """Write into the queues and onto the control channel what no producer sends."""
        namespace = self._settings.namespace
        with self._valkey.client() as redis:
            while True:
                await asyncio.sleep(0.5)
                try:
                    queue = self._random.choice((REPLIES, MEMORIES))
                    key = queue_list(namespace, queue, 0)
                    redis.lpush(key, self._random.choice(_POISON))
                    for channel in redis.pubsub_channels("*pidbox*"):
                        redis.publish(channel, self._random.choice(_CONTROL))
                except (OSError, RedisError):
                    continue  # Redis is being killed, which is a fault of its own
                self.done["poisonous messages"] += 2

    async def _half_fail(self) -> None:
        """Let mem0 and Claude do half of what they should, in turns."""
        mem0, claude = self._providers.mem0, self._providers.claude
        # A spent plan is the operator's to mend: each canary that hears of it waits a minute.
        spent = Mem0Answer(verb="add", status=413)
        self._providers.do(lambda: mem0.will_answer(spent))
        while True:
            for play in _PLAYS:
                await asyncio.sleep(10)
                await self._play(play)
            await asyncio.sleep(10)
            self._providers.do(lambda: claude.interject(ClaudeAnswer(first_s=2.0, times=5)))
            self.done["half failures"] += 1
            await self._pend()

    async def _play(self, play: Mem0Answer) -> None:
        """Let mem0 answer so for some seconds.

        Counted in calls, it would last the longer the fewer calls are made: behind a shut gate that
        is one a minute, and five lost events would be an outage of five minutes.
        """
        mem0 = self._providers.mem0
        self.done["half failures"] += 1
        self._providers.do(lambda: mem0.will_answer(play))
        try:
            await asyncio.sleep(_PLAYED_S)
        finally:  # also if the load ends meanwhile: what drains afterwards is not attacked
            self._providers.do(lambda: mem0.withdraw(play))

    async def _pend(self) -> None:
        """Let mem0 accept for 20 s, and process later than anybody waits."""
        mem0 = self._providers.mem0
        before = mem0.after_s
        self._providers.do(lambda: setattr(mem0, "after_s", 25.0))
        self.done["times mem0 did not finish"] += 1
        try:
            await asyncio.sleep(20)
        finally:  # as above
            self._providers.do(lambda: setattr(mem0, "after_s", before))

    async def _look(self) -> None:
        """Ask the command line how things are, as an operator does."""
        while True:
            for arguments in _READERS:
                await asyncio.sleep(4)
                ran = await asyncio.to_thread(self._run, arguments)
                self.done["looks of an operator"] += 1
                if blind := why_blind(ran):
                    self.books["blind"].append(f"{arguments[0]}: {blind}")

    def _run(self, arguments: Sequence[str]) -> Result:
        return CliRunner(env=self._environ).invoke(cli, arguments)


def why_blind(ran: Result) -> str:
    """Return why a command could not say how things are, '' if it could or said what is wrong.

    That Redis cannot be reached is one line and an exit code, as `afterword` shows it.
    """
    if isinstance(ran.exception, LedgerUnavailable):
        return ""
    if ran.exception is not None and not isinstance(ran.exception, SystemExit):
        return f"{error_name(ran.exception)} at {error_location(ran.exception)}"
    return "" if ran.exit_code in (0, 1) else f"exit {ran.exit_code} {ran.stderr.strip()[:200]}"
