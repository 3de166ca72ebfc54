"""mem0's open-source class on PostgreSQL with pgvector, Claude as its extraction model."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from afterword.shared.errors import Misconfigured, RateLimited, Unavailable
from afterword.shared.events import BackendUnavailable
from afterword.shared.observer import emit
from afterword.shared.settings import MemorySettings
from afterword.workers.adapters.mem0.add_context import add_context
from afterword.workers.adapters.mem0.extraction import Extractor, instructions
from afterword.workers.adapters.mem0.import_guard import mem0_silenced
from afterword.workers.adapters.mem0.open_source import SelfHosted
from afterword.workers.ports import Memories, Model, Turn


async def open_selfhosted(settings: MemorySettings, model: Model, tag_key: bytes) -> Memories:
    """Open the memories in PostgreSQL, and close the model with them.

    Belongs to the process and the event loop that opened it. A server that is away now is waited
    for at every call; raises `Misconfigured` for what waiting cannot help.
    """
    loop = asyncio.get_running_loop()
    extractor = Extractor(model, settings.memory_model, loop, tag_key)
    recipe = PgVector(settings, extractor)
    return await SelfHosted.open(recipe, settings.memory_threads, settings.write_timeout_s)


class PgVector:
    """Extracts facts from what the user said; no reply, and nothing recalled, is ever extracted."""

    takes_batches = True

    def __init__(self, settings: MemorySettings, extractor: Extractor) -> None:
        self._settings = settings
        self._extractor = extractor

    def open(self) -> Any:
        """Build mem0's `Memory` on our table, our embedder and our model."""
        if self._settings.postgres_url is None:
            raise Misconfigured(
                "AFTERWORD_POSTGRES_URL", "must be set: the memories are kept there"
            )
        with tempfile.TemporaryDirectory(prefix="mem0-") as folder:  # the import writes to it
            mem0_silenced(Path(folder))
            try:
                return _build(self._settings, self._extractor)
            except ImportError as error:
                reason = f"selfhosted needs {error.name}: install afterword[selfhosted]"
                raise Misconfigured("AFTERWORD_MEMORY", reason) from error

    def reason_to_skip(self, turn: Turn) -> str | None:  # noqa: ARG002 - as the recipe has it
        """Return None: a question may tell of its asker, and the model can tell."""
        return None

    def compose(self, turn: Turn) -> Mapping[str, Any]:
        """Return the user's words, when they were written, and the turn for its errand."""
        said = [{"role": "user", "content": each.user_text} for each in turn.exchanges]
        return {"messages": said, "prompt": instructions(turn), "turn": turn}

    def shown(self, text: str, at: datetime | None) -> str:  # noqa: ARG002 - as the recipe has it
        """Return the fact as it was extracted."""
        return text

    def erase(self, memory: Any, owner: str) -> None:
        """Erase an owner's rows; the process itself keeps nothing of anybody."""
        memory.vector_store.forget(owner)

    def close(self, memory: Any) -> None:
        """Close the connections to PostgreSQL and to the model."""
        memory.vector_store.close()
        self._extractor.close()


class NoTalk:
    """Stands where mem0 keeps every text for ever, and each user's last ten messages for context.

    A process sees only those turns that its lanes happened to bring, and no erasure would reach
    the messages in the others: what is known of a user is in the table, for all alike.
    """

    def get_last_messages(self, *_: object, **__: object) -> list[Any]:
        """Return none."""
        return []

    def save_messages(self, *_: object) -> None:
        """Keep nothing."""

    def batch_add_history(self, *_: object) -> None:
        """Keep nothing."""

    def add_history(self, *_: object, **__: object) -> None:
        """Keep nothing."""

    def close(self) -> None:
        """Have nothing to close."""


def _build(settings: MemorySettings, extractor: Extractor) -> Any:
    from mem0 import Memory
    from mem0.configs.llms.base import BaseLlmConfig
    from mem0.utils import spacy_models
    from mem0.utils.factory import EmbedderFactory, LlmFactory, VectorStoreFactory

    from afterword.workers.adapters.mem0.embedders import open_embedder
    from afterword.workers.adapters.mem0.pgvector import schema as pgvector_schema
    from afterword.workers.adapters.mem0.pgvector import store as pgvector_store

    # As if it had failed before: where spaCy is without its model, mem0 would download that.
    spacy_models._load_failed_full = spacy_models._load_failed_lemma = True  # noqa: SLF001
    embedder, dims = open_embedder(settings.embedder, settings.embedder_options)
    pool = pgvector_store.pool(_url(settings), 2 * settings.memory_threads)
    # mem0 knows providers by name only; this one's `model` may be any object.
    VectorStoreFactory.provider_to_class["pgvector"] = f"{pgvector_store.__name__}.PgVectorStore"
    EmbedderFactory.provider_to_class["langchain"] = f"{__name__}.given"
    LlmFactory.register_provider("langchain", f"{__name__}.given", BaseLlmConfig)
    store = {
        "connection_pool": pool,
        "collection_name": pgvector_schema.TABLE,
        "embedding_model_dims": dims,
        "hnsw": False,
    }
    memory = _strict(Memory).from_config(
        {
            "vector_store": {"provider": "pgvector", "config": store},
            "embedder": {"provider": "langchain", "config": {"model": embedder}},
            "llm": {"provider": "langchain", "config": {"model": extractor}},
            "history_db_path": ":memory:",
        }
    )
    memory.db.close()
    memory.db = NoTalk()
    return _warm(memory, _url(settings))


def given(config: Any) -> Any:
    """Return what was built before, where mem0's factories would build it."""
    return config.model


def _url(settings: MemorySettings) -> str:
    assert settings.postgres_url is not None
    return settings.postgres_url.get_secret_value()


def _strict(memory: Callable[..., Any]) -> Any:
    """Return mem0's `Memory` with an `add` that does all of a turn or raises."""

    class Strict(memory):  # type: ignore[misc, valid-type]
        def add(self, messages: Any, *, turn: Turn, user_id: str, **told: Any) -> Any:
            with add_context(user_id, turn):
                return super().add(messages, user_id=user_id, **told)

    return Strict


def _warm(memory: Any, url: str) -> Any:
    """Look at the table and load the embedder now, not while somebody waits for them."""
    from afterword.workers.adapters.mem0.pgvector.login import check_login

    try:
        memory.embedding_model.embed("warm up", "search")
    except (Unavailable, RateLimited) as error:
        emit(BackendUnavailable, backend="the embedder", error=error.code)
    try:
        check_login(url)
        memory.vector_store.connection_pool.open()
        memory.vector_store.ensure()
    except Unavailable as error:
        emit(BackendUnavailable, backend="PostgreSQL", error=error.code)
    except BaseException:
        memory.vector_store.close()
        raise
    return memory
