"""The door of the environment: whatever stands in a variable that we read."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import strategies as st
from redis.asyncio import Redis

from afterword.shared.broker import broker_address
from afterword.shared.environment import PREFIX, variable
from afterword.shared.errors import Misconfigured
from afterword.shared.servers import is_cluster, ledger_urls, server_url
from afterword.shared.settings import Settings
from afterword.shared.urls import HTTP, LEDGER, POSTGRES, REDIS
from afterword.workers.local_stack import environment
from tests.kit.fuzz.broken import EXTREMES, Broken, broken
from tests.kit.fuzz.doors import door

CANARY = "marmalade"

#: A valid value of every setting.
VALID = {
    variable(name): str(info.default)
    for name, info in Settings.model_fields.items()
    if not info.is_required() and info.default_factory is None and info.default is not None
} | {
    "AFTERWORD_BROKER_URL": f"redis://u:{CANARY}@h:5672/1",
    "AFTERWORD_BUDGETS": '{"*": {"user_usd": 5}, "acme": {"tenant_usd": 80}}',
    "AFTERWORD_TENANT_CLASSES": '{"acme": "enterprise", "*": "free"}',
    "AFTERWORD_DATA_DIR": "/data",
    "AFTERWORD_STATE_DIR": "/state",
    "AFTERWORD_EMBEDDER_CONFIG": f'{{"key": "{CANARY}"}}',
    "AFTERWORD_FALLBACK_MODELS": "one,two",
    "AFTERWORD_METRICS_LISTEN": "127.0.0.1:9464",
    "AFTERWORD_METRICS_TOKEN": CANARY,
    "AFTERWORD_MODEL_PRICES": '{"claude": [1, 2.5]}',
    "AFTERWORD_REDACTED_KINDS": "card_number,iban",
    "AFTERWORD_REDACTION_BY_TENANT": '{"acme": "refuse"}',
    "AFTERWORD_REDACTOR": "package.module:Class",
    "AFTERWORD_STORY_RETENTION_S": "604800",
    "AFTERWORD_TRACES": "true",
    "AFTERWORD_POSTGRES_URL": f"postgresql://u:{CANARY}@h:5432/d?sslmode=require",
    "AFTERWORD_SYSTEM_PROMPT": "Be kind.",
    "AFTERWORD_REDIS_URL": f"rediss://u:{CANARY}@h:1/0?ssl_cert_reqs=none",
    "ANTHROPIC_API_KEY": f"sk-{CANARY}",
    "ANTHROPIC_BASE_URL": "http://h",
    "MEM0_API_KEY": f"m0-{CANARY}",
    "MEM0_HOST": "http://h",
}

#: What an environment can hold: text, and bytes that are none as lone surrogates.
TEXTS = (
    st.sampled_from([str(one)[:5000] for one in EXTREMES])
    | st.text(max_size=60)
    | st.text(alphabet="redis:/u@h?#%[]0=&1,{}\"'.-+_ \udcff\x1b\n", max_size=40)
)


def check(environ: dict[str, str]) -> None:
    """Load the settings: they work, or one line names the variable and repeats no secret."""
    try:
        settings = Settings.load(environ)
    except Misconfigured as error:
        refused = error
    else:
        check_usable(settings)
        return
    assert refused.setting in environ
    assert CANARY not in str(refused)
    assert refused.setting.startswith(PREFIX) or refused.setting in environ
    assert refused.reason.isprintable()


def check_usable(settings: Settings) -> None:
    again = Settings.load(environment.from_settings(settings))
    assert again == settings
    shown = repr(settings.model_copy(update={"anthropic_base_url": ""}))  # it holds no secret
    assert CANARY not in shown
    if settings.redis_url is not None:
        roomy = settings.model_copy(update={"shards": 256})
        assert [Redis.from_url(server_url(url)) for url in ledger_urls(roomy)]
        if not is_cluster(settings) or settings.broker_url:
            assert broker_address(settings)


@pytest.mark.finding(15)
@door("environment", inputs=1000, setting=st.sampled_from(sorted(VALID)), text=TEXTS)
def test_a_variable_works_or_is_refused_by_its_name(setting: str, text: str) -> None:
    check(VALID | {setting: text.replace("\0", "")})


def test_the_valid_values_are_valid() -> None:
    assert VALID.keys() == set(map(variable, Settings.model_fields)), "each setting has one"
    check_usable(Settings.load(VALID))


@door("names of settings", environ=broken({"AFTERWORD_MODEL": "m", "AFTERWORD_SHARDS": "1"}))
def test_a_name_is_known_or_refused(environ: Broken) -> None:
    value: Any = environ.value
    if isinstance(value, dict) and all(isinstance(one, str) for one in value.values()):
        check(value)


@pytest.mark.finding(15)
@door(
    "URLs",
    inputs=1000,
    forms=st.sampled_from([
        ("AFTERWORD_REDIS_URL", LEDGER), ("AFTERWORD_BROKER_URL", REDIS),
        ("AFTERWORD_POSTGRES_URL", POSTGRES), ("ANTHROPIC_BASE_URL", HTTP),
    ]),
    parts=st.lists(
        st.sampled_from(
            [CANARY, "u", ":", "@", "/", "?", "#", "h", "99999", "1", "%2F", "%", "[::1]", ",",
             "db=1", "&", "ssl_cert_reqs=none", "x=", " ", "\n", "\udcff", "é"]
        ),
        max_size=12,
    ),
)  # fmt: skip
def test_a_url_works_or_is_refused_without_a_word_of_it(forms: Any, parts: list[str]) -> None:
    name, schemes = forms
    for scheme in schemes:
        check({name: f"{scheme}://{''.join(parts)}"})
