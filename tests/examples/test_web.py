"""The web examples do alike: each is asked as its users' browsers ask it."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest import ROOT
from tests.examples.browsers import (
    PATIENCE_S,
    Browser,
    DjangoBrowser,
    Event,
    FastApiBrowser,
    FlaskBrowser,
    events,
    uvicorn,
)
from tests.examples.conftest import load
from tests.kit.claude_api.scripted_answers import ClaudeAnswer, ServerFault
from tests.kit.workers.fleet import CANARY, Fleet
from tests.packaging.blocks import blocks

pytestmark = [pytest.mark.system, pytest.mark.redis, pytest.mark.slow]

UNPROCESSABLE = 422

OpenBrowser = Callable[[], Browser]


@pytest.fixture(scope="session")
def fastapi_url(fleet: Fleet) -> Iterator[str]:
    folder = str(ROOT / "examples")
    with uvicorn(fleet, "--app-dir", folder, "--log-level", "warning", "fastapi_app:app") as url:
        yield url


@contextmanager
def fastapi(request: pytest.FixtureRequest) -> Iterator[OpenBrowser]:
    url = request.getfixturevalue("fastapi_url")
    with ExitStack() as clients:
        yield lambda: FastApiBrowser(
            clients.enter_context(httpx.Client(base_url=url, timeout=PATIENCE_S))
        )


@contextmanager
def flask(request: pytest.FixtureRequest) -> Iterator[OpenBrowser]:
    request.getfixturevalue("environment")
    module = load("flask_app")
    with module.producer():
        yield lambda: FlaskBrowser(module)


@contextmanager
def django(request: pytest.FixtureRequest) -> Iterator[OpenBrowser]:
    request.getfixturevalue("environment")
    module = load("django_app")
    with module.producer():
        yield DjangoBrowser


@pytest.fixture(scope="module", params=[fastapi, flask, django], ids=lambda made: made.__name__)
def open_browser(request: pytest.FixtureRequest) -> Iterator[OpenBrowser]:
    with request.param(request) as opened:
        yield opened


@pytest.fixture
def browser(open_browser: OpenBrowser, fleet: Fleet) -> Browser:
    fleet.claude.forget()
    return open_browser()


def sent(browser: Browser, text: str, key: str | None = None) -> str:
    """Send a message that is accepted; return the path of its reply."""
    status, body = browser.send(text, key)
    assert status == HTTPStatus.ACCEPTED, body
    return str(body["reply"])


def read(browser: Browser, path: str, after: str | None = None) -> list[Event]:
    status, found = browser.stream(path, after)
    assert status == HTTPStatus.OK
    return found


def text_of(found: list[Event]) -> str:
    return "".join(event.data["text"] for event in found if event.type == "delta")


def reply_of(found: list[Event]) -> dict[str, Any]:
    assert found[-1].type == "final"
    reply: dict[str, Any] = found[-1].data["reply"]
    return reply


def test_a_reply_is_streamed_to_its_end(browser: Browser, fleet: Fleet) -> None:
    fleet.claude.will_answer(
        ClaudeAnswer(match="Tell me", text=f"One {CANARY} after the other.", deltas=4)
    )
    found = read(browser, sent(browser, f"Tell me {CANARY}"))
    assert text_of(found) == reply_of(found)["text"] == f"One {CANARY} after the other."


def test_a_user_is_remembered(browser: Browser) -> None:
    read(browser, sent(browser, "I keep seven canary birds."))
    found = read(browser, sent(browser, "How many birds do I keep?"))
    reply, (started, recalled, *_) = reply_of(found), found
    assert reply["memory"] in {"fresh", "overlay"}
    assert [started.type, recalled.type] == ["started", "recalled"]
    assert recalled.data["memories"] == reply["memories"]


def test_a_stream_goes_on_after_the_last_event_that_came(browser: Browser) -> None:
    path = sent(browser, "Hello")
    whole = read(browser, path)
    for at, event in enumerate(whole[:3]):
        assert read(browser, path, after=event.id) == whole[at + 1 :]


def test_another_user_reaches_neither_the_reply_nor_its_cancellation(
    browser: Browser, open_browser: OpenBrowser
) -> None:
    path, other = sent(browser, "Hello"), open_browser()
    sent(other, "Hello")
    assert other.stream(path) == (HTTPStatus.NOT_FOUND, [])
    assert other.delete(path)[0] == HTTPStatus.NOT_FOUND
    assert reply_of(read(browser, path))


@pytest.mark.parametrize("ticket", ["j00_" + "0" * 32, "x", "x:y:z"])
def test_a_made_up_ticket_is_not_found(browser: Browser, ticket: str) -> None:
    assert browser.stream(f"/replies/{ticket}") == (HTTPStatus.NOT_FOUND, [])


def test_a_message_sent_twice_with_one_key_is_one_job(browser: Browser) -> None:
    key = uuid.uuid4().hex
    paths = [sent(browser, "Hello", key) for _ in range(2)]
    first, second = (reply_of(read(browser, path)) for path in paths)
    assert first == second
    assert browser.send("Something else", key)[0] == UNPROCESSABLE


def test_a_blank_message_and_a_made_up_event_id_are_refused(browser: Browser) -> None:
    status, body = browser.send("   ")
    assert (status, body) == (UNPROCESSABLE, {"detail": "message: must not be blank"})
    path = sent(browser, "Hello")
    for after in ("yesterday", "$", "+", "-1", "1-", f"{2**64}-0"):
        assert browser.stream(path, after) == (UNPROCESSABLE, []), after


def test_an_event_of_another_reply_ends_the_stream_with_what_is_wrong(browser: Browser) -> None:
    path, other = sent(browser, "Hello"), sent(browser, "Hello again")
    read(browser, path)
    for after in (read(browser, other)[0].id, "999999999999-0"):
        (only,) = read(browser, path, after)
        assert (only.type, only.data["code"]) == (
            "failed", "after: must be the id of an event of this job",
        )  # fmt: skip


def test_a_reply_can_be_cancelled(browser: Browser, fleet: Fleet) -> None:
    fleet.claude.will_answer(ClaudeAnswer(match="Wait for me", hold=True))
    path = sent(browser, "Wait for me")
    assert browser.delete(path) == (HTTPStatus.OK, {"cancelled": True})
    *_, last = read(browser, path)
    assert (last.type, last.data["code"]) == ("failed", "cancelled")


def test_an_app_is_ready_once_redis_takes_requests(browser: Browser) -> None:
    assert browser.ready() == (HTTPStatus.OK, {"ready": True})


@pytest.mark.parametrize("name", ["flask_app", "django_app"])
def test_an_app_without_a_redis_is_not_ready(
    name: str, environment: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AFTERWORD_REDIS_URL", "unix:///no/such/socket")
    module = sys.modules.get(name) or load(name)
    module.producer.cache_clear()
    browser = FlaskBrowser(module) if name == "flask_app" else DjangoBrowser()
    with module.producer():
        status, body = browser.ready()
    module.producer.cache_clear()
    assert status == HTTPStatus.SERVICE_UNAVAILABLE
    assert body["detail"].startswith("AFTERWORD_REDIS_URL: a file that its URL names")


# --- what only a real connection shows


def test_text_comes_as_it_is_written_and_a_cut_connection_loses_none(
    fastapi_url: str, fleet: Fleet
) -> None:
    fleet.claude.forget()
    play = ClaudeAnswer(
        match="Slowly", text="before and after", deltas=2, fault=ServerFault.PAUSE, at=4
    )
    fleet.claude.will_answer(play)
    with httpx.Client(base_url=fastapi_url, timeout=PATIENCE_S) as client:
        path = sent(browser := FastApiBrowser(client), "Slowly")
        begun: list[Event] = []
        with client.stream("GET", path) as answer:
            for event in events(answer.iter_lines()):
                begun.append(event)
                if event.type == "delta":
                    break
        fleet.claude.release()
        found = begun + read(browser, path, after=begun[-1].id)
    assert text_of(found) == reply_of(found)["text"] == "before and after"


def test_the_page_names_a_user_and_is_there_again_for_the_same(fastapi_url: str) -> None:
    with httpx.Client(base_url=fastapi_url, timeout=PATIENCE_S) as client:
        first, again = client.get("/").text, client.get("/").text
    assert first == again != httpx.get(f"{fastapi_url}/", timeout=PATIENCE_S).text
    assert "EventSource" in first


def test_the_tutorials_page_streams_a_reply_and_remembers(fleet: Fleet, tmp_path: Path) -> None:
    (page,) = [b.text for b in blocks(ROOT / "docs/tutorial.md") if "app = FastAPI" in b.text]
    (tmp_path / "page.py").write_text(page)
    options = ["--app-dir", str(tmp_path), "--log-level", "warning"]
    with (
        uvicorn(fleet, *options, "page:app") as url,
        httpx.Client(base_url=url, timeout=PATIENCE_S) as client,
    ):
        assert "EventSource" in client.get("/").text
        browser = FastApiBrowser(client)
        replies = []
        for text in ("I play the cello.", "Which instrument do I play?"):
            job_id = client.post("/messages", params={"text": text}).json()["job_id"]
            status, found = browser.stream(f"/replies/{job_id}")
            assert status == httpx.codes.OK
            assert [event.type for event in found][-2:] == ["delta", "final"]
            replies.append(found[-1].data["reply"])
    assert [reply["memory"] in {"fresh", "overlay"} for reply in replies] == [True, True]
