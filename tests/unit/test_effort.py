"""The effort requested from a model: low by default, and none from a model that refuses it."""

from __future__ import annotations

from typing import get_args, get_type_hints

import pytest
from anthropic.types import OutputConfigParam

from afterword.shared.settings import ReplySettings
from afterword.workers.adapters.claude.client import Effort, EffortSetting, effort_for


@pytest.mark.parametrize(
    ("setting", "model", "effort"),
    [
        ("auto", "claude-sonnet-5-5", "low"),
        ("auto", "claude-haiku-5-5", "low"),
        ("auto", "claude-sonnet-5", "low"),
        ("auto", "claude-opus-5-5-20261001", "low"),
        ("auto", "claude-haiku-4-5", None),
        ("auto", "claude-sonnet-4-5-20250929", None),
        ("auto", "claude-3-5-haiku-20241022", None),
        ("auto", "a-model-of-ours", None),
        ("none", "claude-sonnet-5-5", None),
        ("high", "claude-haiku-4-5", "high"),
        ("xhigh", "claude-opus-5-5", "xhigh"),
        ("max", "claude-opus-5-5", "max"),
    ],
)
def test_effort_by_setting_and_model(
    setting: EffortSetting, model: str, effort: Effort | None
) -> None:
    assert effort_for(setting, model) == effort


@pytest.mark.finding(10)
def test_every_effort_that_the_sdk_knows_can_be_set() -> None:
    known = set(get_args(get_args(get_type_hints(OutputConfigParam)["effort"])[0]))
    assert known == set(get_args(Effort))
    offered = set(get_args(ReplySettings.model_fields["effort"].annotation))
    assert offered == set(get_args(EffortSetting)) == known | {"auto", "none"}
