"""The door of ids: what a caller passes as the id of a job."""

from __future__ import annotations

import re
from typing import Any

import pytest

from afterword.shared.errors import JobNotFound
from afterword.shared.names import check_job_id, new_job_id
from tests.kit.fuzz.broken import Broken, broken
from tests.kit.fuzz.doors import door


@door("job ids", thing=broken(new_job_id(0), objects=True))
def test_a_malformed_job_id_is_not_found(thing: Broken) -> None:
    value: Any = thing.value
    if isinstance(value, str) and re.fullmatch(r"j[0-9a-f]{2}_[0-9a-f]{32}", value):
        assert check_job_id(value) == value
        return
    with pytest.raises(JobNotFound) as found:
        check_job_id(value)
    assert len(str(found.value)) < 200
