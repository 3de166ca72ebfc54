"""The environment of the stack's services: the settings that each needs and no others."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import afterword
from afterword.shared.names import MEMORIES, REPLIES
from afterword.shared.settings import Settings
from afterword.workers.local_stack import environment
from afterword.workers.local_stack.services import MODEL, VALKEY, service_names

EVERY_KIND = {
    "ANTHROPIC_API_KEY": "k-1",
    "ANTHROPIC_BASE_URL": "http://127.0.0.1:1",
    "AFTERWORD_BROKER_URL": "redis://elsewhere",
    "AFTERWORD_BUDGETS": '{"acme": {"tenant_usd": 8.5}, "*": {"user_usd": 0}}',
    "AFTERWORD_TENANT_CLASSES": '{"acme": "enterprise"}',
    "AFTERWORD_DATA_DIR": "/somewhere/else",
    "AFTERWORD_EMBEDDER_CONFIG": '{"model": "m"}',
    "AFTERWORD_EXTRACTION": "batch",
    "AFTERWORD_FALLBACK_MODELS": "first, second",
    "AFTERWORD_METRICS_LISTEN": "[::1]:9464",
    "AFTERWORD_MODEL_PRICES": '{"first": [1, 2.5]}',
    "AFTERWORD_POSTGRES_URL": "postgresql://u:p%2Fw@db/memories",
    "AFTERWORD_PIN_EXTRACTION": "false",
    "AFTERWORD_RECALL_MIN_SCORE": "0.25",
    "AFTERWORD_STORY_RETENTION_S": "604800",
    "AFTERWORD_REDACTION_BY_TENANT": '{"acme": "refuse", "a:b": "off"}',
    "AFTERWORD_REDACTOR": "package.module:Class",
    "AFTERWORD_REDIS_URL": "redis://127.0.0.1:1/0",
    "AFTERWORD_RECALL_TOP_K": "7",
    "AFTERWORD_SYSTEM_PROMPT": " Be kind.\nBe brief. ",
}


def test_settings_go_through_an_environment_unchanged() -> None:
    settings = Settings.load(EVERY_KIND)
    again = Settings.load(environment.from_settings(settings))
    assert again == settings
    assert again.model_fields_set == settings.model_fields_set


def test_every_kind_of_setting_is_among_those() -> None:
    kinds = {str(field.annotation) for field in Settings.model_fields.values()}
    tried = {
        str(Settings.model_fields[name].annotation)
        for name in Settings.load(EVERY_KIND).model_fields_set
    }
    assert {kind for kind in kinds - tried if "Literal" not in kind} == set()


def test_an_empty_setting_stays_unset() -> None:
    assert environment.from_settings(Settings.load({"AFTERWORD_SYSTEM_PROMPT": " "})) == {}


def test_no_setting_and_no_key_is_left_in_the_environment_without_settings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in EVERY_KIND.items():
        monkeypatch.setenv(name, value)
    assert not EVERY_KIND.keys() & environment.without_settings().keys()


def test_our_packages_can_be_imported_from_any_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    roots = os.pathsep.join(str(Path(part).parent) for part in afterword.__path__)
    monkeypatch.delenv("PYTHONPATH")
    assert environment.without_settings().get("PYTHONPATH") in (roots, None)
    monkeypatch.setenv("PYTHONPATH", "one")
    assert environment.without_settings()["PYTHONPATH"].split(os.pathsep)[-1] == "one"


@pytest.mark.parametrize(
    ("environ", "needed"),
    [
        ({}, [VALKEY, MODEL, REPLIES, MEMORIES]),
        ({"AFTERWORD_REDIS_URL": "redis://r"}, [MODEL, REPLIES, MEMORIES]),
        ({"ANTHROPIC_API_KEY": "k"}, [VALKEY, REPLIES, MEMORIES]),
        ({"ANTHROPIC_BASE_URL": "http://127.0.0.1:1"}, [VALKEY, REPLIES, MEMORIES]),
        ({"MEM0_API_KEY": "m"}, [VALKEY, MODEL, REPLIES, MEMORIES]),
        ({"AFTERWORD_MEMORY": "off"}, [VALKEY, MODEL, REPLIES]),
    ],
)
def test_only_services_the_user_has_not_configured_run_here(
    environ: dict[str, str], needed: list[str]
) -> None:
    assert service_names(Settings.load(environ)) == needed
