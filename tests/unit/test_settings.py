"""Settings: read from the environment, refused by name, silent about secrets."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from afterword.shared.contracts import Usage
from afterword.shared.environment import FOREIGN, PREFIX, variable
from afterword.shared.errors import Misconfigured
from afterword.shared.memory_place import memory_place
from afterword.shared.prices import micro_usd
from afterword.shared.setting_types import MOST_PRICE
from afterword.shared.settings import RECORDS, Settings, table
from afterword.workers.adapters.claude.reported import MOST_TOKENS

SECRET = "marmalade"


def load(**environ: str) -> Settings:
    return Settings.load(environ)


def refused(name: str, value: str) -> str:
    with pytest.raises(Misconfigured) as caught:
        Settings.load({name: value})
    assert caught.value.setting == name
    assert str(caught.value).startswith(f"{name}: ")
    return str(caught.value)


def test_without_an_environment_the_defaults_hold() -> None:
    settings = load()

    assert settings.redis_url is None
    assert settings.backend == "embedded"
    assert settings.submit_timeout_s == 2.0


def test_our_names_have_our_prefix_and_theirs_are_theirs() -> None:
    settings = load(
        AFTERWORD_RECALL_TOP_K="7", ANTHROPIC_API_KEY="k", MEM0_HOST="http://h:1/", PATH="/bin"
    )

    assert settings.recall_top_k == 7
    assert settings.anthropic_api_key is not None
    assert settings.anthropic_api_key.get_secret_value() == "k"
    assert settings.mem0_host == "http://h:1"


def test_an_empty_foreign_variable_is_as_good_as_none() -> None:
    assert load(ANTHROPIC_API_KEY="", MEM0_API_KEY="").backend == "embedded"


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("AFTERWORD_REDIS_ULR", "AFTERWORD_REDIS_URL"),
        ("AFTERWORD_RECALL_TOPK", "AFTERWORD_RECALL_TOP_K"),
        ("AFTERWORD_MODELL", "AFTERWORD_MODEL"),
        ("AFTERWORD_redis_url", "AFTERWORD_REDIS_URL"),
        ("AFTERWORD_ANTHROPIC_API_KEY", "ANTHROPIC_API_KEY"),
    ],
)
def test_a_name_that_is_misspelt_is_refused_with_the_nearest(wrong: str, right: str) -> None:
    assert f"did you mean {right}?" in refused(wrong, SECRET)


def test_a_name_like_no_other_is_refused_all_the_same() -> None:
    assert "did you mean" not in refused("AFTERWORD_XXXXXXXXXXXXXXXXXXXXXXXXX", "1")


#: What Kubernetes 1.31 sets for a Service `afterword-redis` with one named port, and for one that
#: is called as the prefix alone.
SERVICE_LINKS = {
    "AFTERWORD_REDIS_SERVICE_HOST": "10.0.0.11",
    "AFTERWORD_REDIS_SERVICE_PORT": "6379",
    "AFTERWORD_REDIS_SERVICE_PORT_REDIS": "6379",
    "AFTERWORD_REDIS_PORT": "tcp://10.0.0.11:6379",
    "AFTERWORD_REDIS_PORT_6379_TCP": "tcp://10.0.0.11:6379",
    "AFTERWORD_REDIS_PORT_6379_TCP_PROTO": "tcp",
    "AFTERWORD_REDIS_PORT_6379_TCP_PORT": "6379",
    "AFTERWORD_REDIS_PORT_6379_TCP_ADDR": "10.0.0.11",
    "AFTERWORD_PORT": "tcp://10.0.0.12:80",
    "AFTERWORD_SERVICE_HOST": "10.0.0.12",
    "AFTERWORD_DNS_PORT_53_UDP_ADDR": "10.0.0.13",
}


def test_service_links_of_kubernetes_are_ignored(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", "afterword")
    assert load(**SERVICE_LINKS, AFTERWORD_RECALL_TOP_K="7") == load(AFTERWORD_RECALL_TOP_K="7")
    assert {record.levelname for record in caplog.records} == {"DEBUG"}
    assert all(name in caplog.text for name in SERVICE_LINKS)
    assert "10.0.0.1" not in caplog.text


@pytest.mark.parametrize(
    "name",
    [
        "AFTERWORD_REDIS_SERVICE", "AFTERWORD_REDIS_HOST", "AFTERWORD_REDIS_PORTS",
        "AFTERWORD_REDIS_PORT_6379", "AFTERWORD_REDIS_PORT_X_TCP",
        "AFTERWORD_REDIS_PORT_6379_TCP_NAME", "AFTERWORD_redis_SERVICE_HOSTS",
    ],
)  # fmt: skip
def test_a_name_that_only_resembles_a_service_link_is_refused(name: str) -> None:
    refused(name, "1")


def test_fallback_models_are_separated_by_commas() -> None:
    assert load().fallback_models == load(AFTERWORD_FALLBACK_MODELS="").fallback_models == ()
    assert load(AFTERWORD_FALLBACK_MODELS=" a, b ").fallback_models == ("a", "b")
    assert load(AFTERWORD_MODEL="c", AFTERWORD_FALLBACK_MODELS="a").fallback_models == ("a",)


def test_a_fallback_model_is_another_model() -> None:
    for value in ("a,a", "a,,b", ","):
        refused("AFTERWORD_FALLBACK_MODELS", value)
    with pytest.raises(Misconfigured, match="AFTERWORD_FALLBACK_MODELS"):
        load(AFTERWORD_MODEL="a", AFTERWORD_FALLBACK_MODELS="b,a")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("redis_url", "localhost:6379"), ("redis_url", "http://h"), ("redis_url", ""),
        ("namespace", "With Space"), ("namespace", "a:b"), ("namespace", "a" * 33),
        ("namespace", "{a}"), ("namespace", ""), ("shards", "0"), ("shards", "257"),
        ("shards", "many"), ("durability", "d4"), ("memory", "on"),
        ("recall_budget_ms", "0"), ("recall_budget_ms", "1.5"), ("recall_top_k", "0"),
        ("recall_top_k", "101"), ("recall_min_score", "1.1"), ("recall_min_score", "nan"),
        ("model", ""), ("max_tokens", "0"), ("history_turns", "-1"), ("lease_s", "0"),
        ("lease_s", "inf"), ("lease_s", "nan"), ("submit_timeout_s", "-1"), ("max_queued", "0"),
        ("concurrency", "x"), ("log_level", "loud"), ("anthropic_base_url", "claude.local"),
        ("mem0_host", "ftp://h"), ("mem0_host", "http://"),
    ],
)  # fmt: skip
def test_a_value_that_cannot_work_is_refused_by_its_variable(field: str, value: str) -> None:
    if variable(field) in FOREIGN and not value:
        return
    refused(variable(field), value)


URLS = ("AFTERWORD_REDIS_URL", "ANTHROPIC_BASE_URL", "MEM0_HOST")


@pytest.mark.parametrize("name", URLS)
@pytest.mark.parametrize(
    "value",
    [
        f"{SECRET}", f"ftp://:{SECRET}@h", f"http:/{SECRET}", f"redis//:{SECRET}@h",
        f"http://[{SECRET}", f"http://u:{SECRET}\u2100@h/", f"redis://:{SECRET}\u2100@h/",
    ],
)  # fmt: skip
def test_no_refusal_repeats_an_address(name: str, value: str) -> None:
    assert SECRET not in refused(name, value)


@given(
    field=st.sampled_from(sorted(set(Settings.model_fields) - {"data_dir"})),
    noise=st.text(alphabet=st.characters(exclude_characters="\x00"), max_size=8),
)
def test_no_refusal_repeats_a_value(field: str, noise: str) -> None:
    refusal = ""
    try:
        Settings.load({variable(field): f"{SECRET}{noise}"})
    except Misconfigured as error:
        refusal = str(error)

    assert SECRET not in refusal
    assert not refusal or refusal.startswith(f"{variable(field)}: ")


def test_secrets_never_show() -> None:
    settings = load(
        ANTHROPIC_API_KEY=SECRET,
        MEM0_API_KEY=SECRET,
        AFTERWORD_REDIS_URL=f"redis://user:{SECRET}@h/0",
        AFTERWORD_BROKER_URL=f"rediss://user:{SECRET}@h/0",
    )

    assert SECRET not in repr(settings)
    assert SECRET not in str(settings)


@pytest.mark.parametrize(
    ("environ", "backend"),
    [
        ({}, "embedded"),
        ({"MEM0_API_KEY": "k"}, "hosted"),
        ({"MEM0_API_KEY": "k", "AFTERWORD_MEMORY": "off"}, "off"),
        ({"AFTERWORD_MEMORY": "selfhosted"}, "selfhosted"),
        ({"AFTERWORD_MEMORY": "hosted"}, "hosted"),
    ],
)
def test_the_memory_backend_follows_the_key_unless_it_is_named(
    environ: dict[str, str], backend: str
) -> None:
    assert Settings.load(environ).backend == backend


def test_a_memory_is_known_by_its_address_and_tells_no_secret() -> None:
    def seen(**environ: str) -> tuple[str, str]:
        return memory_place(Settings.load(environ))

    hosted = {"AFTERWORD_MEMORY": "hosted", "MEM0_API_KEY": "m0-key"}
    assert seen(AFTERWORD_MEMORY="off") == ("off", "")
    assert seen(**hosted) == seen(**hosted | {"MEM0_API_KEY": "m0-another"})
    assert seen(**hosted) != seen(**hosted, MEM0_HOST="https://elsewhere")
    assert seen(**hosted, AFTERWORD_MEMORY_OWNER="user")[0] == "hosted, owners are user ids"
    assert seen(AFTERWORD_DATA_DIR="/a") != seen(AFTERWORD_DATA_DIR="/b")

    def postgres(login: str, database: str) -> tuple[str, str]:
        url = f"postgresql://{login}@db:5432/{database}"
        return seen(AFTERWORD_MEMORY="selfhosted", AFTERWORD_POSTGRES_URL=url)

    assert postgres("ann:pw", "memories") == postgres("bob:other", "memories")
    assert postgres("ann:pw", "memories") != postgres("ann:pw", "another")


@pytest.mark.parametrize(("text", "kept"), [("  ", None), ("", None), (" Be kind. ", "Be kind.")])
def test_a_blank_system_prompt_is_none(text: str, kept: str | None) -> None:
    assert load(AFTERWORD_SYSTEM_PROMPT=text).system_prompt == kept


def test_the_data_folder_follows_the_desktop_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", "/data")

    assert str(load().data_dir) == "/data/afterword"


def test_every_setting_is_in_the_table_once_with_its_meaning() -> None:
    rows = [row for row in table().splitlines() if row.startswith("| `")]
    names = [row.split("`")[1] for row in rows]

    assert sorted(names) == sorted(map(variable, Settings.model_fields))
    assert all(name.startswith(PREFIX) or name in FOREIGN for name in names)
    assert all(len(row.rsplit(" | ", 1)[1]) > 12 for row in rows)


def test_no_two_records_have_a_setting_of_one_name() -> None:
    assert sum(len(one.model_fields) for one in RECORDS) == len(Settings.model_fields)


def test_model_prices_are_pairs_by_model() -> None:
    assert load().model_prices == load(AFTERWORD_MODEL_PRICES="").model_prices == {}
    prices = load(AFTERWORD_MODEL_PRICES='{"claude-haiku": [0.1, 0.5]}').model_prices
    assert prices == {"claude-haiku": (0.1, 0.5)}
    for value in ("0.1", "[]", "{", '{"a": 1}', '{"a": [1]}', '{"a": [1, -1]}', '{"a": [1, 2, 3]}'):
        assert "must be a JSON object of models" in refused("AFTERWORD_MODEL_PRICES", value)


def test_a_price_is_bounded_so_that_what_an_answer_costs_can_be_counted() -> None:
    assert "up to 1,000,000" in refused("AFTERWORD_MODEL_PRICES", '{"a": [1e300, 1]}')
    tokens = Usage(**dict.fromkeys(Usage.model_fields, MOST_TOKENS))
    dearest = {"a": (float(MOST_PRICE), float(MOST_PRICE))}
    assert micro_usd([("a", tokens)], dearest) < 2**53


@pytest.mark.parametrize("nested", ["[" * 100_000, '{"a":' * 50_000])
@pytest.mark.parametrize("name", [variable(one) for one in Settings.model_fields])
def test_json_of_any_depth_is_text_or_refused(name: str, nested: str) -> None:
    with suppress(Misconfigured):
        load(**{name: nested})
