"""What a chat says while it cannot be answered, on a real terminal; then it goes on."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from tests.kit.claude_api.scripted_answers import ClaudeAnswer
from tests.kit.pseudo_terminal import CTRL_C, ENTER, PseudoTerminal
from tests.kit.servers.fork_server import COMMAND
from tests.kit.workers.fleet import FAST_REPAIR_APP, Fleet

pytestmark = [pytest.mark.system, pytest.mark.redis, pytest.mark.slow]

PROMPT = "You:"


def chat(fleet: Fleet) -> PseudoTerminal:
    own = {"AFTERWORD_STATE_DIR": str(fleet.folder / "state")}
    return PseudoTerminal([*COMMAND, "chat", "--user", "ann"], os.environ | fleet.variables | own)


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    with Fleet() as fleet:
        fleet.start("responses", app=FAST_REPAIR_APP)
        yield fleet


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (ClaudeAnswer(status=401, times=None), "key_refused"),
        (ClaudeAnswer(status=529, times=None), "overloaded"),
        (ClaudeAnswer(status=429, times=None, headers={"retry-after": "1"}), "rate_limited"),
        (ClaudeAnswer(status=402, error_type="billing_error", times=None), "billing"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_failure_of_the_model_is_named_and_the_reply_comes_once_it_is_over(
    fleet: Fleet, answer: ClaudeAnswer, says: str
) -> None:
    fleet.claude.will_only_answer(answer)
    with chat(fleet) as terminal:
        terminal.until(PROMPT)
        terminal.press("hello" + ENTER)
        terminal.until("[Waiting: ")
        terminal.until(f"({says})")
        terminal.until("Your message waits for up to")
        fleet.claude.will_only_answer(ClaudeAnswer(text="Here I am."))
        came = terminal.until("Here I am.")
        assert "[Reply restarted]" not in came
        terminal.until(PROMPT)
        terminal.press("quit" + ENTER)


def test_without_a_worker_the_cure_is_named_and_then_it_goes_on() -> None:
    with Fleet() as fleet, chat(fleet) as terminal:
        terminal.until(PROMPT)
        terminal.press("hello" + ENTER)
        terminal.until("[Waiting: no response worker is running. Start one: afterword worker resp")
        fleet.claude.will_answer(ClaudeAnswer(text="Here I am."))
        fleet.start("responses")
        terminal.until("Here I am.")


def test_an_address_where_nothing_listens_is_named() -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))  # and nobody listens
        url = f"http://127.0.0.1:{reserved.getsockname()[1]}"
        with Fleet(ANTHROPIC_BASE_URL=url) as fleet:
            fleet.start("responses")
            with chat(fleet) as terminal:
                terminal.until(PROMPT)
                terminal.press("hello" + ENTER)
                terminal.until("(connection_refused)")
                terminal.until("Check ANTHROPIC_BASE_URL")
                terminal.press(CTRL_C)
                terminal.until("[Stopped.")
                terminal.until(PROMPT)
                terminal.press(CTRL_C)
                assert terminal.ended() == 130


def test_a_memory_that_is_away_is_named_once_and_the_replies_come() -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))  # and nobody listens
        host = f"http://127.0.0.1:{reserved.getsockname()[1]}"
        away = {"AFTERWORD_MEMORY": "hosted", "MEM0_API_KEY": "m0-key", "MEM0_HOST": host}
        with Fleet(**away) as fleet, chat(fleet) as terminal:
            fleet.start("responses")
            fleet.claude.will_answer(*(ClaudeAnswer(text=f"Reply {n}.") for n in range(2)))
            terminal.until(PROMPT)
            terminal.press("hello" + ENTER)
            terminal.until("Reply 0.")
            terminal.until("[Memory: nothing listens at the address of the memory (connection_refu")
            terminal.until(PROMPT)
            terminal.press("hello again" + ENTER)
            assert "[Memory: " not in terminal.until("Reply 1.") + terminal.until(PROMPT)


def test_a_submit_whose_reply_does_not_come_in_time_says_why() -> None:
    with Fleet() as fleet:
        late = fleet.afterword("submit", "hello", "--user", "ann", "--wait", "1", code=1).stderr
    assert "[Waiting: no response worker is running. Start one: afterword worker resp" in late
    assert "has no reply after 1 s; it goes on" in late
