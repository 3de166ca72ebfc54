"""Alert rules, and when each fires: pending until its expression held for as long as it says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import yaml

from tests.conftest import ROOT
from tests.kit.promql.evaluate import evaluate
from tests.kit.promql.recording import Labels, Recording

FILE = ROOT / "deploy/monitoring/rules.yml"
_SECONDS = {"s": 1, "m": 60, "h": 3600}


@dataclass(frozen=True)
class Rule:
    """One alert of the file."""

    name: str
    query: str
    for_s: float
    labels: dict[str, str]
    annotations: dict[str, str]


def alert_rules() -> dict[str, Rule]:
    """Return the alerts by their names."""
    read: dict[str, Any] = yaml.safe_load(FILE.read_text())
    rules = [rule for group in read["groups"] for rule in group["rules"]]
    return {
        rule["alert"]: Rule(
            rule["alert"],
            rule["expr"],
            int(rule["for"][:-1]) * _SECONDS[rule["for"][-1]],
            rule["labels"],
            rule["annotations"],
        )
        for rule in rules
    }


def firing(rule: Rule, recording: Recording, times: list[float]) -> list[float]:
    """Return at which of these times an alert fires."""
    since: dict[Labels, float] = {}
    found = []
    for at in times:
        active = evaluate(rule.query, recording, at)
        since = {labels: since.get(labels, at) for labels in active}
        if any(at - begun >= rule.for_s for begun in since.values()):
            found.append(at)
    return found
