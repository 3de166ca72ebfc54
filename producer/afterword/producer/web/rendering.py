"""Makes pages out of templates. Everything that is shown is escaped, and every character seen."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from afterword.producer.admin import wording
from afterword.producer.admin.wording import (
    cause,
    duration,
    exact_duration,
    exact_time,
    step_facts,
    step_name,
    utc_time,
)
from afterword.shared.clock import utc_now
from afterword.shared.errors import JobNotFound
from afterword.shared.ledger.dead_letter_records import ReplayRun
from afterword.shared.names import check_job_id
from afterword.shared.plurals import quantity

_TEMPLATES = Path(__file__).parent / "templates"

#: Kept although they are not printable: what lays out a text, and what joins letters and emoji.
_KEPT = frozenset("\n\t\u200c\u200d")

_HIGH, _WIDE = 32, 240


def seen(value: Any) -> Any:
    """Return a text with every character that cannot be seen as its escape; others unchanged."""
    if not isinstance(value, str) or isinstance(value, Markup) or value.isprintable():
        return value
    return "".join(one if _can_be_seen(one) else _escaped(one) for one in value)


def _can_be_seen(one: str) -> bool:
    return one.isprintable() or one in _KEPT or unicodedata.category(one) == "Zs"


def _escaped(one: str) -> str:
    return one.encode("unicode_escape", "surrogatepass").decode("ascii")


def ago(moment: datetime | None) -> Markup:
    """Return how long ago something was, with the time itself to point at."""
    if moment is None:
        return Markup("-")
    seconds = (utc_now() - moment).total_seconds()
    text = f"{duration(seconds)} ago" if seconds >= 0 else f"in {duration(-seconds)}"
    return Markup('<time datetime="{}" title="{}">{}</time>').format(
        moment.isoformat(), clock(moment), text
    )


def clock(moment: datetime | None) -> str:
    """Return a point in time, in UTC."""
    return "-" if moment is None else utc_time(moment)


def number(value: float) -> str:
    """Return a number as people write it, with at most two decimals."""
    return f"{value:,.2f}".removesuffix(".00")


def details(values: Mapping[str, Any]) -> str:
    """Return the details of an audit entry, without those that say nothing."""
    shown = {name: value for name, value in values.items() if value}
    return ", ".join(
        f"{name}: {value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}"
        for name, value in shown.items()
    )


def run_state(run: ReplayRun) -> str:
    """Return the state of a run, and why it is so, as of now."""
    return wording.run_state(run, utc_now())


def is_job_id(value: str) -> bool:
    """Return whether a text is the id of a job."""
    try:
        return check_job_id(value) == value
    except JobNotFound:
        return False


def sparkline(values: Sequence[float], label: str) -> Markup:
    """Return a small line chart with its newest value at the right; nothing for a single value."""
    if len(values) < 2:  # noqa: PLR2004 a line has two ends
        return Markup('<p class="note">The line begins after two minutes.</p>')
    highest = max(values)
    step = _WIDE / (len(values) - 1)
    heights = [_HIGH - 2 - (value / highest if highest else 0) * (_HIGH - 4) for value in values]
    points = " ".join(f"{at * step:.1f},{height:.1f}" for at, height in enumerate(heights))
    return Markup(
        '<svg class="spark" viewBox="0 0 {wide} {high}" role="img" aria-label="{label}"'
        ' preserveAspectRatio="none"><polygon points="0,{high} {points} {wide},{high}"/>'
        '<polyline points="{points}"/></svg>'
    ).format(wide=_WIDE, high=_HIGH, points=points, label=label)


def _environment() -> Environment:
    made = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=seen,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(
        ago=ago, cause=cause, clock=clock, details=details, duration=duration, number=number,
        exact_duration=exact_duration, exact_time=exact_time, quantity=quantity,
        run_state=run_state,
        step_facts=step_facts, step_name=step_name,
    )  # fmt: skip
    made.tests["job_id"] = is_job_id
    made.globals["sparkline"] = sparkline
    return made


_PAGES = _environment()


def render(template: str, values: Mapping[str, Any]) -> str:
    """Return a page."""
    return _PAGES.get_template(template).render(values)
