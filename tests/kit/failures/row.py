"""One row of `docs/explanation/failures.md`: a failure, whose it is, and how it ends.

To add a section, such as "When memory fails":

1. Make the rows beside what plays them, say in `tests/kit/mem0_api/failure_rows.py`. `judged` makes
   the row of a `ProviderError` from what the retry policy and the gates do; build a `FailureRow`
   yourself only for what never becomes one.
2. Name them in `tests.kit.failures.page.ROWS`, and give the table a place in the page, under a
   heading: a line `<!-- generated: NAME -->` and a line `<!-- end -->`. Run `make reference`.
3. Test each row: give its list to `pytest.mark.parametrize`, or write a test for it alone. `test`
   names it; `tests/packaging/test_failures.py` looks whether it exists, and compares the page.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from afterword.shared.errors import AccessDenied, Fault, ProviderError, RateLimited
from afterword.shared.settings import WorkerSettings
from afterword.workers.ports import EventFailed
from afterword.workers.rules import retry_policy as policy
from afterword.workers.rules.retry_policy import Decision

Work = Literal["job", "turn"]

_NO_GATE = "none"
_CAP_S = WorkerSettings().pause_cap_s
_COLUMNS = ("code", "fault", "gate", "attempts spent", "the operator sees", "how it ends")

#: What the operator sees, by whose fault it is.
_SEEN = {
    Fault.PROVIDER: "a warning when the gate shuts",
    Fault.OPERATOR: "an error and a failing `doctor`",
    Fault.REQUEST: "a dead letter",
}

#: How it ends.
_ENDS: dict[tuple[Work, Fault, Decision], str] = {
    ("job", Fault.PROVIDER, Decision.SNOOZE): "the reply, after growing pauses",
    ("job", Fault.OPERATOR, Decision.SNOOZE): "the reply, within a minute of the repair",
    ("job", Fault.REQUEST, Decision.RETRY): "`restart` and the reply, or `failed`",
    ("job", Fault.REQUEST, Decision.GIVE_UP): "`failed`",
    ("turn", Fault.PROVIDER, Decision.SNOOZE): "stored, after growing pauses",
    ("turn", Fault.OPERATOR, Decision.SNOOZE): "stored, within a minute of the repair",
    ("turn", Fault.REQUEST, Decision.RETRY): "stored, or a dead letter",
    ("turn", Fault.REQUEST, Decision.GIVE_UP): "a dead letter",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureRow:
    """One way in which a service fails; every field but `test` is a column.

    `code` is empty if nobody is told one. `gate` says when a gate shuts, `attempts` how many are
    spent. `test` is `path::name` of the test that plays it.
    """

    what: str
    code: str
    fault: Fault
    gate: str = _NO_GATE
    attempts: str = "none"
    operator: str
    ends: str
    test: str

    @property
    def line(self) -> str:
        """The row in Markdown."""
        code = f"`{self.code}`" if self.code else ""
        cells = (self.what, code, self.fault, self.gate, self.attempts, self.operator, self.ends)
        return f"| {' | '.join(cells)} |"


def judged(
    what: str, error: ProviderError, *, test: str, work: Work = "job", gated: bool = True
) -> FailureRow:
    """Return the row of an error, as the retry policy and the gates judge it.

    `work` is what waits or fails for it; `gated` is false if no gate stands before that call.
    """
    verdict = policy.judge(error, attempt=1, most_attempts=3, tries=1, jitter=0, pause_cap_s=_CAP_S)
    ends = _ENDS[work, verdict.fault, verdict.decision]
    if error.retry_after_s and verdict.decision is Decision.SNOOZE:
        ends += f", {min(error.retry_after_s, _CAP_S):g} s at least"
    return FailureRow(
        what=what,
        code=verdict.code,
        fault=verdict.fault,
        gate=_gate(error) if gated else _NO_GATE,
        attempts="none" if verdict.decision is Decision.SNOOZE else "one",
        operator=_SEEN[verdict.fault],
        ends=ends,
        test=test,
    )


def _gate(error: ProviderError) -> str:
    if isinstance(error, AccessDenied | RateLimited):
        return "shuts"
    counts = error.fault is Fault.PROVIDER or isinstance(error, EventFailed)
    return "shuts after five" if counts else "stays open"


def table(subject: str, rows: Iterable[FailureRow]) -> list[str]:
    """Return a table whose first column is what `subject` does; equal lines stand once."""
    head = (f"what {subject} does", *_COLUMNS)
    return [
        f"| {' | '.join(head)} |",
        "|---" * len(head) + "|",
        *dict.fromkeys(row.line for row in rows),
    ]
