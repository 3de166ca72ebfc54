"""Checks that an error quotes nothing of what it was about."""

from __future__ import annotations

import traceback


def assert_quotes_nothing(error: BaseException, *secrets: str) -> None:
    """Fail if an error, its attributes or its traceback hold a secret, or if it has a cause."""
    assert error.__cause__ is None
    assert error.__context__ is None
    shown = f"{error!r} {''.join(traceback.format_exception(error))} {vars(error)}"
    assert [secret for secret in secrets if secret in shown] == []
