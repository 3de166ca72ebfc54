"""Builds mem0's open-source class on PostgreSQL with pgvector, with Claude for extraction."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from afterword.shared.errors import Misconfigured, RateLimited, Unavailable
from afterword.shared.events import BackendUnavailable
from afterword.shared.installation import install_command
from afterword.shared.observer import emit
from afterword.shared.settings import MemorySettings
from afterword.workers.adapters.mem0.add_context import add_context
from afterword.workers.adapters.mem0.extraction import Extractor, instructions, only_text
from afterword.workers.adapters.mem0.import_guard import prepare_mem0_import
from afterword.workers.adapters.mem0.open_source import NoHistory, OpenSourceMemories, StoreRow
from afterword.workers.ports import MigratableMemories, Model, Turn


async def open_selfhosted(
    settings: MemorySettings, model: Model, tag_key: bytes
) -> MigratableMemories:
    """Open the memories in PostgreSQL. Closing them also closes `model`.

    Use the result in this process and on this event loop only. A server that cannot be reached now
    is tried again by every call. Raises `Misconfigured` for errors that retrying cannot solve.
    """
    loop = asyncio.get_running_loop()
    extractor = Extractor(model, settings.memory_model, loop, tag_key)
    recipe = PgVectorRecipe(settings, extractor)
    return await OpenSourceMemories.open(recipe, settings.memory_threads, settings.write_timeout_s)


class PgVectorRecipe:
    """Extracts facts from what the user wrote, never from replies or recalled memories."""

    takes_batches = True

    def __init__(self, settings: MemorySettings, extractor: Extractor) -> None:
        self._settings = settings
        self._extractor = extractor

    def build_memory(self) -> Any:
        """Build mem0's `Memory` with our store, our embedder and our extraction model."""
        if self._settings.postgres_url is None:
            raise Misconfigured(
                "AFTERWORD_POSTGRES_URL", "must be set: the selfhosted memory keeps its data there"
            )
        with tempfile.TemporaryDirectory(prefix="mem0-") as folder:  # importing mem0 writes to it
            prepare_mem0_import(Path(folder))
            try:
                return _build(self._settings, self._extractor)
            except ImportError as error:
                reason = f"selfhosted needs {error.name}; run: {install_command('selfhosted')}"
                raise Misconfigured("AFTERWORD_MEMORY", reason) from error

    def add_arguments(self, turn: Turn) -> Mapping[str, Any]:
        """Return what the user wrote, our instructions, and the turn."""
        messages = [
            {"role": "user", "content": only_text(each.user_text)} for each in turn.exchanges
        ]
        extracted = {"extraction_model": self._settings.memory_model}
        said = {"messages": messages, "prompt": instructions(turn), "turn": turn}
        return said | {"metadata": extracted}

    def prompt_text(self, text: str, at: datetime | None) -> str:  # noqa: ARG002 - the protocol's signature
        """Return the fact as it was extracted."""
        return text

    def stored_text(self, text: str, at: datetime | None) -> str:  # noqa: ARG002 - the protocol's signature
        """Return a fact as it is."""
        return text

    def list_rows(
        self, memory: Any, owner: str, limit: int, after: str | None
    ) -> tuple[Sequence[StoreRow], str | None]:
        """Return a page of an owner's rows, by the time of their turns."""
        found: tuple[Sequence[StoreRow], str | None]
        found = memory.vector_store.list_page(owner, limit, after)
        return found

    def repeats(self, memory: Any, owner: str, text: str) -> Sequence[str]:
        """Return the ids of an owner's rows that say a text."""
        ids: Sequence[str] = memory.vector_store.list_repeats(owner, text)
        return ids

    def list_owners(
        self, memory: Any, limit: int, after: str | None
    ) -> tuple[Sequence[str], str | None]:
        """Return a page of owners, by name."""
        owners: tuple[Sequence[str], str | None] = memory.vector_store.list_owners(limit, after)
        return owners

    def erase_owner(self, memory: Any, owner: str) -> None:
        """Delete an owner's rows. Nothing of an owner is kept in the process."""
        memory.vector_store.erase_owner(owner)

    def overwrite_deleted(self, memory: Any) -> None:
        """Do nothing: PostgreSQL's vacuum does it, and its backups are the operator's."""

    def close(self, memory: Any) -> None:
        """Close the connections to PostgreSQL and to the model."""
        memory.vector_store.close()
        self._extractor.close()


def _build(settings: MemorySettings, extractor: Extractor) -> Any:
    from mem0 import Memory
    from mem0.configs.llms.base import BaseLlmConfig
    from mem0.utils import spacy_models
    from mem0.utils.factory import EmbedderFactory, LlmFactory, VectorStoreFactory

    from afterword.workers.adapters.mem0.embedders import open_embedder
    from afterword.workers.adapters.mem0.pgvector import database
    from afterword.workers.adapters.mem0.pgvector import store as pgvector_store

    # Pretend that loading failed: mem0 would download the model that spaCy lacks.
    spacy_models._load_failed_full = spacy_models._load_failed_lemma = True  # noqa: SLF001
    embedder, dims = open_embedder(settings.embedder, settings.embedder_options)
    pool = database.connection_pool(_url(settings), 2 * settings.memory_threads)
    # mem0 finds providers by name only. The config of `langchain` takes any object as `model`.
    VectorStoreFactory.provider_to_class["pgvector"] = f"{pgvector_store.__name__}.PgVectorStore"
    EmbedderFactory.provider_to_class["langchain"] = f"{__name__}.prebuilt"
    LlmFactory.register_provider("langchain", f"{__name__}.prebuilt", BaseLlmConfig)
    store = {
        "connection_pool": pool,
        "collection_name": database.TABLE,
        "embedding_model_dims": dims,
        "hnsw": False,
    }
    memory = _with_add_context(Memory).from_config(
        {
            "vector_store": {"provider": "pgvector", "config": store},
            "embedder": {"provider": "langchain", "config": {"model": embedder}},
            "llm": {"provider": "langchain", "config": {"model": extractor}},
            "history_db_path": ":memory:",
        }
    )
    NoHistory.install(memory)
    return _warm_up(memory, _url(settings))


def prebuilt(config: Any) -> Any:
    """Return the object in the config, where mem0's factories would build one."""
    return config.model


def _url(settings: MemorySettings) -> str:
    assert settings.postgres_url is not None
    return settings.postgres_url.get_secret_value()


def _with_add_context(memory: Callable[..., Any]) -> Any:
    """Return a subclass whose `add` stores all of a turn or raises."""

    class StrictMemory(memory):  # type: ignore[misc, valid-type]
        def add(self, messages: Any, *, turn: Turn, user_id: str, **arguments: Any) -> Any:
            with add_context(user_id, turn) as context:
                added = super().add(messages, user_id=user_id, **arguments)
            return added | {"has_facts": context.has_facts}

    return StrictMemory


def _warm_up(memory: Any, url: str) -> Any:
    """Load the embedder and check the table now, rather than during the first call."""
    from afterword.workers.adapters.mem0.pgvector.database import check_login

    try:
        memory.embedding_model.embed("warm up", "search")
    except (Unavailable, RateLimited) as error:
        emit(BackendUnavailable, backend="the embedder", error=error.code)
    try:
        memory.vector_store.connection_pool.open()
        check_login(url)
        memory.vector_store.ensure()
    except Unavailable as error:
        emit(BackendUnavailable, backend="PostgreSQL", error=error.code)
    except BaseException:
        memory.vector_store.close()
        raise
    return memory
