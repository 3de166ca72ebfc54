"""Every query that we publish: of the dashboard, the alerts, the scalers and the reference."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import yaml

from tests.conftest import ROOT
from tests.kit.promql.rules import alert_rules

DASHBOARD = ROOT / "deploy/monitoring/grafana/dashboards/afterword.json"
KEDA = ROOT / "deploy/kubernetes/components/keda/scalers.yaml"
ADAPTER = ROOT / "deploy/kubernetes/components/hpa/adapter-values.yaml"
REFERENCE = ROOT / "docs/reference/metrics.md"


def panel_queries() -> Iterator[tuple[str, str]]:
    """Yield the queries of the dashboard, each with the title of its panel."""
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        for target in panel.get("targets", ()):
            yield f"{panel['title']} {target['refId']}", target["expr"]


def keda_queries() -> Iterator[tuple[str, str, float]]:
    """Yield the signals of KEDA, each with its query and how much of it is for one worker."""
    for scaler in yaml.safe_load_all(KEDA.read_text()):
        for trigger in scaler["spec"]["triggers"]:
            given = trigger["metadata"]
            name = f"{scaler['metadata']['name'].removeprefix('afterword-')} {trigger['name']}"
            yield name, given["query"], float(given["threshold"])


def adapter_queries() -> Iterator[tuple[str, str]]:
    """Yield the external metrics of prometheus-adapter, each with its query."""
    for rule in yaml.safe_load(ADAPTER.read_text())["rules"]["external"]:
        yield rule["name"]["as"], rule["metricsQuery"]


def reference_queries() -> Iterator[tuple[str, str]]:
    """Yield the queries of the reference, each with its question."""
    table = REFERENCE.read_text().partition("| question | PromQL |")[2]
    yield from re.findall(r"^\| (.+\?) \| `(.+)` \|$", table, re.MULTILINE)


def all_queries() -> dict[str, str]:
    """Return every query by what it is for."""
    return {
        **dict(panel_queries()),
        **{rule.name: rule.query for rule in alert_rules().values()},
        **{name: query for name, query, _ in keda_queries()},
        **dict(adapter_queries()),
        **dict(reference_queries()),
    }
