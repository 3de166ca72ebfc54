"""Builds mem0's open-source class on one SQLite file, without a server, a network or an LLM."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from afterword.shared.clock import utc_now
from afterword.shared.errors import IllegalStep, Misconfigured
from afterword.shared.installation import install_command
from afterword.shared.local_time import local
from afterword.shared.settings import Settings
from afterword.workers.adapters.mem0.import_guard import prepare_mem0_import
from afterword.workers.adapters.mem0.open_source import NoHistory, OpenSourceMemories
from afterword.workers.adapters.mem0.sqlite.rows import Row
from afterword.workers.local_stack.data_dir import DataDir
from afterword.workers.ports import MigratableMemories, Turn
from afterword.workers.rules.about_user import asks_about_user
from afterword.workers.rules.asked_days import Days, asked_days
from afterword.workers.rules.dates import with_dates
from afterword.workers.rules.requests import is_request

#: A reply asks at its end, if it does.
REPLY_CHARACTERS = 200

_YEAR = "January February March April May June July August September October November December"
_MONTHS = _YEAR.split()


async def open_embedded(settings: Settings) -> MigratableMemories:
    """Open the memories in the data directory, created at first use; takes a second or two.

    Use the result in this process only. Raises `Misconfigured` if the directory cannot be used or
    holds memories of another version.
    """
    recipe = EmbeddedRecipe(DataDir.open(settings.data_dir).memory)
    return await OpenSourceMemories.open(recipe, settings.memory_threads, settings.write_timeout_s)


class EmbeddedRecipe:
    """Stores what users write as it is: nothing is extracted, nothing leaves the machine."""

    takes_batches = False  # mem0 embeds and stores each message by itself anyway

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def build_memory(self) -> Any:
        """Build mem0's `Memory` with our store and our embedder."""
        prepare_mem0_import(self._folder / "mem0")
        try:
            return _build(self._folder / "memories.sqlite")
        except ImportError as error:
            reason = f"embedded needs {error.name}; run: {install_command('embedded')}"
            raise Misconfigured("AFTERWORD_MEMORY", reason) from error
        except sqlite3.Error as error:
            reason = f"its memory file cannot be opened: {error}"
            raise Misconfigured("AFTERWORD_DATA_DIR", reason) from error

    def add_arguments(self, turn: Turn) -> Mapping[str, Any]:
        """Return the user's text after its date, which improves answers to "when" (measured).

        "Tomorrow" and the like are followed by the date that they mean for the user. The end of
        the reply is indexed for what the user may answer to it, and not stored.
        """
        said_on = local(turn.at, turn.timezone).date()
        text = _date_mark(turn.at) + with_dates(turn.user_text, said_on)
        reply_end = turn.reply_text[-REPLY_CHARACTERS:]
        return {"messages": text, "infer": False, "metadata": {"reply_end": reply_end}}

    def prompt_text(self, text: str, at: datetime | None) -> str:
        """Return the user's text without the date: the prompt shows that anyway."""
        return text.removeprefix(_date_mark(at)) if at else text

    def stored_text(self, text: str, at: datetime | None) -> str:
        """Return a user's text after the date of its memory."""
        return _date_mark(at) + text if at else text

    def list_rows(
        self, memory: Any, owner: str, limit: int, after: str | None
    ) -> tuple[Sequence[Row], str | None]:
        """Return a page of an owner's rows; an edited one counts as stored last."""
        rows: tuple[Sequence[Row], str | None] = memory.vector_store.list_page(owner, limit, after)
        return rows

    def repeats(self, memory: Any, owner: str, text: str) -> Sequence[str]:
        """Return the ids of an owner's rows that say a text."""
        ids: Sequence[str] = memory.vector_store.list_repeats(owner, text)
        return ids

    def list_owners(
        self, memory: Any, limit: int, after: str | None
    ) -> tuple[Sequence[str], str | None]:
        """Return a page of owners, those whose first memory is oldest first."""
        owners: tuple[Sequence[str], str | None] = memory.vector_store.list_owners(limit, after)
        return owners

    def erase_owner(self, memory: Any, owner: str) -> None:
        """Erase an owner in one step, including the bytes in the file."""
        memory.vector_store.erase_owner(owner)

    def overwrite_deleted(self, memory: Any) -> None:
        """Empty SQLite's log, which holds what pages were before a change."""
        memory.vector_store.empty_log()

    def close(self, memory: Any) -> None:
        """Close the file."""
        memory.vector_store.close()


def _bare_text(payload: Mapping[str, Any]) -> str:
    text, at = str(payload.get("data", "")), payload.get("created_at")
    try:
        return text.removeprefix(_date_mark(datetime.fromisoformat(str(at))))
    except (ValueError, OverflowError):
        return text


def _asked_days(query: str) -> Sequence[Sequence[Days]]:
    return asked_days(query, utc_now().date())


def _date_mark(at: datetime) -> str:
    day = at.astimezone(UTC)
    return f"[{day.day} {_MONTHS[day.month - 1]} {day.year}] "


def _build(path: Path) -> Any:
    from mem0 import Memory
    from mem0.configs.llms.base import BaseLlmConfig
    from mem0.utils.factory import EmbedderFactory, LlmFactory, VectorStoreFactory

    from afterword.workers.adapters.mem0.sqlite.embedder import DIMS
    from afterword.workers.adapters.mem0.sqlite.store import COLLECTION

    # mem0 finds providers by name only, so ours replace some that it knows.
    VectorStoreFactory.provider_to_class["faiss"] = f"{__name__}.build_store"
    EmbedderFactory.provider_to_class["fastembed"] = f"{__name__}.build_embedder"
    LlmFactory.register_provider("lmstudio", f"{__name__}.NoModel", BaseLlmConfig)
    store = {"path": str(path), "collection_name": COLLECTION, "embedding_model_dims": DIMS}
    memory = Memory.from_config(
        {
            "vector_store": {"provider": "faiss", "config": store},
            "embedder": {"provider": "fastembed", "config": {}},
            "llm": {"provider": "lmstudio", "config": {}},
            "history_db_path": ":memory:",
        }
    )
    NoHistory.install(memory)
    # The first search loads the embedder's weights: do it now, not during a reply.
    memory.search("warm up", filters={"user_id": "nobody"}, top_k=1)
    return memory


def build_store(*, path: str, collection_name: str, embedding_model_dims: int, **_: object) -> Any:
    """Build our store for mem0's factory; raise `ValueError` for a second collection.

    The second would be mem0's own table of entity names, used if spaCy is installed. Erasing a
    user would not reach it.
    """
    from afterword.workers.adapters.mem0.sqlite.embedder import NAME, SCALE
    from afterword.workers.adapters.mem0.sqlite.store import COLLECTION, SqliteStore

    if collection_name != COLLECTION:
        raise ValueError(f"the embedded store has one collection, {COLLECTION}")
    dims = embedding_model_dims
    return SqliteStore(
        Path(path),
        embedder=NAME,
        dims=dims,
        scale=SCALE,
        bare=_bare_text,
        asked_days=_asked_days,
        asks_about_user=asks_about_user,
        is_request=is_request,
    )


def build_embedder(config: Any) -> Any:
    """Build our embedder for mem0's factory."""
    from afterword.workers.adapters.mem0.sqlite.embedder import AnswerSeeking

    return AnswerSeeking(config)


class NoModel:
    """Serves as mem0's language model and is never called, because nothing is extracted."""

    def __init__(self, config: Any) -> None:
        self.config = config

    def generate_response(self, *_: object, **__: object) -> str:
        """Raise `IllegalStep`."""
        raise IllegalStep("the embedded memory extracts nothing and has no model")
