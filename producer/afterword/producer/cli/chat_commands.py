"""The commands of a chat: lines that begin with a slash."""

from __future__ import annotations

import re
import shlex
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from afterword.producer.admin.erasure import ErasureReceipt
from afterword.producer.admin.sync_admin import Operator
from afterword.producer.admin.wording import rows_left_out
from afterword.producer.cli.chat_memory import QueuedTurns
from afterword.producer.cli.chat_session import ChatSession
from afterword.producer.cli.terminal import echo, indented, one_line
from afterword.producer.client.sync_memories import UserMemories
from afterword.shared.contracts import DEFAULT_TENANT
from afterword.shared.errors import MemoriesUnavailable
from afterword.shared.ledger.records import ErasureState
from afterword.shared.memory_contracts import Memory

#: How long `/forget` waits for the first pass of the erasure, which takes a moment.
_FORGOTTEN_S = 10.0
_LOOK_AGAIN_S = 0.1

#: How many memories `/memories` shows, and how long it waits for each page of them.
_MOST_LISTED = 500
_LISTED_S = 10.0


class ChatCommand(NamedTuple):
    """One command: its argument, what it does, and the function that does it."""

    argument: str
    meaning: str
    run: Callable[[ChatSession, str], None]


def is_command(line: str, *, typed: bool) -> bool:
    """Return whether a line is a command: one that is typed may be misspelt, one of a pipe may not.

    What a pipe holds was not written for a chat: a line about `/etc/hosts` is a message.
    """
    if typed:
        return line.startswith("/") and not line.startswith("//")
    return _COMMAND_LINE.fullmatch(line) is not None


def message_in(line: str, *, typed: bool) -> str:
    """Return the message on a line that is no command: `//help` says `/help`."""
    escapes = line.startswith("//") and (typed or is_command(line[1:], typed=False))
    return line[1:] if escapes else line


def run_command(session: ChatSession, line: str) -> None:
    """Run the command on a line; say so if there is none of this name."""
    name, _, argument = line[1:].partition(" ")
    found = COMMANDS.get(name.lower())
    if found is None:
        echo(f"[There is no command /{one_line(name)}; see /help. To say this, begin with //]")
    elif bool(argument.strip()) is not bool(found.argument):
        echo(f"[Type: /{name} {found.argument}".rstrip() + "]")
    else:
        found.run(session, argument.strip())


def _help(_session: ChatSession, _argument: str) -> None:
    for name, (argument, meaning, _) in COMMANDS.items():
        echo(f"{f'/{name} {argument}':<12}{meaning}")
    echo(
        "Enter sends; Alt-Enter begins another line; what is pasted is one message.\n"
        'Ctrl-C stops a reply, and a second one ends the chat, as Ctrl-D and "quit" do.'
    )


def _memories(session: ChatSession, _argument: str) -> None:
    """Show all memories; those that the last reply was given are marked."""
    user, last = one_line(session.user_id), session.last_reply
    given = {memory.id for memory in last.memories} if last else set()
    mine = session.producer.memories(session.user_id, tenant=session.tenant)
    try:
        found, dropped = _listed(mine)
    except MemoriesUnavailable as error:
        echo(f"[The memories of {user} cannot be shown: {error.code}]")
        return
    if not found and not dropped:
        echo(f"[There is no memory of {user} yet]")
        return
    echo(f"[What is remembered of {user}, the newest first; * was given to the last reply]")
    for memory in found[:_MOST_LISTED]:
        echo(f"  {'*' if memory.id in given else '-'} {indented(memory.text)}")
    if len(found) > _MOST_LISTED:
        echo(f"[And more. See all: {_elsewhere(session, 'memories list', '--limit 1000000')}]")
    if dropped:
        echo(f"[{rows_left_out(dropped)}]")


def _listed(mine: UserMemories) -> tuple[Sequence[Memory], int]:
    """Return the newest memories, one more than are shown if there are, and how many are unread."""
    found, dropped, after = list[Memory](), 0, None
    while True:
        page = mine.list(after=after, timeout=_LISTED_S)
        found += page.memories
        dropped += page.dropped
        after = page.next
        if after is None or len(found) > _MOST_LISTED:
            return found, dropped


def _user(session: ChatSession, user_id: str) -> None:
    session.speak_as(user_id)
    echo(f"[You are {one_line(user_id)} now, in a new conversation]")


def _forget(session: ChatSession, _argument: str) -> None:
    echo(
        f"[This erases all that user {one_line(session.user_id)} of tenant {session.tenant} has "
        "said, in Redis and in memory. It cannot be undone]"
    )
    if not session.source.interactive:
        echo(f"[Nothing was erased. Run: {_elsewhere(session, 'forget', '--apply')}]")
        return
    if (session.source.ask("Type the user id to erase it: ") or "").strip() != session.user_id:
        echo("[Nothing was erased]")
        return
    receipt = _erase(session)
    session.queued = QueuedTurns()  # the others are gone
    session.forget_history()
    session.speak_as(session.user_id)
    if receipt.state is ErasureState.ASKED:
        echo("[The erasure waits for a memory worker; see how far it is: afterword forget]")
    else:
        echo("[Erased; a second pass follows by itself. See: afterword forget]")


def _elsewhere(session: ChatSession, name: str, options: str) -> str:
    """Return what to type in a shell for the user and the tenant of a chat."""
    whose = [session.user_id]
    if session.tenant != DEFAULT_TENANT:
        whose += ["--tenant", session.tenant]
    return one_line(f"afterword {name} {shlex.join(whose)} {options}")


def _erase(session: ChatSession) -> ErasureReceipt:
    with Operator(session.settings) as operator:
        receipt = operator.forget(session.user_id, tenant=session.tenant)
        give_up = time.monotonic() + _FORGOTTEN_S
        while receipt.state is ErasureState.ASKED and time.monotonic() < give_up:
            time.sleep(_LOOK_AGAIN_S)  # noqa: TID251 nothing announces how far an erasure is
            receipt = operator.erasure(session.user_id, tenant=session.tenant) or receipt
    return receipt


COMMANDS = {
    "help": ChatCommand("", "show this", _help),
    "memories": ChatCommand("", "show what is remembered of you", _memories),
    "forget": ChatCommand("", "erase all that you have said, after a question", _forget),
    "user": ChatCommand("NAME", "speak as another user, in a new conversation", _user),
}

#: A line of a pipe that is a command.
_COMMAND_LINE = re.compile(
    "|".join(rf"/{name}" + r" +\S+" * bool(one.argument) for name, one in COMMANDS.items()),
    re.IGNORECASE,
)
