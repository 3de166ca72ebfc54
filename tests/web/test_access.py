"""Who may do what: every route of the console, with every kind of key and without one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest

from afterword.producer.web.app import PAGES, create_app
from afterword.producer.web.headers import POLICY
from afterword.shared.ledger.access_keys import AccessScope
from afterword.shared.ledger.ledger import Ledger
from afterword.shared.settings import Settings
from tests.kit.console_client import LOOPBACK, WITH_KEY, Browser, console_client, new_key
from tests.kit.ledger.builder import submit_job

pytestmark = pytest.mark.redis

READ, CONTENT, OPERATE = AccessScope.READ, AccessScope.CONTENT, AccessScope.OPERATE

#: The scope that every route asks for; None for those that everybody may use.
SCOPES: dict[str, AccessScope | None] = {
    "GET /": READ,
    "GET /jobs": READ,
    "GET /jobs/{job_id}": READ,
    "POST /jobs/{job_id}/content": CONTENT,
    "GET /users": READ,
    "POST /users/memories": CONTENT,
    "GET /lanes": READ,
    "GET /dead-letters": READ,
    "POST /plans": OPERATE,
    "GET /plans/{plan_id}": OPERATE,
    "POST /plans/{plan_id}/replay": OPERATE,
    "GET /runs": READ,
    "GET /runs/{run_id}": READ,
    "POST /runs/{run_id}/abort": OPERATE,
    "POST /runs/{run_id}/resume": OPERATE,
    "GET /gates": READ,
    "POST /gates/shut": OPERATE,
    "POST /gates/open": OPERATE,
    "GET /orders": READ,
    "POST /orders/pause": OPERATE,
    "POST /orders/strike": OPERATE,
    "POST /orders/limit": OPERATE,
    "POST /orders/drain": OPERATE,
    "POST /orders/lift": OPERATE,
    "GET /tenants": READ,
    "GET /budgets": READ,
    "GET /workers": READ,
    "GET /audit": READ,
    "GET /keys": OPERATE,
    "POST /keys/create": OPERATE,
    "POST /keys/revoke": OPERATE,
    "POST /logout": READ,
    "GET /login": None,
    "POST /login": None,
    "GET /healthz": None,
    "GET /metrics": None,
    "GET /static/{name}": None,
}
GUARDED = sorted(name for name, scope in SCOPES.items() if scope)
FORMS = [name for name in GUARDED if name.startswith("POST")]

#: The keys that people may have, by what they may do besides reading.
KEYS: dict[str, frozenset[AccessScope]] = {
    "reader": frozenset({READ}),
    "support": frozenset({READ, CONTENT}),
    "operator": frozenset({READ, OPERATE}),
}


def path_of(name: str) -> str:
    path = name.partition(" ")[2]
    for part in ("job_id", "plan_id", "run_id", "name"):
        path = path.replace(f"{{{part}}}", "none")
    return path


async def ask(browser: Browser, name: str) -> httpx.Response:
    if name.startswith("GET"):
        return await browser.get(path_of(name))
    return await browser.post(path_of(name))


@asynccontextmanager
async def logged_in(settings: Settings, *scopes: AccessScope) -> AsyncIterator[Browser]:
    key = await new_key(settings, *scopes)
    async with console_client(settings, WITH_KEY) as browser:
        assert (await browser.log_in(key)).status_code == httpx.codes.OK
        await browser.get("/gates" if OPERATE in scopes else "/")
        yield browser


def test_the_table_names_every_route_and_its_scope(settings: Settings) -> None:
    routes = {getattr(route, "name", str(route)) for route in create_app(settings, LOOPBACK).routes}
    assert routes == set(SCOPES)
    assert {f"{page.method} {page.path}": page.scope for page in PAGES} == SCOPES


@pytest.mark.parametrize("name", GUARDED)
async def test_nobody_gets_in_without_a_key(settings: Settings, name: str) -> None:
    async with console_client(settings, WITH_KEY) as browser:
        answer = await ask(browser, name)
    if name.startswith("GET"):
        assert answer.status_code == httpx.codes.SEE_OTHER
        assert answer.headers["location"].startswith("/login?next=")
    else:
        assert answer.status_code == httpx.codes.UNAUTHORIZED
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize("who", KEYS)
async def test_a_key_opens_what_its_scopes_say(settings: Settings, who: str) -> None:
    scopes = KEYS[who]
    async with logged_in(settings, *scopes) as browser:
        for name in GUARDED:
            if name == "POST /logout":
                continue  # nobody would be logged in for the others
            await browser.get("/")
            cookie = browser.client.cookies["afterword_console"]
            browser.csrf = await _csrf_of(browser, cookie)
            answer = await ask(browser, name)
            refused = answer.status_code == httpx.codes.FORBIDDEN
            assert refused is (SCOPES[name] not in scopes), (name, answer.text)
            assert answer.status_code < httpx.codes.INTERNAL_SERVER_ERROR


async def _csrf_of(browser: Browser, cookie: str) -> str:
    """Return what a form of this session would hold; a reader's pages have no other form."""
    transport = browser.client._transport
    assert isinstance(transport, httpx.ASGITransport)
    console = transport.app.state.console  # type: ignore[attr-defined]
    session = await console.sessions.get(cookie)
    assert session is not None
    return str(session.csrf)


async def test_on_loopback_no_key_is_asked_for(browser: Browser) -> None:
    answer = await browser.get("/keys")
    assert answer.status_code == httpx.codes.OK
    assert "ann@host" in answer.text


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("csrf", ["", "x" * 43])
async def test_a_form_of_another_page_is_refused(
    settings: Settings, ledger: Ledger, name: str, csrf: str
) -> None:
    async with console_client(settings) as browser:
        await browser.get("/")
        answer = await browser.post(path_of(name), csrf=csrf)
        assert answer.status_code == httpx.codes.FORBIDDEN
        assert await ledger.replay_runs.audit_entries(10) == []


@pytest.mark.parametrize(
    "headers",
    [{"origin": "http://evil.example"}, {"origin": "null"}, {"sec-fetch-site": "cross-site"}],
)
async def test_a_form_of_another_site_is_refused(browser: Browser, headers: dict[str, str]) -> None:
    await browser.get("/gates")
    fields = {"csrf": browser.csrf, "name": "recall", "apply": "yes"}
    answer = await browser.client.post("/gates/shut", data=fields, headers=headers)
    assert answer.status_code == httpx.codes.FORBIDDEN
    assert "All gates are open" in (await browser.get("/gates")).text


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "evil.example:9466", ""]
)
async def test_a_name_that_was_pointed_to_this_machine_is_refused(
    browser: Browser, host: str
) -> None:
    answer = await browser.get("/", headers={"host": host})
    assert answer.status_code == httpx.codes.BAD_REQUEST
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize("host", ["localhost:9466", "127.0.0.1:1", "[::1]:9466"])
async def test_the_names_of_this_machine_are_accepted(browser: Browser, host: str) -> None:
    assert (await browser.get("/", headers={"host": host})).status_code == httpx.codes.OK


@pytest.mark.parametrize("path", ["/", "/login", "/nowhere", "/static/console.css", "/healthz"])
async def test_every_answer_says_what_a_browser_may_load(browser: Browser, path: str) -> None:
    answer = await browser.get(path)
    assert answer.headers["content-security-policy"] == POLICY
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["x-frame-options"] == "DENY"
    assert answer.headers["cache-control"] in {"no-store", "no-cache"}


@pytest.mark.parametrize("path", sorted({page.path for page in PAGES if page.method == "GET"}))
async def test_no_page_holds_a_script_or_a_style(browser: Browser, path: str) -> None:
    text = (await browser.get(path_of(f"GET {path}"))).text
    assert "<style" not in text
    assert " style=" not in text
    assert "javascript:" not in text
    assert " onclick" not in text
    assert text.count("<script") == text.count('<script src="/static/console.js" defer>')


async def test_a_cookie_is_only_for_this_console(settings: Settings) -> None:
    async with console_client(settings) as browser:
        cookie = (await browser.get("/")).headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert "Path=/" in cookie


async def test_behind_https_a_cookie_insists_on_it(settings: Settings) -> None:
    from dataclasses import replace

    options = replace(LOOPBACK, origin="https://console.example")
    key = await new_key(settings)
    async with console_client(settings, options) as browser:
        browser.client.base_url = httpx.URL("https://console.example")
        answer = await browser.client.post("/login", data={"key": key})
        assert answer.headers["set-cookie"].startswith("__Host-afterword=")
        assert "Secure" in answer.headers["set-cookie"]
        assert "strict-transport-security" in answer.headers


async def test_logging_out_ends_the_session(settings: Settings) -> None:
    async with logged_in(settings, OPERATE) as browser:
        cookie = browser.client.cookies["afterword_console"]
        await browser.post("/logout")
        browser.client.cookies.set("afterword_console", cookie)
        answer = await browser.get("/")
        assert answer.headers["location"].startswith("/login")


async def test_a_revoked_key_ends_its_sessions(settings: Settings, ledger: Ledger) -> None:
    async with logged_in(settings) as browser:
        (key,) = await ledger.access_keys.all()
        await ledger.access_keys.remove(key.id)
        assert (await browser.get("/")).headers["location"].startswith("/login")


async def test_an_expired_key_opens_nothing(settings: Settings, ledger: Ledger) -> None:
    from dataclasses import replace
    from datetime import UTC, datetime

    text = await new_key(settings)
    async with console_client(settings, WITH_KEY) as browser:
        assert (await browser.log_in(text)).status_code == httpx.codes.OK
        (key,) = await ledger.access_keys.all()
        stored = await ledger.access_keys.get(key.id)
        assert stored is not None
        await ledger.access_keys.remove(key.id)
        over = replace(stored.key, expires_at=datetime(2020, 1, 1, tzinfo=UTC))
        await ledger.access_keys.add(replace(stored, key=over))
        assert (await browser.get("/")).headers["location"].startswith("/login")
        answer = await browser.client.post("/login", data={"key": text})
        assert answer.status_code == httpx.codes.UNAUTHORIZED


async def test_logins_are_limited(settings: Settings) -> None:
    key = await new_key(settings)
    async with console_client(settings, WITH_KEY) as browser:
        for _ in range(5):
            answer = await browser.client.post("/login", data={"key": "afterword_x"})
            assert answer.status_code == httpx.codes.UNAUTHORIZED
        answer = await browser.client.post("/login", data={"key": key})
        assert answer.status_code == httpx.codes.TOO_MANY_REQUESTS


@pytest.mark.parametrize(
    "then", ["//evil.example", "https://evil.example", "/\\evil.example", "/a\nb"]
)
async def test_a_login_leads_to_a_page_of_the_console(settings: Settings, then: str) -> None:
    key = await new_key(settings)
    async with console_client(settings, WITH_KEY) as browser:
        answer = await browser.client.post("/login", data={"key": key, "next": then})
        assert answer.headers["location"] == "/"


async def test_nobody_gives_a_scope_that_they_do_not_have(
    settings: Settings, ledger: Ledger
) -> None:
    async with logged_in(settings, OPERATE) as browser:
        answer = await browser.post("/keys/create", name="eve", content="yes")
        assert answer.status_code == httpx.codes.UNPROCESSABLE_ENTITY
        assert len(await ledger.access_keys.all()) == 1


async def test_a_key_is_shown_once_and_stored_as_a_hash(
    settings: Settings, browser: Browser, ledger: Ledger
) -> None:
    await browser.get("/keys")
    made = await browser.post("/keys/create", name="eve", operate="yes", expires="1d")
    text = made.text.partition('class="key">')[2].partition("<")[0]
    assert text.startswith("afterword_")
    assert text not in (await browser.get("/keys")).text
    for key in (keys := [*map(str, _stored(settings))]):
        assert text not in key
        assert text.split("_", 2)[2] not in key  # a secret may hold an underscore
    assert keys
    async with console_client(settings, WITH_KEY) as other:
        assert (await other.log_in(text)).status_code == httpx.codes.OK
    (entry,) = await ledger.replay_runs.audit_entries(10)
    assert (entry.by, entry.action, entry.details["name"]) == ("ann@host", "create key", "eve")
    assert text.rpartition("_")[2] not in str(entry)


def _stored(settings: Settings) -> list[object]:
    import redis

    with redis.Redis.from_url(str(settings.redis_url), decode_responses=True) as client:
        return [*client.hgetall(f"{settings.namespace}:{{00}}:access-keys").values()]


async def test_a_long_form_is_refused(browser: Browser) -> None:
    await browser.get("/gates")
    answer = await browser.post("/gates/shut", name="recall", reason="x" * 70_000)
    assert answer.status_code == httpx.codes.REQUEST_ENTITY_TOO_LARGE


@pytest.mark.parametrize(
    "path",
    ["/static/../app.py", "/static/%2e%2e%2fapp.py", "/static/..%2f..%2f__init__.py", "/static/"],
)
async def test_nothing_but_named_files_is_served(browser: Browser, path: str) -> None:
    assert (await browser.get(path)).status_code == httpx.codes.NOT_FOUND


async def test_content_needs_its_scope_and_each_look_is_audited(
    settings: Settings, ledger: Ledger
) -> None:
    job_id = await submit_job(ledger, "I moved to Porto.", user_id="ann")
    async with logged_in(settings, OPERATE) as browser:
        assert "Porto" not in (await browser.get(f"/jobs/{job_id}")).text
        answer = await browser.post(f"/jobs/{job_id}/content")
        assert answer.status_code == httpx.codes.FORBIDDEN
        assert "Porto" not in answer.text
    async with logged_in(settings, CONTENT) as browser:
        assert "Porto" not in (await browser.get(f"/jobs/{job_id}")).text
        assert "I moved to Porto." in (await browser.post(f"/jobs/{job_id}/content")).text
    looks = [one for one in await ledger.replay_runs.audit_entries(10) if one.action == "look"]
    assert [one.details for one in looks] == [{"what": "job", "job": job_id}]
    assert looks[0].by.startswith("bea (")
