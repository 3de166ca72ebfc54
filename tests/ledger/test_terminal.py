"""No command lets a text of a user, a model or a stranger act on the terminal that shows it."""

from __future__ import annotations

import asyncio
import io
import json
import unicodedata
from collections.abc import Iterator

import pytest

from afterword.producer.cli import render
from afterword.producer.cli.chat import _converse
from afterword.producer.cli.chat_input import Pipe
from afterword.producer.cli.chat_session import ChatSession
from afterword.producer.cli.terminal import indented, one_line, visible
from afterword.producer.testing import FakeFailure, FakeProducer, FakeReply
from afterword.shared.errors import Fault
from afterword.shared.ledger.ledger import Ledger
from afterword.shared.ledger.records import Gate, GateState, moment
from afterword.shared.settings import Settings
from tests.kit.command_line import Printed, afterword
from tests.kit.ledger.builder import LedgerInspector
from tests.kit.ledger.full_ledger import KEY, Stored, fill

#: Sets the title, clears the screen, returns to the line's start, colours, reverses, hides, forges.
HOSTILE = (
    "hi\x1b]0;pwned\x07\x1b[2J\rstate: stored\nuser_id: bob\x9b31m\x85\u202egnp.exe\u2066"
    "\u2028code: ok\u2029\x7f\x00\u200b\ufeff\U000e0041 \u200dfamily \ue000"
).replace("\x00", "")


def acts(text: str) -> set[str]:
    """Return what a terminal may act on, or a person cannot see, in a printed text."""
    seen = set(text) - set("\n\t\u200c\u200d")
    return {one for one in seen if unicodedata.category(one)[0] == "C"} | seen & {
        "\u2028",
        "\u2029",
    }


@pytest.mark.finding(17)
def test_invisible_characters_are_escaped() -> None:
    plain = "Zoë\tsaid \u201c\u0647\u0627\u200c\u0647\u0627\u201d:\n\U0001f469\u200d\U0001f680\xa0"
    assert visible(plain) == plain
    assert visible("\x1b[2J\x9b\r\u202e\u2028\ud800") == r"\x1b[2J\x9b\r\u202e\u2028\ud800"
    assert one_line("a\nb: c\td") == r"a\nb: c\td"
    assert indented("a\nb: c") == "a\n    b: c"
    for code in (
        *range(0x3000),
        *range(0xD7FE, 0xE010),
        *range(0xFDFE, 0x10100),
        *range(0xE0000, 0xE0100),
    ):
        if code not in (0x09, 0x0A):
            assert not acts(visible(chr(code)))


@pytest.fixture
def env(settings: Settings) -> dict[str, str]:
    return {
        "AFTERWORD_REDIS_URL": str(settings.redis_url),
        "AFTERWORD_NAMESPACE": settings.namespace,
        "AFTERWORD_DURABILITY": "none",
    }


@pytest.fixture
def stored(settings: Settings, inspector: LedgerInspector) -> Iterator[Stored]:
    async def filled() -> Stored:
        async with Ledger(settings, patience_s=5.0) as ledger:
            return await fill(ledger, inspector, HOSTILE)

    yield asyncio.run(filled())
    inspector.redis.delete(inspector.keys.behind(HOSTILE))


def run(argv: list[str], env: dict[str, str]) -> Printed:
    return afterword(*argv, env=env, said=HOSTILE)


@pytest.mark.finding(17)
def test_no_command_prints_what_acts_on_a_terminal(env: dict[str, str], stored: Stored) -> None:
    again = ["submit", "-", "--user", "ann", "--idempotency-key", KEY]
    for argv in (
        ["account"], ["audit"], ["dead", "list"], ["dead", "show", stored.turn],
        ["dead", "show", stored.job], ["dead", "runs"], ["dead", "runs", stored.run],
        ["dead", "replay", "--all"], ["dead", "discard", "--all"], ["quarantine", "list"],
        ["quarantine", "clear"], ["reconcile"], ["status"], ["status", stored.answered],
        ["status", stored.job], ["usage"], [*again, "--wait", "5s"], [*again, "--stream"],
    ):  # fmt: skip
        text = run(argv, env)
        assert acts(text.everything) == set(), argv
        if "--stream" not in argv:
            whole = run([*argv, "--json"], env)
            assert acts(whole.everything) == set(), argv
            json.loads(whole.stdout)
    for argv in (["dead", "export", "--with-content"], [*again, "--stream", "--json"]):
        lines = run(argv, env).stdout.splitlines()
        assert acts("".join(lines)) == set(), argv
        assert any(HOSTILE in json.loads(line).values() for line in lines), argv


@pytest.mark.finding(17)
def test_a_message_forges_no_field(env: dict[str, str], stored: Stored) -> None:
    shown = run(["dead", "show", stored.turn], env).stdout.splitlines()
    names = [line.partition(":")[0] for line in shown if not line.startswith(" ")]
    assert len(names) == len(set(names)), "one line a field"
    assert "    user_id: bob" in [line[:16] for line in shown]


@pytest.mark.finding(17)
def test_json_holds_exactly_what_was_said(env: dict[str, str], stored: Stored) -> None:
    shown = json.loads(run(["dead", "show", stored.turn, "--json"], env).stdout)
    assert (shown["message"], shown["code"]) == (HOSTILE, HOSTILE)


@pytest.mark.finding(17)
def test_a_chat_shows_what_a_model_wrote(capsys: pytest.CaptureFixture[str]) -> None:
    def converse(producer: FakeProducer) -> str:
        with pytest.MonkeyPatch.context() as patch:
            said = (HOSTILE.replace("\n", " ") + "\n").encode()
            patch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(said)))
            session = ChatSession(producer, Settings.load({}), Pipe(), "t")
            session.speak_as("ann")
            _converse(session)
        return capsys.readouterr().out

    for answer in (FakeReply(HOSTILE, restarts=1), FakeFailure(HOSTILE, deltas=[HOSTILE])):
        shown = converse(FakeProducer(answer))
        assert r"\x1b[2J" in shown
        assert acts(shown) == set()


@pytest.mark.finding(17)
def test_an_error_and_a_wrong_option_are_one_visible_line() -> None:
    for argv in (
        ["status", HOSTILE], ["dead", "list", "--since", HOSTILE], [HOSTILE], [f"--{HOSTILE}"],
        ["dead", "runs", HOSTILE], ["usage", "--tenant", HOSTILE], ["account", "--late", HOSTILE],
        ["dead", "list", "--kind", HOSTILE], ["submit", "x", "--user", "a", "--metadata", HOSTILE],
    ):  # fmt: skip
        printed = afterword(*argv, env={"AFTERWORD_REDIS_URL": "redis://127.0.0.1:1"})
        assert printed.code == 2, argv
        assert acts(printed.everything) == set(), argv
    printed = afterword("status", env={f"AFTERWORD_{HOSTILE}": "1"})
    assert printed.code == 2
    assert acts(printed.everything) == set()
    assert len(printed.stderr.splitlines()) == 1


@pytest.mark.finding(17)
def test_a_gate_s_cause_is_visible(capsys: pytest.CaptureFixture[str]) -> None:
    at = moment(0)
    render.gates([Gate(HOSTILE, GateState.SHUT, HOSTILE, Fault.PROVIDER, at, at)])
    assert acts(capsys.readouterr().out) == set()
