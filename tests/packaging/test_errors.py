"""The reference gives every error of the producer, and its HTTP status as the error itself does."""

from __future__ import annotations

import inspect
import re

import pytest

from afterword import producer
from afterword.producer import (
    AfterwordError,
    InvalidRequest,
    JobFailed,
    JobNotFound,
    MemoriesUnavailable,
    MemoryNotFound,
    Misconfigured,
    NewerRecord,
    NoReplyInTime,
    QueueFull,
)
from afterword.shared.caps import CAPS
from tests.conftest import ROOT

PAGE = (ROOT / "docs/reference/errors.md").read_text()

#: What an error is made with, if it needs anything.
_MADE_WITH: dict[type[AfterwordError], tuple[object, ...]] = {
    InvalidRequest: ("field", "reason"),
    Misconfigured: ("AFTERWORD_REDIS_URL", "reason"),
    JobNotFound: ("job",),
    NewerRecord: ("job",),
    NoReplyInTime: ("job", 1.0),
    JobFailed: ("job", "failed", "rejected"),
    MemoriesUnavailable: ("no_worker",),
    MemoryNotFound: ("memory",),
}

ERRORS = {
    name: error
    for name, error in vars(producer).items()
    if inspect.isclass(error) and issubclass(error, AfterwordError)
}


def rows(heading: str) -> dict[str, list[str]]:
    """Return the cells of a table under a heading, by its first cell without quotes."""
    section = PAGE.partition(f"# {heading}\n")[2].partition("\n## ")[0]
    found = re.findall(r"^\| ([^|]+) \|(.+)\|$", section, re.MULTILINE)
    return {
        first.strip("` "): [cell.strip() for cell in rest.split("|")]
        for first, rest in found
        if first not in {"error", "code"}
    }


def answered(error: AfterwordError) -> str:
    """Return the status of an error and its headers, in the words of the table."""
    retried = error.http_headers == {"Retry-After": "1"}
    assert retried or not error.http_headers
    return f"{error.http_status}{' with `Retry-After`' if retried else ''}"


def test_every_error_is_listed() -> None:
    assert set(rows("Errors")) == set(ERRORS)


@pytest.mark.parametrize("name", sorted(set(ERRORS) - {"JobFailed", "QueueFull"}))
def test_the_status_of_an_error_is_the_one_that_is_listed(name: str) -> None:
    error = ERRORS[name](*_MADE_WITH.get(ERRORS[name], ()))
    assert rows("Errors")[name][-1] == answered(error)


def test_a_full_queue_is_too_many_requests_of_somebody_or_a_full_ledger() -> None:
    own = {answered(QueueFull(scope=scope)) for scope, *_ in CAPS.values() if scope != "ledger"}
    assert len(own) == 1
    said = f"{own.pop()}; {answered(QueueFull())} for everybody's"
    assert rows("Errors")["QueueFull"][-1] == said


def test_the_status_of_a_failed_job_is_the_one_that_is_listed() -> None:
    listed = rows("How a job fails")
    others = listed.pop("any other")
    assert answered(JobFailed("job", "failed", "overloaded")) == others[-1]
    for code, (state, _, status) in listed.items():
        assert answered(JobFailed("job", state, code)) == status, code
    assert answered(JobFailed("job", "expired", "overloaded")) == listed["deadline"][-1]


def test_the_words_for_memories_that_are_not_available_are_documented_and_said() -> None:
    from afterword.shared.errors import _NO_MEMORIES

    table = PAGE.partition("## Why memories are not available")[2].partition("\n## ")[0]
    for code, words in _NO_MEMORIES.items():
        assert f"| `{code}` |" in table
        assert f"{words} ({code})" in str(MemoriesUnavailable(code))
    assert "available: mem0 is away or refuses (key_refused);" in str(
        MemoriesUnavailable("key_refused")
    )


def test_the_text_of_an_error_says_nothing_twice_and_names_what_is_empty() -> None:
    assert str(JobFailed("j1", "cancelled", "cancelled")) == "job j1 cancelled"
    assert str(JobFailed("j1", "expired", "deadline")) == "job j1 expired: deadline"
    assert str(JobNotFound("")).startswith("an empty id is not known")
