"""No message of the corpora that relevance and recall are measured on is taken for a secret."""

from __future__ import annotations

import csv

from afterword.shared.redaction.known_secrets import KINDS, KnownSecrets
from tests.conftest import ROOT


def test_the_corpora_of_relevance_and_recall_hold_no_secret() -> None:
    with (ROOT / "tests/kit/relevance.tsv").open(encoding="utf-8", newline="") as file:
        messages = [
            row["text"] for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        ]
    probes = [path.read_text() for path in (ROOT / "benchmarks/recall").glob("*/*.json")]
    assert len(messages) > 1000 and len(probes) == 27  # noqa: PT018 there is something to look at
    finder = KnownSecrets(KINDS)
    assert [text[:40] for text in messages + probes if finder.find(text)] == []
