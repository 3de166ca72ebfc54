"""Records what is extracted from the turns of a data set: `python -m benchmarks.recall.extraction`.

Memory that extracts facts is measured with recorded ones, so that two runs differ by what is to be
measured. By default a rule makes them, of what was said alone; no question plays a part:

1. A message that only asks, greets, thanks, agrees or asks for work holds no fact.
2. Of any other, each sentence that does more is one fact.
3. A fact names whom it is about, as extraction models write it: `User: ...`, in the language of the
   message.

With `--ask`, the configured extraction model is asked instead, through the product's own adapter
and with its own instructions. The rule keeps all chatter, and resolves nothing: it is a floor.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from pydantic import SecretStr

from afterword.shared.environment import read as read_environment
from afterword.shared.settings import Settings
from afterword.workers.ports import Turn
from afterword.workers.rules.languages import languages_of
from afterword.workers.rules.remembering import reason_in
from afterword.workers.wiring import open_memories
from benchmarks.recall import dataset, short_facts
from benchmarks.recall.dataset import ASSISTANT, Dataset, Said, User
from tests.kit.servers.postgres import Postgres

#: The facts of the probe, by the rule.
RECORD = Path(__file__).with_name("extracted.json")

Facts = Mapping[str, Sequence[str]]


class NotRecorded(LookupError):
    """A message is not in the record."""


_USER = {
    "ar": "المستخدم", "de": "Nutzer", "en": "User", "es": "Usuario", "fr": "Utilisateur",
    "hi": "उपयोगकर्ता", "it": "Utente", "ja": "ユーザー", "pt": "Usuário",
    "ru": "Пользователь", "tr": "Kullan\u0131c\u0131", "zh": "用户",
}  # fmt: skip

_SENTENCE_END = re.compile("(?<=[.!?\u061f\u0964])\\s+|(?<=[\u3002\uff01\uff1f])\\s*")


def facts_of(message: str) -> list[str]:
    """Return the facts of a message by the rule above."""
    if _says_nothing(message):
        return []
    about = _USER.get(next(iter(sorted(languages_of(message))), "en"), _USER["en"])
    parts = (part.strip() for part in _SENTENCE_END.split(message))
    return [f"{about}: {part}" for part in parts if part and not _says_nothing(part)]


def _says_nothing(text: str) -> bool:
    return reason_in(text, pleasantries=False) is not None


def read(path: Path) -> Facts:
    """Return recorded facts by the message that holds them."""
    found: dict[str, list[str]] = json.loads(path.read_text("utf-8"))["facts"]
    return found


def lookup(facts: Facts) -> Callable[[str], list[str]]:
    """Return a function that gives the recorded facts of a message.

    It raises `NotRecorded` for one that is not among them.
    """

    def find(message: str) -> list[str]:
        if message not in facts:
            raise NotRecorded("no facts of a message are recorded; record those of this data set")
        return list(facts[message])

    return find


def check(data: Dataset, find: Callable[[str], list[str]]) -> None:
    """Raise `NotRecorded` unless the facts of all that users said are recorded."""
    for user in data.users:
        for said in _own(user):
            find(said.text)


def by_rule(data: Dataset) -> Facts:
    """Return the facts of all that users said, by the rule."""
    return {said.text: facts_of(said.text) for user in data.users for said in _own(user)}


async def by_model(data: Dataset, settings: Settings) -> Facts:
    """Return what the extraction model of the settings finds, each user's turns in their order."""
    found: dict[str, Sequence[str]] = {}
    with ExitStack() as stack:
        url = SecretStr(stack.enter_context(Postgres()).new_database())
        chosen = settings.model_copy(update={"memory": "selfhosted", "postgres_url": url})
        memories = await open_memories(chosen)
        assert memories is not None
        try:
            for user in data.users:
                for said in _own(user):
                    noted: list[str] = []

                    async def note(facts: str, noted: list[str] = noted) -> None:
                        noted.append(facts)

                    turn = Turn(said.id, said.text, "", said.at, note_facts=note)
                    await memories.add(user.name, turn)
                    found[said.text] = [fact["text"] for fact in json.loads(noted[0])["memory"]]
        finally:
            await memories.aclose()
    return found


def _own(user: User) -> Iterable[Said]:
    return (said for said in user.turns if said.speaker != ASSISTANT)


def main(arguments: Sequence[str]) -> int:
    """Record the facts of a data set, by default of the probe."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.recall.extraction")
    parser.add_argument(
        "path", nargs="?", type=Path, help="a data set, as JSON; default: the probe"
    )
    parser.add_argument("--ask", action="store_true", help="ask AFTERWORD_MEMORY_MODEL")
    parser.add_argument("--out", type=Path, default=RECORD, metavar="FILE")
    parsed = parser.parse_args(arguments)
    data = dataset.read(parsed.path) if parsed.path else short_facts.build()
    if parsed.ask:
        settings = read_environment(Settings, os.environ)
        made_by, facts = settings.memory_model, asyncio.run(by_model(data, settings))
    else:
        made_by, facts = "rule 1", by_rule(data)
    text = json.dumps({"made_by": made_by, "facts": facts}, ensure_ascii=False, indent=0)
    parsed.out.write_text(text + "\n", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
