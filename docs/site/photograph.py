"""Photograph the console for the documents: an invented fleet, opened in Chromium.

    .venv/bin/python -m docs.site.photograph

Writes `docs/images/console-*.png`. Needs Chromium (`apt-get install chromium`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import redis

from afterword.shared.errors import Fault
from afterword.shared.ledger.ledger import Ledger
from afterword.shared.names import Keys
from afterword.shared.settings import Settings
from tests.kit.console_client import LOOPBACK
from tests.kit.ledger.builder import (
    claim_job,
    claim_lane,
    lane_of,
    reply_to,
    submit_and_answer,
    submit_and_claim,
    submit_job,
)
from tests.kit.served_console import chromium, served_console
from tests.kit.servers.valkey import Valkey

if TYPE_CHECKING:
    from playwright.sync_api import Page, ViewportSize

IMAGES = Path(__file__).parents[1] / "images"

#: Users whose turns are buried, by tenant and code.
_BURIED = (("acme", "rejected", 41), ("globex", "timeout", 18), ("initech", "bad_answer", 7))
_WAITING, _QUEUED, _RUNNING = 12, 5, 3
_MINUTES, _MINUTE_MS = 60, 60_000
#: What tenants may spend in a month, and what each has spent, in millionths of a US dollar.
_BUDGETS = {"*": {"tenant_usd": 5.0}, "hooli": {"tenant_usd": 2.5}}
_SPENT = {"hooli": 2_548_600, "acme": 4_141_400, "initech": 2_707_900, "umbrella": 477_900}
_SIZE: ViewportSize = {"width": 1280, "height": 800}


async def invent(settings: Settings) -> None:
    """Fill a ledger with what an operator would look at."""
    async with Ledger(settings, patience_s=30.0) as ledger:
        for tenant, millionths in _SPENT.items():
            job_id = await submit_job(ledger, user_id="spender", tenant=tenant)
            claim = await claim_job(ledger, job_id)
            await ledger.jobs.finish(claim, reply_to(claim), cost=millionths)
        for tenant, code, count in _BURIED:
            for number in range(count):
                await _bury(ledger, tenant, f"user-{number}", code)
        for number in range(_WAITING):
            await submit_and_answer(ledger, user_id=f"guest-{number}", tenant="acme")
        for number in range(_QUEUED):
            await submit_job(ledger, user_id=f"new-{number}", tenant="globex")
        for number in range(_RUNNING):
            await submit_and_claim(ledger, user_id=f"busy-{number}", tenant="acme")
        await ledger.gates.shut("remember", by="ann@ops", reason="mem0 migrates", for_s=1800.0)
    _invent_past(settings)


async def _bury(ledger: Ledger, tenant: str, user_id: str, code: str) -> None:
    turn_id = await submit_and_answer(ledger, user_id=user_id, tenant=tenant)
    held = await claim_lane(ledger, lane_of(user_id, tenant))
    await ledger.turns.begin(held, turn_id)
    await ledger.turns.bury(held, turn_id, code, Fault.PROVIDER, "0.1.0")
    await ledger.turns.release_lane(held)


def _invent_past(settings: Settings) -> None:
    """Write the samples of an hour, and workers that were heard of."""
    keys = Keys(settings.namespace, 0)
    with redis.Redis.from_url(str(settings.redis_url)) as client:
        now = client.time()[0] * 1000
        client.delete(keys.samples)  # the console has taken one already
        for minute, figures in enumerate(_samples()):
            at = now - (_MINUTES - minute) * _MINUTE_MS
            client.xadd(keys.samples, {"figures": json.dumps(figures)}, id=f"{at}-0")
        client.set(keys.sampled, 1)  # the figures of this moment are no part of that hour
        for worker in ("replies host-1:41", "replies host-2:17", "memories host-3:8"):
            client.zadd(keys.workers, {worker: now + _MINUTES * _MINUTE_MS})


def _samples() -> Iterator[dict[str, float]]:
    replied = remembered = 0.0
    for minute in range(_MINUTES):
        wave = math.sin(minute / 5) + math.sin(minute / 2.3) / 3
        late = max(0.0, minute - 45)
        replied += round(180 + 40 * wave)
        remembered += round(170 + 45 * wave - 6 * late)
        yield {
            "replied": replied,
            "remembered": remembered,
            "queued": 5,
            "turns_waiting": 12,
            "oldest_ready_s": round(1.2 + wave / 2, 1),
            "users_behind": round(8 + 3 * wave + 2 * late),
            "users_late": round(late / 2),
            "dead_letters": round(20 + minute / 4 + 2 * late),
        }


def photograph(page: Page) -> None:
    """Take the pictures."""
    for name, path in {"overview": "/", "dead-letters": "/dead-letters?tenant=acme"}.items():
        page.goto(path)
        page.screenshot(path=IMAGES / f"console-{name}.png")
    page.get_by_role("button", name="Dry run of a replay").click()
    page.get_by_role("button", name="Replay 41").wait_for()
    page.screenshot(path=IMAGES / "console-dry-run.png")
    page.goto("/dead-letters")
    page.locator("#letters a.id").first.click()
    page.locator("#steps").wait_for()
    page.screenshot(path=IMAGES / "console-job.png")
    page.goto("/orders?tenant=acme")
    page.get_by_label("Weight").fill("2")
    page.get_by_label("Most open").fill("500")
    page.get_by_role("button", name="Dry run of limits").click()
    page.get_by_role("button", name="Set limits").wait_for()
    page.screenshot(path=IMAGES / "console-order.png")
    page.goto("/budgets")
    page.locator("#rows").wait_for()
    page.screenshot(path=IMAGES / "console-budgets.png")


def main() -> None:
    """Invent, serve, photograph."""
    with Valkey() as valkey, chromium() as browser:
        settings = Settings(
            redis_url=valkey.url, namespace="photograph", durability="none", memory="embedded",
            budgets=_BUDGETS,
        )  # fmt: skip
        with served_console(settings, LOOPBACK) as served:
            served.run(invent(settings))
            photograph(browser.new_page(base_url=served.url, viewport=_SIZE))


if __name__ == "__main__":
    main()
