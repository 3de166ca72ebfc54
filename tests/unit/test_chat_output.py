"""What a chat prints of one turn, character by character."""

from __future__ import annotations

import pytest

from afterword.producer import TurnState
from afterword.producer.cli.chat_memory import QueuedTurns
from afterword.producer.cli.chat_output import print_turn
from afterword.producer.testing import Answer, FakeClock, FakeFailure, FakeProducer, FakeReply
from afterword.shared.contracts import JobStatus, MemoryStatus
from afterword.shared.errors import JobNotFound, LedgerUnavailable
from afterword.shared.settings import Settings

SKIPPED = TurnState.SKIPPED


def printed(
    capsys: pytest.CaptureFixture[str], answer: Answer, **settings: object
) -> tuple[str, bool]:
    """Return what is printed of one turn, and whether it is queued."""
    chosen = Settings.model_validate({"memory": "embedded"} | settings)
    with FakeProducer(answer, settings=chosen) as producer:
        reply = print_turn(producer.submit(user_id="ann", message="hello").stream())
    return capsys.readouterr().out, reply is not None and reply.not_remembered is None


def test_memories_come_before_the_reply_and_what_becomes_of_the_turn_after_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    reply = FakeReply("About 21.", memories=["likes tea", "two\nlines"])
    shown, queued = printed(capsys, reply)
    assert shown.splitlines() == [
        "[Retrieved 2 memories]",
        "  - likes tea",
        "  - two",
        "    lines",
        "Agent: About 21.",
        "[Memory queued]",
    ]
    assert queued


def test_one_memory_is_one_memory(capsys: pytest.CaptureFixture[str]) -> None:
    shown, _ = printed(capsys, FakeReply("Tea.", memories=["likes tea"]))
    assert shown.startswith("[Retrieved 1 memory]\n  - likes tea\nAgent: Tea.\n")


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("question_only", "only a question"),
        ("pleasantry", "only a pleasantry"),
        ("request_only", "only a request"),
        ("of_a_newer_version", "of_a_newer_version"),
    ],
)
def test_a_turn_that_is_not_remembered_says_why(
    capsys: pytest.CaptureFixture[str], code: str, words: str
) -> None:
    shown, queued = printed(capsys, FakeReply("Hm.", turn=SKIPPED, turn_code=code))
    assert shown == f"[Retrieved 0 memories]\nAgent: Hm.\n[Nothing to remember: {words}]\n"
    assert not queued


def test_a_refusal_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    shown, queued = printed(capsys, FakeReply("No.", stop_reason="refusal"))
    assert shown.endswith("Agent: No.\n[Nothing to remember: the model refused to answer]\n")
    assert not queued


def test_with_memory_off_nothing_is_retrieved_or_remembered(
    capsys: pytest.CaptureFixture[str],
) -> None:
    shown, queued = printed(capsys, "Hi.", memory="off")
    assert shown == "[Retrieved 0 memories]\nAgent: Hi.\n[Nothing to remember: memory is off]\n"
    assert not queued


def test_a_memory_that_cannot_be_read_is_told_apart_from_an_empty_one(
    capsys: pytest.CaptureFixture[str],
) -> None:
    degraded: MemoryStatus = "degraded"
    shown, _ = printed(capsys, FakeReply("Hi.", memory=degraded))
    assert shown.startswith(
        "[Retrieved 0 memories]\n[Memory could not be read for this reply]\nAgent: Hi.\n"
    )


def test_another_attempt_begins_anew(capsys: pytest.CaptureFixture[str]) -> None:
    shown, _ = printed(capsys, FakeReply("one two", restarts=1, memories=["likes tea"]))
    retrieved = "[Retrieved 1 memory]\n  - likes tea\n"
    assert shown == (
        f"{retrieved}Agent: one \n[Reply restarted]\n{retrieved}Agent: one two\n[Memory queued]\n"
    )


def test_an_attempt_that_said_nothing_leaves_no_line(capsys: pytest.CaptureFixture[str]) -> None:
    shown, _ = printed(capsys, FakeReply("one", restarts=1))
    assert shown == "[Retrieved 0 memories]\nAgent: one\n[Memory queued]\n"


def test_a_reply_without_text_is_an_empty_line(capsys: pytest.CaptureFixture[str]) -> None:
    shown, _ = printed(capsys, FakeReply(""))
    assert shown == "[Retrieved 0 memories]\nAgent: \n[Memory queued]\n"


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("too_large", "the message is too long for the model (too_large). Send a shorter one"),
        ("model_not_found", "the model does not exist or is not open to the account (model_not_fo"),
        ("new_one", "the request failed (new_one). The log of the response workers says more"),
    ],
)
def test_no_reply_says_why_and_what_to_do(
    capsys: pytest.CaptureFixture[str], code: str, text: str
) -> None:
    shown, queued = printed(capsys, FakeFailure(code))
    assert shown.startswith(f"Agent: [No reply: {text}")
    assert not queued


def test_what_cannot_be_seen_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    reply = FakeReply("\x1b[31mred", memories=["\x1b]0;title\x07\n[Memory queued]"])
    shown, _ = printed(capsys, reply)
    assert "\x1b" not in shown
    assert "\n    [Memory queued]\n" in shown


def test_stored_turns_are_told_once_and_not_waited_for(capsys: pytest.CaptureFixture[str]) -> None:
    clock = FakeClock(auto_advance=False)
    settings = Settings(memory="embedded")
    answer = FakeReply("Noted.", turn_delay_s=5.0)
    with FakeProducer(answer, settings=settings, clock=clock) as producer:
        job = producer.submit(user_id="ann", message="I like tea.")
        queued = QueuedTurns()
        queued.add(job)
        queued.print_settled()
        assert capsys.readouterr().out == ""

        clock.advance(5.0)
        queued.print_settled()
        assert capsys.readouterr().out == "[Memories updated]\n"
        queued.print_settled()
        assert capsys.readouterr().out == ""


class _Followed:
    """A job whose status cannot be had."""

    def __init__(self, error: Exception) -> None:
        self.error = error
        self.asked = 0

    def status(self) -> JobStatus:
        self.asked += 1
        raise self.error


@pytest.mark.parametrize(
    ("error", "asked"), [(JobNotFound("j"), 1), (LedgerUnavailable("redis is away"), 2)]
)
def test_a_turn_that_cannot_be_looked_at_stops_no_chat(error: Exception, asked: int) -> None:
    job = _Followed(error)
    queued = QueuedTurns()
    queued.add(job)  # type: ignore[arg-type]

    queued.print_settled()
    queued.print_settled()

    assert job.asked == asked


def test_the_end_of_a_chat_says_what_is_not_stored_yet(capsys: pytest.CaptureFixture[str]) -> None:
    clock = FakeClock(auto_advance=False)
    settings = Settings(memory="embedded")
    answer = FakeReply("Noted.", turn_delay_s=5.0)
    with FakeProducer(answer, settings=settings, clock=clock) as producer:
        queued = QueuedTurns()
        queued.add(producer.submit(user_id="ann", message="I like tea."))
        queued.wait(0.0)
    assert capsys.readouterr().out == (
        "[Not in memory yet: 1 turn; memory workers will store them]\n"
    )


def test_a_turn_without_a_fact_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    answer = FakeReply("Noted.", turn=TurnState.NOTHING, turn_code="no_fact")
    with FakeProducer(answer, settings=Settings(memory="selfhosted")) as producer:
        job = producer.submit(user_id="ann", message="Hm, well.")
        job.wait()
        queued = QueuedTurns()
        queued.add(job)
        queued.wait(0.0)
    assert capsys.readouterr().out == "[Nothing to remember: no fact was found in it]\n"


def test_a_dead_turn_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    answer = FakeReply("Noted.", turn=TurnState.DEAD, turn_code="rejected")
    with FakeProducer(answer, settings=Settings(memory="embedded")) as producer:
        job = producer.submit(user_id="ann", message="I like tea.")
        job.wait()
        queued = QueuedTurns()
        queued.add(job)
        queued.wait(0.0)
    assert capsys.readouterr().out == "[Not stored: rejected; it is kept as a dead letter]\n"
