"""URLs: one strict grammar, and no password that any refusal, command or log could print."""

from __future__ import annotations

import string
from collections.abc import Iterator
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kombu import Connection
from redis.asyncio import Redis

from afterword.shared.broker import broker_address, make_app
from afterword.shared.environment import check_proxies
from afterword.shared.errors import Misconfigured
from afterword.shared.servers import broker_url, ledger_urls, locator, node_url, server_url
from afterword.shared.settings import Settings
from afterword.shared.urls import (
    HTTP,
    LEDGER,
    POSTGRES,
    PROXY,
    REDIS,
    Forms,
    parse_ledger,
    parse_url,
)
from tests.kit.command_line import afterword

CANARY = "marmalade"
FORMS = {
    "AFTERWORD_REDIS_URL": LEDGER,
    "AFTERWORD_BROKER_URL": REDIS,
    "AFTERWORD_POSTGRES_URL": POSTGRES,
    "ANTHROPIC_BASE_URL": HTTP,
    "MEM0_HOST": HTTP,
}
CASES = [(name, scheme) for name, forms in FORMS.items() for scheme in forms]

#: Commands that read every setting before they do anything.
COMMANDS = (
    ("account",), ("audit",), ("chat",), ("dead", "abort", "r"), ("dead", "discard", "--all"),
    ("dead", "export"), ("dead", "list"), ("dead", "replay", "--all"), ("dead", "resume", "r"),
    ("dead", "runs"), ("dead", "show", "j"), ("doctor",), ("forget", "ann"),
    ("healthcheck", "responses"), ("quarantine", "clear"), ("quarantine", "list"), ("reconcile",),
    ("restored",), ("status",), ("submit", "hello", "--user", "ann"), ("up",), ("usage",),
    ("worker", "responses"),
)  # fmt: skip


def error(name: str, value: str) -> Misconfigured | None:
    try:
        Settings.load({name: value})
    except Misconfigured as refused:
        return refused
    return None


def refusal(forms: Forms, text: str) -> str:
    with pytest.raises(ValueError, match=r".") as refused:
        parse_url(text, forms)
    assert refused.value.__cause__ is None
    return str(refused.value)


def with_the_canary_everywhere(scheme: str) -> Iterator[str]:
    """Yield URLs that hold a secret in each of their places, unquoted and in bad company."""
    for noise in ("/", "?", "#", "@", " ", "%", "%zz", "[", "]", "\\", "\n", "\x1b", "é", ":", "^"):
        secret = f"pa{noise}{CANARY}"
        yield f"{scheme}://user:{secret}@host:1234/0"
        yield f"{scheme}://{secret}:word@host:1234/0"
        yield f"{scheme}://user:{CANARY}@ho{noise}st:12{noise}34/0?nonsense=1"
        yield f"{scheme}://user:12{noise}{CANARY}@host"
    for text in (
        f"user:{CANARY}@host:99999/0", f"user:{CANARY}@host:0/0", f"user:{CANARY}@host:x/0",
        f"user:{CANARY}@/0?no_such_option=1", f"user:{CANARY}@host?socket_timeout={CANARY}",
        f"user:{CANARY}@host/0?{CANARY}@x", f"user:{CANARY}@host/a/b/c?db={CANARY}",
        f"user:{CANARY}@[::g]/0#x", f"user:{CANARY}@[::::]/0?x=1", f"user:{CANARY}@a,,b/?x=1",
        f"user:%ff{CANARY}@host/", f"host/?x%ff={CANARY}", f"host/?db=1&db={CANARY}",
    ):  # fmt: skip
        yield f"{scheme}://{text}"


@pytest.mark.finding(15)
@pytest.mark.parametrize(("name", "scheme"), CASES)
def test_no_place_of_a_url_is_repeated_by_its_refusal(name: str, scheme: str) -> None:
    refusals = [found for url in with_the_canary_everywhere(scheme) if (found := error(name, url))]

    assert len(refusals) >= 60
    assert {found.setting for found in refusals} == {name}
    assert [found for found in refusals if found.__cause__ is not None] == []
    assert [str(found) for found in refusals if CANARY in str(found) or "\n" in str(found)] == []


@pytest.mark.finding(15)
@pytest.mark.parametrize("argv", COMMANDS, ids=" ".join)
def test_no_command_prints_a_password(argv: tuple[str, ...]) -> None:
    for name, scheme in CASES:
        url = f"{scheme}://user:pa/{CANARY}@host:1234/0"
        printed = afterword(*argv, env={name: url})
        assert printed.code == (1 if argv == ("doctor",) else 2)
        assert CANARY not in printed.everything
        assert name in printed.everything
        assert "percent-encode" in printed.everything or FORMS[name] is HTTP
        assert len(printed.everything.splitlines()) <= 2, "one line, and one of what to do"


@pytest.mark.finding(15)
@pytest.mark.parametrize("argv", COMMANDS, ids=" ".join)
def test_no_command_prints_the_password_of_a_server_that_is_away(argv: tuple[str, ...]) -> None:
    if argv[0] in ("up", "worker"):
        pytest.skip("it starts processes")
    login = f"user:{CANARY}@127.0.0.1:1"
    env = {
        "AFTERWORD_REDIS_URL": f"redis://{login}/0",
        "AFTERWORD_BROKER_URL": f"redis://{login}",
        "AFTERWORD_POSTGRES_URL": f"postgresql://{login}/db",
        "AFTERWORD_SUBMIT_TIMEOUT_S": "0.2",
        "AFTERWORD_MEMORY": "off",
        # Doctor would wait ten seconds for Claude.
        "ANTHROPIC_API_KEY": "" if argv == ("doctor",) else f"sk-{CANARY}",
        "MEM0_API_KEY": f"m0-{CANARY}",
    }
    printed = afterword(*argv, env=env, said="hello\n")
    assert printed.code == (0 if argv == ("chat",) else 1)
    assert CANARY not in printed.everything
    assert "Traceback" not in printed.everything


@pytest.mark.finding(15)
@pytest.mark.parametrize("bad", ["/", "?", "#", "@"])
def test_a_refusal_says_which_character_of_a_password_to_quote(bad: str) -> None:
    said = refusal(REDIS, f"redis://:pass{bad}word@host:6379/0")
    assert "percent-encode" in said
    assert quote(bad, safe="") in said


@pytest.mark.parametrize(
    ("forms", "url", "reason"),
    [
        (REDIS, "host:6379", "must begin with redis://, rediss://, unix://, redis+sentinel://"),
        (REDIS, "REDIS://host", "must begin with"),
        (REDIS, "redis://", "must name a host"),
        (REDIS, "redis://:pw@:6379/0", "must name a host"),
        (REDIS, "redis://host:99999/0", "port must be from 1 to 65535"),
        (REDIS, "redis://host:0", "port must be from 1 to 65535"),
        (REDIS, "redis://host:", "port must be from 1 to 65535"),
        (REDIS, "redis://host/nine", "path does not fit"),
        (REDIS, "redis://host?socket_timeout=x", "unknown option socket_timeout; known: db"),
        (REDIS, "redis://host?decode_responses=no", "unknown option decode_responses"),
        (REDIS, "redis://host?ssl_ca_certs=%2Fca", "unknown option ssl_ca_certs"),
        (REDIS, "rediss://host?ssl_cert_reqs=maybe", "option ssl_cert_reqs has a value"),
        (REDIS, "redis://host?db=1&db=2", "gives an option twice"),
        (REDIS, "redis://host?db", "percent-encode"),
        (REDIS, "redis://[::g]", "percent-encode"),
        (REDIS, "redis://[::::]", "no IPv6 address"),
        (REDIS, "redis://a,,b", "percent-encode"), (REDIS, "redis://a,", "percent-encode"),
        (REDIS, "redis://" + ",".join("abcdefghijklmnopq"), "percent-encode"),
        (REDIS, "redis://a,b:0", "port must be from 1 to 65535"),
        (REDIS, "redis+sentinel://a,b", "path does not fit"),
        (REDIS, "redis+sentinel://a/two/names", "path does not fit"),
        (REDIS, "redis+sentinel://a/m?master=x", "unknown option master"),
        (REDIS, "redis+cluster://a", "must begin with"), (REDIS, "sentinel://a", "must begin"),
        (LEDGER, "redis+cluster://a/1", "path does not fit"),
        (LEDGER, "redis+cluster://a?db=1", "unknown option db"),
        (LEDGER, "redis+cluster://", "must name a host"),
        (REDIS, "unix://run/redis.sock", "percent-encode"),
        (REDIS, "unix://", "path does not fit"),
        (REDIS, "sqs://host", "must begin with"), (REDIS, "amqp://rabbit//", "must begin with"),
        (POSTGRES, "host=db password=x", "must begin with postgresql:// or postgres://"),
        (POSTGRES, "postgresql://db/m?sslmode=on", "option sslmode has a value"),
        (POSTGRES, "postgresql://db/m?ssl=1", "unknown option ssl"),
        (HTTP, "https://user:pw@host", "neither a user nor a password"),
        (HTTP, "https://host/?key=1", "unknown option key; known: none"),
        (PROXY, "socks5://host", "must begin with http:// or https://"),
    ],
)  # fmt: skip
def test_a_url_that_does_not_fit_is_refused(forms: Forms, url: str, reason: str) -> None:
    assert reason in refusal(forms, url)


@pytest.mark.parametrize(
    ("forms", "url"),
    [
        (REDIS, "redis://host"), (REDIS, "redis://host/"), (REDIS, "redis://[::1]:6380/15"),
        (REDIS, "redis://my_host.local:1"), (REDIS, "redis://:p%40%2F%3F%23%25@host/1?db=2"),
        (REDIS, "redis://a,b:2,[::1]:3/4"), (REDIS, "rediss://u:p@a,b/0?ssl_cert_reqs=none"),
        (REDIS, "redis+sentinel://u:p@a:26379,b/my-master.1?db=2&sentinel_password=p%2F"),
        (REDIS, "rediss+sentinel://a/m?ssl_ca_certs=%2Fca"),
        (LEDGER, "redis+cluster://u:p@a,b:2"), (LEDGER, "rediss+cluster://a/?ssl_cert_reqs=none"),
        (REDIS, "redis://user:p:w@host"), (REDIS, "rediss://h?ssl_ca_certs=/ca.pem"),
        (REDIS, "unix:///run/v.sock?db=2&username=u&password=p%2Fw"),
        (POSTGRES, "postgresql://u@/db?host=%2Ftmp%2Fpg"), (POSTGRES, "postgres://a:1,b:2/db"),
        (POSTGRES, "postgresql:///db?sslmode=verify-full&target_session_attrs=read-write"),
        (HTTP, "http://h:1/v1/"), (PROXY, "http://u:p%40@proxy:3128/"),
    ],
)  # fmt: skip
def test_a_url_that_fits_is_read(forms: Forms, url: str) -> None:
    assert parse_url(url, forms).scheme == url.partition(":")[0]


@given(
    user=st.text(max_size=8), password=st.text(min_size=1, max_size=8), database=st.integers(0, 99)
)
def test_any_password_that_is_quoted_reaches_redis_and_the_broker(
    user: str, password: str, database: int
) -> None:
    """Read by redis-py and by kombu, each in its own way, it is the password that was meant."""
    try:
        quoted = f"{quote(user, safe='')}:{quote(password, safe='')}"
    except UnicodeEncodeError:
        return
    settings = Settings(redis_url=f"redis://{quoted}@host:1/{database}")

    ours = Redis.from_url(str(settings.redis_url)).connection_pool.connection_kwargs
    theirs = Connection(broker_address(settings))

    assert (ours.get("username", ""), ours["password"]) == (user, password)
    assert ((theirs.userid or ""), theirs.password) == (user, password)
    assert str(theirs.virtual_host) == str(ours["db"]) == str(database)


@pytest.mark.parametrize("scheme", LEDGER)
@given(text=st.text(alphabet=string.printable + "é\x80\ud800", max_size=40))
def test_every_accepted_url_is_read_by_redis_py_and_kombu(scheme: str, text: str) -> None:
    if error("AFTERWORD_REDIS_URL", url := f"{scheme}://{text}") is None:
        settings = Settings(redis_url=url, shards=256, broker_url="redis://b")
        for one in ledger_urls(settings):
            assert Redis.from_url(server_url(one)) is not None
            assert callable(locator(one) or print)
        Connection(broker_address(settings))


@pytest.mark.parametrize("scheme", REDIS)
@given(text=st.text(alphabet=string.printable + "é\x80\ud800", max_size=40))
def test_every_accepted_broker_is_read_by_kombu(scheme: str, text: str) -> None:
    if error("AFTERWORD_BROKER_URL", url := f"{scheme}://{text}") is None:
        Connection(broker_address(Settings(redis_url="redis://ledger", broker_url=url)))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "must begin with"), (" ", "must begin with"), ("redis://a, redis://b", "percent"),
        ("redis://a redis+cluster://b", "a cluster stands alone"),
        ("redis://a redis://a/0", "names a server twice"),
        ("redis+sentinel://s/m redis+sentinel://s/m", "names a server twice"),
    ],
)  # fmt: skip
def test_a_list_of_servers_that_does_not_fit_is_refused(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_ledger(text)


def test_a_list_of_servers_is_read_in_its_order() -> None:
    text = " redis://u:p@a/1\n redis+sentinel://s,t/m  redis://b,c "
    settings = Settings(redis_url=text, shards=4)

    assert settings.redis_url == " ".join(text.split())
    assert ledger_urls(settings) == text.split()
    assert broker_url(settings) == "redis://u:p@a/1"


def test_a_server_without_a_shard_is_refused() -> None:
    with pytest.raises(Misconfigured, match=r"AFTERWORD_SHARDS: is 1, and .* names 2 servers"):
        ledger_urls(Settings(redis_url="redis://a redis://b"))


def test_a_cluster_has_a_url_for_each_shard_and_needs_a_broker() -> None:
    settings = Settings(redis_url="redis+cluster://u:p@a,b:2", shards=2)

    # redis-cli CLUSTER KEYSLOT 'afterword:{00}'
    assert ledger_urls(settings) == [
        "redis+cluster://u:p@a,b:2/13254", "redis+cluster://u:p@a,b:2/9191"
    ]  # fmt: skip
    with pytest.raises(Misconfigured, match="AFTERWORD_BROKER_URL: must be set"):
        broker_url(settings)


def test_celery_does_not_show_the_password() -> None:
    for url in (
        f"redis://:{CANARY}@host", f"unix:///run/v.sock?password={CANARY}", f"redis://u:{CANARY}@h"
    ):  # fmt: skip
        app = make_app(Settings(redis_url="redis://ledger", broker_url=url))
        shown = f"{app!r} {app.connection_for_read().as_uri()} {app.connection_for_read()!r}"
        assert CANARY not in shown


@pytest.mark.finding(15)
@pytest.mark.parametrize("name", ["HTTPS_PROXY", "http_proxy", "ALL_PROXY"])
def test_a_proxy_that_no_client_can_use_is_refused(name: str) -> None:
    check_proxies({name: "proxy:3128", "NO_PROXY": "*", "OTHER_PROXY": "x y"})
    check_proxies({name: ""})
    for value in (f"http://u:{CANARY}/x@proxy", f"u:{CANARY}@proxy:99999", f"socks5://{CANARY}"):
        with pytest.raises(Misconfigured, match=name) as refused:
            check_proxies({name: value})
        assert CANARY not in str(refused.value)


@pytest.mark.finding(15)
@pytest.mark.parametrize("name", ["ANTHROPIC_API_KEY", "MEM0_API_KEY"])
@pytest.mark.parametrize("noise", ["\n", " ", "é", "\x1b", "\x7f"])
def test_a_key_that_no_header_can_carry_is_refused_without_it(name: str, noise: str) -> None:
    with pytest.raises(Misconfigured, match=f"{name}: must hold printable ASCII") as refused:
        Settings.load({name: f"{CANARY}{noise}"})
    assert CANARY not in str(refused.value)


def test_a_node_that_a_cluster_names_is_spoken_to_as_the_others() -> None:
    url = "rediss+cluster://u:p%2Fw@a,b:7/5?ssl_ca_certs=/ca.pem"

    assert node_url(url, ("c", 9)) == "rediss://u:p%2Fw@c:9/0?ssl_ca_certs=%2Fca.pem"
    assert node_url("redis+cluster://a/5", ("::1", 9)) == "redis://[::1]:9/0"
