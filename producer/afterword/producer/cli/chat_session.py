"""What a chat holds while it goes on: who speaks, in which conversation, and what was said last."""

from __future__ import annotations

import secrets
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType

from afterword.producer.cli.chat_history import history_file, open_private
from afterword.producer.cli.chat_input import ChatInput
from afterword.producer.cli.chat_memory import QueuedTurns
from afterword.producer.cli.terminal import echo, one_line
from afterword.producer.client.sync_client import Job, Producer
from afterword.shared.arguments import checked
from afterword.shared.contracts import Id, Reply
from afterword.shared.settings import Settings


@dataclass
class ChatSession:
    """One user's conversation on a terminal or through a pipe.

    `interrupted` is true from a Ctrl-C until something is entered. `told` has the reasons for which
    memory could not be read that were printed.
    """

    producer: Producer
    settings: Settings
    source: ChatInput
    tenant: str
    user_id: str = ""
    conversation_id: str = ""
    last_reply: Reply | None = None
    queued: QueuedTurns = field(default_factory=QueuedTurns)
    interrupted: bool = False
    told: set[str] = field(default_factory=set)

    @checked
    def speak_as(self, user_id: Id) -> None:
        """Begin a conversation of this user; raise `InvalidRequest` if there can be none."""
        self.user_id = user_id
        self.conversation_id = f"chat-{secrets.token_hex(8)}"
        self.last_reply = None
        history = history_file(self.settings, self.tenant, user_id)
        if history is not None and self.source.edits:
            try:
                open_private(history)
            except OSError as error:
                reason = error.strerror or type(error).__name__
                echo(f"[What you type is not kept: {one_line(reason)}: {history}]", err=True)
                history = None
        self.source.remember_in(history)

    def submit(self, message: str) -> Job:
        """Submit a message of this conversation."""
        return self.producer.submit(
            message=message,
            user_id=self.user_id,
            tenant=self.tenant,
            conversation_id=self.conversation_id,
        )

    def forget_history(self) -> None:
        """Remove what is kept of what this user typed."""
        history = history_file(self.settings, self.tenant, self.user_id)
        if history is not None:
            history.unlink(missing_ok=True)


@contextmanager
def interrupt_deferred() -> Iterator[None]:
    """Let Ctrl-C take effect at the end of the block, and not in the middle of it."""
    held = False

    def hold(_number: int, _frame: FrameType | None) -> None:
        nonlocal held
        held = True

    before = signal.signal(signal.SIGINT, hold)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if held:
        raise KeyboardInterrupt
