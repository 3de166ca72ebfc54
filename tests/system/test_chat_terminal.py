"""A chat on a real terminal: keys, pastes, interrupts, commands, and what is kept of them."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from afterword.producer import Producer, TurnState
from tests.kit.claude_api.scripted_answers import ClaudeAnswer, ServerFault
from tests.kit.pseudo_terminal import CTRL_C, CTRL_D, ENTER, UP, PseudoTerminal, pasted
from tests.kit.servers.fork_server import COMMAND
from tests.kit.waiting import wait_until
from tests.kit.workers.fleet import Fleet

pytestmark = [pytest.mark.system, pytest.mark.redis, pytest.mark.slow]

#: The space after it is a move of the cursor.
PROMPT = "You:"


@pytest.fixture(scope="module")
def crew() -> Iterator[Fleet]:
    with Fleet() as fleet:
        fleet.start("responses", "memories")
        yield fleet


@pytest.fixture
def fleet(crew: Fleet) -> Fleet:
    crew.claude.forget()
    return crew


class Chats:
    """Starts chats that share a state folder."""

    def __init__(self, fleet: Fleet, state: Path) -> None:
        self.fleet = fleet
        self.state = state

    def start(self, user: str = "ann", term: str = "xterm", **environ: str) -> PseudoTerminal:
        own = {"AFTERWORD_STATE_DIR": str(self.state)}
        env = os.environ | self.fleet.variables | own | environ
        return PseudoTerminal([*COMMAND, "chat", "--user", user], env, term)

    def kept(self) -> list[Path]:
        return sorted((self.state / "chat-history").glob("*"))


@pytest.fixture
def chats(fleet: Fleet, tmp_path: Path) -> Chats:
    return Chats(fleet, tmp_path / "state")


def asked(fleet: Fleet) -> list[str]:
    """Return the last message of each request to Claude."""
    found = []
    for request in fleet.claude.requests():
        content = request["body"]["messages"][-1]["content"]
        found.append(content if isinstance(content, str) else content[-1]["text"])
    return found


def test_what_is_pasted_is_one_whole_message(chats: Chats) -> None:
    long = "\n".join(f"line {number} of what was pasted" for number in range(300))
    with chats.start() as chat:
        chat.until(PROMPT)
        chat.press(pasted(long))
        chat.press(ENTER)
        chat.until("[Memory")
        chat.until(PROMPT)
        (message,) = asked(chats.fleet)
        assert message.endswith(long)
        chat.press(CTRL_D)
        assert chat.ended() == 0


def test_a_line_is_edited_and_offered_again_by_the_next_chat(chats: Chats) -> None:
    with chats.start() as chat:
        chat.until(PROMPT)
        chat.press("two birds\x1b[D\x1b[D\x1b[D\x1b[D\x1b[Dred ")
        chat.press(ENTER)
        chat.until("[Memory")
        chat.until(PROMPT)
        chat.press("quit" + ENTER)
        assert chat.ended() == 0
    with chats.start() as chat:
        chat.until(PROMPT)
        chat.press(UP + UP)
        chat.until("two red birds")
        chat.press(ENTER)
        chat.until("[Memory")
    messages = asked(chats.fleet)
    assert len(messages) == 2
    assert all(message.endswith("two red birds") for message in messages)


def test_history_is_one_private_file_for_each_user_and_none_if_it_is_off(chats: Chats) -> None:
    for user in ("ann", "bob"):
        with chats.start(user) as chat:
            chat.until(PROMPT)
            chat.press("quit" + ENTER)
            assert chat.ended() == 0
    files = chats.kept()
    assert len(files) == 2
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    assert stat.S_IMODE(files[0].parent.stat().st_mode) == 0o700
    with chats.start("cleo", AFTERWORD_CHAT_HISTORY="false") as chat:
        chat.until(PROMPT)
        chat.press("quit" + ENTER)
        assert chat.ended() == 0
    assert chats.kept() == files


def test_ctrl_c_stops_a_reply_and_its_cost_and_the_second_one_ends(chats: Chats) -> None:
    chats.fleet.claude.will_answer(
        ClaudeAnswer(text="one two three four", fault=ServerFault.PAUSE, at=5),
        ClaudeAnswer(text="still here"),
    )
    with chats.start() as chat:
        chat.until(PROMPT)
        chat.press("count" + ENTER)
        chat.until("one")
        chat.press(CTRL_C)
        chat.until("[Stopped. Ctrl-C again, or Ctrl-D, ends the chat]")
        wait_until(chats.fleet.claude.abandoned, "Claude is not listened to any more")
        chat.until(PROMPT)
        chat.press("hello" + ENTER)
        chat.until("still here")
        chat.until(PROMPT)
        chat.press(CTRL_C)
        chat.until("[Ctrl-C again, or Ctrl-D, ends the chat]")
        chat.until(PROMPT)
        chat.press(CTRL_C)
        assert chat.ended() == 130


def test_ctrl_d_ends_after_a_reply_was_stopped(chats: Chats) -> None:
    chats.fleet.claude.will_answer(ClaudeAnswer(hold=True))
    with chats.start() as chat:
        chat.until(PROMPT)
        chat.press("count" + ENTER)
        wait_until(chats.fleet.claude.held, "Claude is asked")
        chat.until("...")
        chat.press(CTRL_C)
        chat.until("[Stopped.")
        chat.until(PROMPT)
        chat.press(CTRL_D)
        assert chat.ended() == 0
    chats.fleet.claude.release()


def test_commands_are_no_messages(chats: Chats) -> None:
    chats.fleet.claude.will_answer(ClaudeAnswer(text="Noted."))
    with chats.start("ivy") as chat:  # who has said nothing in any test
        for typed, shown in (
            ("/help", "/memories   show"),
            ("/memories", "[There is no memory of ivy yet]"),
            ("/nothing", "[There is no command /nothing;"),
            ("/user", "[Type: /user NAME]"),
            ("/user two\tlines", "user_id"),
            ("/user bob", "[You are bob now, in a new conversation]"),
        ):
            chat.until(PROMPT)
            chat.press(pasted(typed) + ENTER)
            chat.until(shown)
        assert asked(chats.fleet) == []
        chat.until(PROMPT)
        chat.press("//help is a word" + ENTER)
        chat.until("Noted.")
        chat.until(PROMPT)
        chat.press("/quit" + ENTER)
        assert chat.ended() == 0
    (message,) = asked(chats.fleet)
    assert message.endswith("/help is a word")
    assert not message.endswith("//help is a word")


def test_memories_shows_all_that_is_remembered(chats: Chats) -> None:
    with Producer(chats.fleet.settings) as producer:
        for text in ("I keep eight birds.", "My sister lives in Oslo."):
            chats.fleet.claude.will_answer(ClaudeAnswer(text="Noted."))
            job = producer.submit(user_id="zoe", message=text)
            wait_until(lambda job=job: job.status().turn is TurnState.STORED, "stored", 30)  # type: ignore[misc]
    with chats.start("zoe") as chat:
        chat.until(PROMPT)
        chat.press("/memories" + ENTER)
        chat.until("[What is remembered of zoe")
        chat.until("- My sister lives in Oslo.")
        chat.until("- I keep eight birds.")
        chat.until(PROMPT)
        chat.press(CTRL_D)
        assert chat.ended() == 0


def test_forget_erases_after_a_question_what_was_said_and_what_was_typed(chats: Chats) -> None:
    with chats.start("dora") as chat:
        chat.until(PROMPT)
        chat.press("I keep seven birds." + ENTER)
        chat.until("[Memory queued]")
        chat.until(PROMPT)
        chat.press("/forget" + ENTER)
        chat.until("Type the user id")
        chat.press("yes" + ENTER)
        chat.until("[Nothing was erased]")
        chat.until(PROMPT)
        (kept,) = chats.kept()
        assert b"seven birds" in kept.read_bytes()
        chat.press("/forget" + ENTER)
        chat.until("Type the user id")
        chat.press("dora" + ENTER)
        chat.until("[Erased; a second pass follows by itself.")
        chat.until(PROMPT)
        assert b"seven birds" not in kept.read_bytes()
        chat.press(CTRL_D)
        assert chat.ended() == 0
    receipt = chats.fleet.afterword("forget", "dora").stdout
    assert "state: forgotten" in receipt or "state: erased" in receipt


def test_bytes_that_are_no_text_are_refused_and_the_chat_goes_on(chats: Chats) -> None:
    chats.fleet.claude.will_answer(ClaudeAnswer(text="Welcome."))
    for term in ("xterm", "dumb"):
        with chats.start("eve", term) as chat:
            chat.until(PROMPT)
            chat.press(b"caf\xe9 \xff\r")
            chat.until("[message: must be valid Unicode")
            chat.until(PROMPT)
            chat.press("quit" + ENTER)
            assert chat.ended() == 0
    assert asked(chats.fleet) == []


def test_a_plain_terminal_cuts_no_line_in_silence(chats: Chats) -> None:
    with chats.start(term="dumb") as chat:
        chat.until(PROMPT)
        chat.press("a" * 5000 + ENTER)
        chat.until("[message: this terminal cuts it at 4,095 bytes; use a pipe]")
        chat.until(PROMPT)
        chat.press("quit" + ENTER)
        assert chat.ended() == 0
    assert asked(chats.fleet) == []
