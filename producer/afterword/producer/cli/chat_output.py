"""What a chat prints of one turn: the memories, the reply, and what becomes of the turn."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from afterword.producer.cli.remedies import failure
from afterword.producer.cli.terminal import echo, indented, one_line
from afterword.shared.contracts import Event, MemoryUsed, Reply
from afterword.shared.plurals import quantity

#: Why a turn is not remembered, in words; another code is printed as it is.
_NOT_REMEMBERED = {
    "known_facts": "memory knows it already",
    "memory_off": "memory is off",
    "no_fact": "no fact was found in it",
    "opted_out": "as you asked",
    "pleasantry": "only a pleasantry",
    "question_only": "only a question",
    "refusal": "the model refused to answer",
    "request_only": "only a request",
}


def print_turn(events: Iterable[Event]) -> Reply | None:
    """Print what is retrieved, said and remembered, each once it is known; return the reply."""
    speaking, reply = False, None
    try:
        for event in events:
            if event.type in ("delta", "final", "failed") and not speaking:
                echo("Agent: ", nl=False)
                speaking = True
            elif event.type == "restart" and speaking:
                echo("\n[Reply restarted]")
                speaking = False
            _print_event(event)
            reply = event.reply
    except KeyboardInterrupt:
        if speaking:
            echo()
        raise
    return reply


def _print_event(event: Event) -> None:
    if event.type == "recalled":
        _print_memories(event.memories or ())
        if event.memory == "degraded":
            echo("[Memory could not be read for this reply]")
    elif event.type == "delta":
        echo(event.text or "", nl=False)
    elif event.type == "failed":
        echo(f"[No reply: {one_line(failure(event.code or ''))}]")
    elif event.reply is not None:
        echo(f"\n[{_became_of_turn(event.reply)}]")


def _print_memories(memories: Sequence[MemoryUsed]) -> None:
    echo(f"[Retrieved {quantity(len(memories), 'memory', 'memories')}]")
    for memory in memories:
        echo(f"  - {indented(memory.text)}")


def _became_of_turn(reply: Reply) -> str:
    code = reply.not_remembered
    return "Memory queued" if code is None else nothing_to_remember(code)


def nothing_to_remember(code: str) -> str:
    """Return why there is nothing to remember, in words."""
    return f"Nothing to remember: {_NOT_REMEMBERED.get(code, one_line(code))}"
