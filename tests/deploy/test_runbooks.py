"""Each alert has its runbook: what it means, where to look, what to do, with names that exist."""

from __future__ import annotations

import re

import pytest

from afterword.producer.cli.main import cli
from tests.conftest import ROOT
from tests.kit.promql.evaluate import selectors
from tests.kit.promql.rules import alert_rules

RULES = alert_rules()
PAGE = (ROOT / "docs/how-to/runbooks.md").read_text()
SECTIONS = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))
REFERENCE = (ROOT / "docs/reference/metrics.md").read_text()
KNOWN = set(re.findall(r"^\| `(afterword_\w+)` \|", REFERENCE, re.MULTILINE))


def plain(metric: str) -> str:
    """Return the name by which the reference has a metric."""
    return re.sub(r"_(bucket|count|sum)$", "", metric)


def test_every_alert_has_a_section_and_every_section_an_alert() -> None:
    assert list(SECTIONS) == list(RULES)


@pytest.mark.parametrize("name", RULES)
def test_an_alert_leads_to_its_runbook(name: str) -> None:
    rule = RULES[name]
    page, _, anchor = rule.annotations["runbook_url"].partition("/how-to/runbooks/#")
    assert (page, anchor) == ("https://example.com/afterword", name.lower())
    assert rule.annotations["summary"].endswith(".")
    assert SECTIONS[name].strip().startswith(f"{rule.labels['severity'].capitalize()}. **Means:**")


@pytest.mark.parametrize("name", RULES)
def test_a_runbook_says_where_to_look_and_what_to_do(name: str) -> None:
    section = SECTIONS[name]
    assert re.search(r"\*\*Look(:\*\*|\*\* and \*\*do\*\*)", section)
    assert re.search(r"\*\*(Do:|do)\*\*", section)
    commands = re.findall(r"`(?:afterword)\s([a-z]+)", section)
    assert [one for one in commands if one not in cli.commands] == []
    metrics = {plain(one) for one in re.findall(r"`(afterword_\w+)`", section)}
    assert metrics - KNOWN == set()
    assert metrics & {plain(metric) for metric, _ in selectors(RULES[name].query)}, (
        "it names what the alert reads"
    )
