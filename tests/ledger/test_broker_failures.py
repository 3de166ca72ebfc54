"""A broker on a server of its own fails in every way, and no submit waits or fails for it."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Iterator

import pytest

from afterword.shared.events import Context, HintsNotSent, HintsSentAgain, ObserverEvent
from afterword.shared.hints import read_hint
from afterword.shared.ledger.ledger import Ledger
from afterword.shared.names import REPLIES
from afterword.shared.observer import subscribe, unsubscribe
from afterword.shared.settings import Settings
from afterword.shared.transport import hint_sender
from afterword.shared.transport.hint_sender import AHEAD, HintSender
from tests.kit.failures.broker_rows import BROKER_FAILURES, BrokerFailure
from tests.kit.ledger.builder import chat_request, submit_request
from tests.kit.ledger.hint_messages import hint_list
from tests.kit.servers.valkey import Valkey
from tests.kit.waiting import until

pytestmark = pytest.mark.redis

#: What the broker is given for one batch: so long that only a broker that is away takes longer.
PATIENCE_S = 4.0

#: More than a submit takes on a busy machine, and less than that.
SOON_S = 3.0
COUNT = 10


@pytest.fixture(scope="module")
def broker() -> Iterator[Valkey]:
    with Valkey() as server:
        yield server


@pytest.fixture
def told() -> Iterator[list[ObserverEvent]]:
    """Give what is said about hints."""
    heard: list[ObserverEvent] = []

    def hear(event: ObserverEvent, _: Context) -> None:
        if isinstance(event, HintsNotSent | HintsSentAgain):
            heard.append(event)

    subscription = subscribe(hear)
    yield heard
    unsubscribe(subscription)


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hint_sender, "PATIENCE_S", PATIENCE_S)


@pytest.fixture
async def ledger(settings: Settings, broker: Valkey) -> AsyncIterator[Ledger]:
    far = settings.model_copy(update={"broker_url": broker.url})
    async with Ledger(far, patience_s=5.0) as opened:
        yield opened


def hinted(broker: Valkey, settings: Settings) -> list[str]:
    """Return the jobs that the broker's queue has hints of, oldest first."""
    key = hint_list(REPLIES, "normal", settings.namespace)
    with broker.client() as client:
        found = [read_hint(raw.encode(), REPLIES) for raw in client.lrange(key, 0, -1)]
    return [json.loads(hint["body"])[0][0] for hint in reversed(found)]


async def submit(ledger: Ledger) -> str:
    """Submit a job; fail if that takes long."""
    job_id = ledger.jobs.new_id(chat_request())
    started = time.monotonic()
    await submit_request(ledger.jobs, job_id, chat_request())
    assert time.monotonic() - started < SOON_S
    return job_id


@pytest.mark.finding(29)
@pytest.mark.parametrize("failure", BROKER_FAILURES, ids=lambda one: one.what)
async def test_jobs_are_accepted_and_their_hints_follow(
    ledger: Ledger,
    broker: Valkey,
    settings: Settings,
    told: list[ObserverEvent],
    failure: BrokerFailure,
) -> None:
    jobs = [await submit(ledger)]
    await until(lambda: hinted(broker, settings) == jobs, "the hint is there")
    failure.begin(broker)
    try:
        jobs += [await submit(ledger) for _ in range(COUNT)]
        await until(lambda: told, "the outage is reported", 10)
        jobs += [await submit(ledger) for _ in range(COUNT)]
    finally:
        failure.end(broker)

    await until(lambda: len(told) > 1, "so is its end", 10)

    await until(lambda: set(jobs) <= {*hinted(broker, settings), jobs[0]}, "all hints are there", 5)
    assert isinstance(told[0], HintsNotSent)
    assert told[0].error == failure.code
    assert [type(one) for one in told] == [HintsNotSent, HintsSentAgain], "once an outage"


async def test_a_slow_broker_delays_no_submit(
    ledger: Ledger, broker: Valkey, settings: Settings, told: list[ObserverEvent]
) -> None:
    await submit(ledger)
    with broker.client() as client:
        client.execute_command("CLIENT", "PAUSE", 500, "WRITE")

    jobs = [await submit(ledger) for _ in range(COUNT)]

    await until(lambda: set(jobs) <= set(hinted(broker, settings)), "all hints are there", 5)
    assert told == []


async def test_a_database_that_does_not_exist_is_told_once(
    settings: Settings, broker: Valkey, told: list[ObserverEvent]
) -> None:
    far = settings.model_copy(update={"broker_url": broker.url.replace("/0", "/99")})
    async with Ledger(far, patience_s=5.0) as ledger:
        for _ in range(COUNT):
            await submit(ledger)
            await until(lambda: told, "it is reported", 10)
    assert told == [HintsNotSent(error="refused")]


async def test_waiting_hints_are_sent_before_the_sender_closes(
    broker: Valkey, settings: Settings
) -> None:
    sender = HintSender(broker.url, settings.namespace)
    sender.send([("replies.3", "j00_" + "0" * 32)])

    await sender.aclose()

    assert hinted(broker, settings) == ["j00_" + "0" * 32]


async def test_a_hint_that_is_sent_ahead_is_taken_before_all_others(
    broker: Valkey, settings: Settings
) -> None:
    first, second, ahead = (f"j00_{number:032x}" for number in range(3))
    sender = HintSender(broker.url, settings.namespace)
    sender.send([("replies.3", first), (f"replies.3{AHEAD}", ahead), ("replies.3", second)])

    await sender.aclose()

    assert hinted(broker, settings) == [ahead, first, second]


async def test_only_so_many_hints_wait(
    settings: Settings, broker: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hint_sender, "MAX_WAITING", COUNT)
    names = [f"j00_{number:032x}" for number in range(2 * COUNT)]
    sender = HintSender(broker.url, settings.namespace)
    sender.send([("replies.3", name) for name in names])

    await sender.aclose()

    assert hinted(broker, settings) == names[:COUNT]
