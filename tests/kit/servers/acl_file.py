"""The users of `deploy/redis/users.acl`, and the commands that a script of ours calls."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from typing import Any

from redis import Redis

from afterword.shared.transport.scripts import script
from tests.conftest import ROOT

FILE = ROOT / "deploy/redis/users.acl"
PASSWORD = "CHANGE-ME"

#: Commands that no user can be denied: they are how one becomes a user.
_FREE = {"auth", "hello", "quit", "reset"}
#: What the counting itself runs.
_OURS = {"acl|log", "config|resetstat", "client|list"}
_CALL = re.compile(r"(?:redis\.call|write|write_later)\('([A-Z]+)'")


@dataclass(frozen=True)
class AclUser:
    """One user: its name, its rules as Redis takes them, and the commands among them."""

    name: str
    rules: tuple[str, ...]

    @property
    def commands(self) -> set[str]:
        """Return the commands that it may run."""
        return {rule[1:] for rule in self.rules if rule.startswith("+")}

    def create(self, redis: Any, *more: str) -> None:
        """Make it a user of a server, with more rules than the file has."""
        redis.execute_command("ACL", "SETUSER", self.name, "reset", *self.rules, *more)

    def url(self, address: str) -> str:
        """Return the address of a server as this user writes it."""
        return address.replace("//", f"//{self.name}:{PASSWORD}@")


def acl_users() -> dict[str, AclUser]:
    """Return the users of the file by their role."""
    text = FILE.read_text().replace("\\\n", " ")
    lines = [shlex.split(line) for line in text.splitlines() if line.startswith("user ")]
    found = [AclUser(words[1], tuple(words[2:])) for words in lines]
    return {user.name.removeprefix("afterword-"): user for user in found}


def commands_of(name: str) -> set[str]:
    """Return the commands that a script of ours may call, one at a time or batched."""
    texts = [script(name).text]
    if name == "job/submit":
        texts.append(script(name, batched=True).text)
    return {name.lower() for text in texts for name in _CALL.findall(text)}


def counted_commands(redis: Redis) -> set[str]:
    """Return the commands that a server ran since its counts were reset, and reset them."""
    counts: dict[str, object] = redis.info("commandstats")
    redis.config_resetstat()
    return {name.removeprefix("cmdstat_") for name in counts} - _FREE - _OURS
