"""What a worker says of itself: the models that it calls, and no others."""

from __future__ import annotations

import pytest

from afterword.shared.names import MEMORIES, REPLIES
from afterword.shared.settings import Settings
from afterword.workers.announcement import models_called


@pytest.mark.parametrize("memory", ["hosted", "selfhosted", "embedded", "off"])
@pytest.mark.parametrize("consumed", [{REPLIES}, {MEMORIES}, {REPLIES, MEMORIES}])
def test_a_worker_names_the_models_that_it_calls(memory: str, consumed: set[str]) -> None:
    settings = Settings().model_copy(
        update={
            "memory": memory,
            "model": "big",
            "fallback_models": ("middle",),
            "memory_model": "small",
        }
    )
    expected = ["big", "middle"] * (REPLIES in consumed)
    expected += ["small"] * (MEMORIES in consumed and memory == "selfhosted")
    assert models_called(settings, consumed) == expected


def test_one_model_for_both_is_named_once() -> None:
    settings = Settings().model_copy(
        update={"memory": "selfhosted", "model": "m", "memory_model": "m"}
    )
    assert models_called(settings, [REPLIES, MEMORIES]) == ["m"]
