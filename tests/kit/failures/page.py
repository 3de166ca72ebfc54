"""`python -m tests.kit.failures.page`: write the tables of `docs/explanation/failures.md` anew."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial

from tests.conftest import ROOT
from tests.kit.claude_api.failure_cases import CLAUDE_ROWS, answer_table
from tests.kit.failures.broker_rows import BROKER_ROWS
from tests.kit.failures.redis_rows import REDIS_ROWS
from tests.kit.failures.row import FailureRow, table
from tests.kit.mem0_api.failure_cases import (
    ANY_ROWS,
    EMBEDDED_ROWS,
    HOSTED_ROWS,
    SELFHOSTED_ROWS,
)

PAGE = ROOT / "docs/explanation/failures.md"

#: The rows of each failure table: what fails, then what happens to it.
ROWS: dict[str, tuple[str, Sequence[FailureRow]]] = {
    "claude": ("Claude", CLAUDE_ROWS),
    "memory": ("memory", ANY_ROWS),
    "hosted": ("mem0's platform", HOSTED_ROWS),
    "selfhosted": ("PostgreSQL or the model", SELFHOSTED_ROWS),
    "embedded": ("the file", EMBEDDED_ROWS),
    "broker": ("the broker", BROKER_ROWS),
    "redis": ("Redis", REDIS_ROWS),
}

#: Every generated table of the page, by its name.
TABLES: dict[str, Callable[[], list[str]]] = {
    **{name: partial(table, *named) for name, named in ROWS.items()},
    "claude_answers": answer_table,
}

_PART = re.compile(r"(<!-- generated: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def current(text: str) -> str:
    """Return the page with its tables made anew."""
    return _PART.sub(
        lambda part: "\n".join((part[1], *TABLES[part[2]](), "", part[3])),
        text,
    )


if __name__ == "__main__":
    PAGE.write_text(current(PAGE.read_text()))
