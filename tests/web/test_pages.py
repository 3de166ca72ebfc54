"""What the pages of the console show, and what their forms do."""

from __future__ import annotations

import re

import httpx
import pytest

from afterword.producer.admin.wording import exact_time, step_facts
from afterword.shared.errors import Fault
from afterword.shared.ledger.dead_letter_records import ReplayPace
from afterword.shared.ledger.ledger import Ledger
from afterword.shared.names import MAX_SHOWN
from afterword.shared.settings import Settings
from tests.kit.console_client import LOOPBACK, Browser, browsers, console_client
from tests.kit.ledger.builder import (
    LedgerInspector,
    claim_lane,
    lane_of,
    reply_to,
    submit_and_answer,
    submit_and_claim,
    submit_job,
)
from tests.kit.ledger.full_ledger import fill
from tests.kit.ledger.lane_drainer import LaneDrainer
from tests.kit.waiting import until

pytestmark = pytest.mark.redis

HOSTILE = "<script>alert(1)</script>\"'&\u202e\x1b[31m"


async def bury(ledger: Ledger, user: str = "ann", code: str = "rejected") -> str:
    turn_id = await submit_and_answer(ledger, "hello", user_id=user)
    held = await claim_lane(ledger, lane_of(user))
    await ledger.turns.begin(held, turn_id)
    await ledger.turns.bury(held, turn_id, code, Fault.REQUEST, "0.1.0")
    await ledger.turns.release_lane(held)
    return turn_id


async def plan(browser: Browser, **chosen: str) -> httpx.Response:
    """Make a dry run, and wait until its plan is shown."""
    await browser.get("/dead-letters")
    made = await browser.post("/plans", **chosen)

    async def is_made() -> list[httpx.Response]:
        shown = await browser.follow(made)
        return [shown] if "Why they are dead" in shown.text else []

    return (await until(is_made, "the plan is made"))[0]


async def ended(browser: Browser, path: str) -> httpx.Response:
    async def has_ended() -> list[httpx.Response]:
        shown = await browser.get(path)
        return [] if "running, last step" in shown.text else [shown]

    return (await until(has_ended, "the run has ended"))[0]


# -- what is shown


@pytest.mark.parametrize(
    "path",
    ["/", "/orders", "/jobs", "/dead-letters", "/runs", "/lanes", "/tenants", "/gates", "/workers",
     "/audit", "/keys"],
)  # fmt: skip
async def test_every_page_opens_on_an_empty_ledger(browser: Browser, path: str) -> None:
    answer = await browser.get(path)
    assert answer.status_code == httpx.codes.OK
    assert 'aria-current="page"' in answer.text
    assert "<h1" in answer.text


async def test_whatever_is_stored_is_shown_as_text(
    browser: Browser, ledger: Ledger, inspector: LedgerInspector
) -> None:
    stored = await fill(ledger, inspector, HOSTILE)
    paths = (
        "/", "/jobs", "/lanes", "/dead-letters", "/runs", f"/runs/{stored.run}", "/tenants",
        "/budgets", "/gates", "/workers", "/audit", f"/jobs/{stored.answered}",
        f"/jobs/{stored.turn}",
    )  # fmt: skip
    for path in paths:
        answer = await browser.get(path)
        assert answer.status_code == httpx.codes.OK, path
        _check_text(answer.text)
    for path in (
        "/users",
        "/tenants",
        "/budgets",
        "/dead-letters",
        "/jobs",
        "/plans/x",
        "/runs/x",
        "/login",
    ):
        asked = {"tenant": HOSTILE, "user_id": HOSTILE, "code": HOSTILE, "next": HOSTILE}
        _check_text((await browser.get(path, params=asked)).text)
    await browser.get(f"/jobs/{stored.turn}")
    shown = await browser.post(f"/jobs/{stored.turn}/content")
    _check_text(shown.text)
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in shown.text


def _check_text(page: str) -> None:
    """Check that nothing of a hostile text became markup, or cannot be seen."""
    assert "<script>" not in page
    assert "\x1b" not in page
    assert "\u202e" not in page


async def test_a_job_is_found_by_its_id_and_by_its_user(browser: Browser, ledger: Ledger) -> None:
    job_id = await submit_and_answer(ledger, "hello", user_id="ann smith/1", tenant="acme")
    shown = await browser.follow(await browser.get("/jobs", params={"id": f" {job_id} "}))
    assert f"<code>{job_id}</code>" in shown.text
    asked = {"user_id": "ann smith/1", "tenant": "acme"}
    shown = await browser.follow(await browser.get("/jobs", params=asked))
    assert job_id in shown.text


@pytest.mark.parametrize("job_id", ["x", "j00_" + "0" * 32, "..%2f..%2fetc", "a" * 500])
async def test_an_unknown_job_is_not_found(browser: Browser, job_id: str) -> None:
    answer = await browser.get(f"/jobs/{job_id}")
    assert answer.status_code == httpx.codes.NOT_FOUND
    assert job_id[: MAX_SHOWN + 1] not in answer.text or len(job_id) <= MAX_SHOWN


async def test_open_jobs_are_listed_where_they_are(browser: Browser, ledger: Ledger) -> None:
    running = (await submit_and_claim(ledger, user_id="bea")).job_id
    ready = await submit_job(ledger, user_id="cyd", priority="high")
    text = (await browser.get("/jobs")).text
    assert text.index(running) < text.index("Ready for a response worker") < text.index(ready)


async def test_dead_letters_are_shown_newest_first_and_page_by_page(
    browser: Browser, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("afterword.producer.web.views.dead_letters.ROWS", 2)
    ids = [await bury(ledger, f"user{number}") for number in range(5)]
    seen, path = list[str](), "/dead-letters"
    while path:
        text = (await browser.get(path)).text
        found = [one for one in ids if f"/jobs/{one}" in text]
        assert len(found) <= 2
        seen += sorted(found, key=text.index)
        path = text.partition('rel="next" href="')[2].partition('"')[0].replace("&amp;", "&")
    assert seen == ids[::-1]


@pytest.mark.parametrize(
    ("asked", "count"),
    [({"code": "REJ"}, 2), ({"user_id": "bea"}, 1), ({"since": "1h"}, 3), ({"until": "1h"}, 0),
     ({"kind": "reply"}, 0), ({"code": "timeout", "fault": "request"}, 1)],
)  # fmt: skip
async def test_filters_choose_dead_letters(
    browser: Browser, ledger: Ledger, asked: dict[str, str], count: int
) -> None:
    ids = [await bury(ledger, "ann"), await bury(ledger, "bea"), await bury(ledger, "c", "timeout")]
    text = (await browser.get("/dead-letters", params=asked)).text
    assert sum(one in text for one in ids) == count


@pytest.mark.parametrize(
    ("field", "value"),
    [("since", "soon"), ("kind", "x"), ("fault", "x"), ("limit", "0"), ("before", "x"),
     ("limit", "9" * 30), ("since", "2026-13-01")],
)  # fmt: skip
async def test_a_wrong_filter_is_named(browser: Browser, field: str, value: str) -> None:
    answer = await browser.get("/dead-letters", params={field: value})
    assert answer.status_code == httpx.codes.UNPROCESSABLE_ENTITY
    assert f"{field}: must be" in answer.text or f"{field}:" in answer.text


# -- what is done


async def test_a_filtered_set_is_replayed_after_a_dry_run(browser: Browser, ledger: Ledger) -> None:
    chosen = [await bury(ledger, "ann"), await bury(ledger, "bea")]
    other = await bury(ledger, "cyd", "timeout")
    shown = await plan(browser, code="rejected", rate="1000")
    assert "Replay 2" in shown.text
    assert [letter.id async for letter in ledger.dead_letters.select()] == [*chosen, other]
    path = str(shown.url.path)
    async with LaneDrainer(ledger, [lane_of("ann"), lane_of("bea")]) as drainer:
        answer = await browser.post(f"{path}/replay")
        run = answer.headers["location"]
        assert "2 of 2" in (await ended(browser, run)).text
    assert set(drainer.added) == set(chosen)
    assert [letter.id async for letter in ledger.dead_letters.select()] == [other]
    audit = (await browser.get("/audit")).text
    assert run in audit
    assert "ann@host" in audit
    again = await browser.post(f"{path}/replay")
    assert again.status_code == httpx.codes.NOT_FOUND


async def test_all_are_replayed_only_if_that_is_said(browser: Browser, ledger: Ledger) -> None:
    await bury(ledger)
    await browser.get("/dead-letters")
    answer = await browser.post("/plans")
    assert answer.status_code == httpx.codes.UNPROCESSABLE_ENTITY
    assert "Replay 1" in (await plan(browser, all="yes")).text


async def test_a_plan_is_for_whoever_made_it(settings: Settings, ledger: Ledger) -> None:
    await bury(ledger)
    async with console_client(settings) as ann:
        shown = await plan(ann, code="rejected")
        console = ann.client._transport.app.state.console  # type: ignore[attr-defined]
        (plan_id,) = [shown.url.path.rpartition("/")[2]]
        assert console.replays.planned(plan_id, "ann@host") is not None
        assert console.replays.planned(plan_id, "bea") is None


async def test_a_run_is_aborted_from_another_session_and_resumed(
    settings: Settings, ledger: Ledger
) -> None:
    ids = [await bury(ledger, "ann") for _ in range(3)]
    async with browsers(settings, LOOPBACK, 2) as (ann, bea):
        shown = await plan(ann, code="rejected", canary="1")
        assert "No memory worker takes work" in shown.text
        run = (await ann.post(f"{shown.url.path}/replay")).headers["location"]
        running = (await bea.get(run)).text
        assert "Abort" in running
        assert "No memory worker takes work" in running, "its canary waits for one"
        await bea.follow(await bea.post(f"{run}/abort"))
        stopped = await ended(ann, run)
        assert "aborted" in stopped.text
        assert "No memory worker" not in stopped.text
        assert "Resume" in stopped.text
        async with LaneDrainer(ledger, [lane_of("ann")]) as drainer:
            await ann.follow(await ann.post(f"{run}/resume"))
            assert "3 of 3" in (await ended(bea, run)).text
    assert set(drainer.added) == set(ids)
    actions = [entry.action for entry in await ledger.replay_runs.audit_entries(10)]
    assert actions == ["done", "resume", "aborted", "replay"]


async def test_a_console_that_ends_aborts_what_it_drives(
    settings: Settings, ledger: Ledger
) -> None:
    await bury(ledger)
    async with console_client(settings) as browser:
        shown = await plan(browser, code="rejected")
        run = (await browser.post(f"{shown.url.path}/replay")).headers["location"]
    found = await ledger.replay_runs.get(run.rpartition("/")[2])
    assert (found.state, found.reason) == ("aborted", "interrupted")
    async with console_client(settings) as browser:
        assert "Resume" in (await browser.get(run)).text


async def test_a_run_whose_console_was_killed_is_resumed(browser: Browser, ledger: Ledger) -> None:
    ids = [await bury(ledger) for _ in range(2)]
    letters = [letter.ref async for letter in ledger.dead_letters.select()]
    run_id = await ledger.replay_runs.begin(
        letters, by="killed", criteria={}, pace=ReplayPace(), token="nobody"
    )
    text = (await browser.get(f"/runs/{run_id}")).text
    assert "Another process drives this run" in text
    assert "Resume" in text
    async with LaneDrainer(ledger, [lane_of("ann")]) as drainer:
        await browser.follow(await browser.post(f"/runs/{run_id}/resume"))
        assert "2 of 2" in (await ended(browser, f"/runs/{run_id}")).text
    assert drainer.added == dict.fromkeys(ids, 1)


async def test_a_gate_is_shut_and_opened(browser: Browser, ledger: Ledger) -> None:
    await browser.get("/gates")
    shut = {"name": "remember", "reason": "mem0 migrates", "for_s": "10m"}
    for_now = (await browser.post("/gates/shut", **shut)).text
    assert "Nothing has changed yet" in for_now
    assert "shut by ann@host: mem0 migrates" in for_now
    done = await browser.post("/gates/shut", **shut, apply="yes")
    assert "shut by ann@host: mem0 migrates" in (await browser.follow(done)).text
    assert "calls begin slowly" in (await browser.post("/gates/open", name="remember")).text
    await browser.follow(await browser.post("/gates/open", name="remember", apply="yes"))
    assert "This gate is not shut" in (await browser.post("/gates/open", name="recall")).text
    actions = [entry.action for entry in await ledger.replay_runs.audit_entries(10)]
    assert len(actions) == 2
    answer = await browser.post("/gates/shut", name="nobody")
    assert answer.status_code == httpx.codes.UNPROCESSABLE_ENTITY


async def test_a_job_page_tells_its_story(browser: Browser, ledger: Ledger) -> None:
    turn_id = await bury(ledger)
    text = (await browser.get(f"/jobs/{turn_id}")).text
    steps = text.partition('id="steps"')[2]
    found = [steps.index(f">{kind}<") for kind in ("accepted", "claimed", "replied", "buried")]
    assert found == sorted(found)


async def test_a_job_page_words_each_step_as_the_shell_does(
    browser: Browser, ledger: Ledger
) -> None:
    turn_id = await bury(ledger)
    text = (await browser.get(f"/jobs/{turn_id}")).text
    story = await ledger.stories.of(turn_id)
    assert any(len(step_facts(step)) > 1 for step in story.steps), "some are joined by a comma"
    for step in story.steps:
        row = f"<td>{exact_time(step.at)}</td>"
        assert row in text
        assert f"{', '.join(step_facts(step))}</td>" in text.partition(row)[2]


async def test_a_key_is_revoked(browser: Browser, ledger: Ledger) -> None:
    await browser.get("/keys")
    await browser.post("/keys/create", name="eve")
    (key,) = await ledger.access_keys.all()
    await browser.follow(await browser.post("/keys/revoke", key_id=key.id))
    assert await ledger.access_keys.all() == []
    actions = [entry.action for entry in await ledger.replay_runs.audit_entries(10)]
    assert actions == ["revoke key", "create key"]


# -- what needs attention


async def test_the_overview_says_what_needs_attention_and_leads_to_its_cure(
    settings: Settings, ledger: Ledger
) -> None:
    await ledger.maintenance.record_heartbeat("replies", "host:1", [], instance="a")
    await bury(ledger)
    budgets = settings.model_copy(update={"budgets": {"acme": {"tenant_usd": 2.0}}})
    async with Ledger(budgets, patience_s=30.0) as counting:
        spent = await submit_and_claim(counting, tenant="acme")
        await counting.jobs.finish(spent, reply_to(spent), cost=3_000_000)
    async with console_client(budgets) as browser:
        await browser.get("/orders")
        pause = {"work": "memories", "tenant": "globex", "reason": "mem0 migrates"}
        await browser.post("/orders/pause", **pause, apply="yes")
        await browser.post("/orders/strike", tenant="acme", user_id="mal", apply="yes")
        await browser.post("/gates/shut", name="recall", reason="slow", apply="yes")

        async def has_all() -> list[str]:
            page = (await browser.get("/")).text  # budgets come with one of the next looks
            return [page] if "spent all of the budget" in page else []

        (page,) = await until(has_all, "the overview has all")
        for text, path in (
            ("No memory worker takes work", "/workers"),
            ("Writes to memory of tenant globex are paused by ann@host", "/orders"),
            ("User mal of acme is blocked by ann@host", "/orders"),
            ("Gate recall is shut, shut by ann@host: slow", "/gates"),
            ("One tenant has spent all of the budget", "/budgets"),
        ):
            line = page.partition(text)[2].partition("</p>")[0]
            assert f'href="{path}"' in line, text
        assert "No response worker" not in page
        assert '<a href="/dead-letters">Dead letters</a></h2>\n<p class="figure">1</p>' in page
        for path, text in (
            ("/workers", "No worker of the kind memories takes work"),
            ("/tenants?tenant=globex", "Writes to memory of tenant globex are paused"),
            ("/tenants?tenant=acme", "All of its budget is spent"),
            ("/users?tenant=acme&user_id=mal", "User mal of acme is blocked"),
        ):
            assert text in (await browser.get(path)).text
        others = (await browser.get("/users?tenant=acme&user_id=ann")).text
        assert "is blocked" not in others


async def test_an_overview_of_a_fleet_that_is_well_says_so(
    browser: Browser, ledger: Ledger
) -> None:
    for queue in ("replies", "memories"):
        await ledger.maintenance.record_heartbeat(queue, "host:1", [], instance="a")
    page = (await browser.get("/")).text
    assert "Workers take work, all gates are open" in page
    assert "banner bad" not in page


async def test_the_overview_counts_replies_that_wait_for_a_later_time(
    browser: Browser, ledger: Ledger
) -> None:
    await ledger.jobs.snooze(await submit_and_claim(ledger), 60.0, counted=True)
    assert "0 ready, 1 delayed" in (await browser.get("/")).text


# -- what may fail


@pytest.mark.parametrize(
    ("referer", "back"),
    [
        ("http://127.0.0.1:9466/orders?tenant=a%26b", "/orders?tenant=a%26b"),
        ("http://elsewhere.example/orders", ""),
        ("http://127.0.0.1:9466//elsewhere.example/", ""),
        ("javascript:alert(1)", ""),
        ("http://[", ""),
        ("", ""),
    ],
)
async def test_an_error_leads_back_to_the_page_before_and_nowhere_else(
    browser: Browser, referer: str, back: str
) -> None:
    answer = await browser.get("/jobs/none", headers={"referer": referer})
    assert answer.status_code == httpx.codes.NOT_FOUND
    links = re.findall(r'<a href="([^"]*)"', answer.text)
    assert links == [*([back] if back else []), "/jobs", "/"]


async def test_a_bug_shows_nothing_of_itself(
    browser: Browser, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from afterword.shared.ledger.browsing import Browsing

    def fail(*_: object) -> None:
        raise RuntimeError("what a user said")

    monkeypatch.setattr(Browsing, "jobs_in", fail)
    answer = await browser.get("/jobs")
    assert answer.status_code == httpx.codes.INTERNAL_SERVER_ERROR
    assert "what a user said" not in answer.text + caplog.text
    assert "RuntimeError" in caplog.text
    assert "RuntimeError" not in answer.text


async def test_without_redis_every_page_says_so(settings: Settings) -> None:
    away = settings.model_copy(
        update={"redis_url": "redis://127.0.0.1:1/0", "submit_timeout_s": 0.1}
    )
    async with console_client(away) as browser:
        answer = await browser.get("/")
        assert answer.status_code == httpx.codes.SERVICE_UNAVAILABLE
        assert (await browser.get("/healthz")).status_code == httpx.codes.SERVICE_UNAVAILABLE


async def test_health_and_metrics_are_served(browser: Browser, ledger: Ledger) -> None:
    await bury(ledger)
    assert (await browser.get("/healthz")).text == "ok\n"
    text = (await browser.get("/metrics")).text
    assert 'afterword_dead_letters{kind="turns"} 1.0' in text


async def test_metrics_need_their_token_where_keys_are_needed(settings: Settings) -> None:
    from pydantic import SecretStr

    from tests.kit.console_client import WITH_KEY

    async with console_client(settings, WITH_KEY) as browser:
        assert (await browser.get("/metrics")).status_code == httpx.codes.UNAUTHORIZED
    guarded = settings.model_copy(update={"metrics_token": SecretStr("t")})
    async with console_client(guarded, WITH_KEY) as browser:
        assert (await browser.get("/metrics")).status_code == httpx.codes.UNAUTHORIZED
        bears = {"authorization": "Bearer t"}
        assert (await browser.get("/metrics", headers=bears)).status_code == httpx.codes.OK
