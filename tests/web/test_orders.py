"""Orders given and lifted from the page: seen first, refused by name, replaced knowingly."""

from __future__ import annotations

import httpx
import pytest

from afterword.shared.ledger.ledger import Ledger
from tests.kit.console_client import Browser
from tests.kit.ledger.builder import LedgerInspector

pytestmark = pytest.mark.redis


async def test_orders_are_given_and_lifted(browser: Browser, ledger: Ledger) -> None:
    await browser.get("/orders")
    pause = {"work": "memories", "tenant": "acme", "for_s": "10m"}
    assert "Nothing has changed yet" in (await browser.post("/orders/pause", **pause)).text
    done = await browser.post("/orders/pause", **pause, apply="yes")
    assert "pause-memories" in (await browser.follow(done)).text
    slow = {"tenant": "acme", "user_id": "bea", "every_s": "5s", "apply": "yes"}
    done = await browser.post("/orders/strike", **slow)
    assert "one reply in 5.0 s" in (await browser.follow(done)).text
    assert [order.by for order in await ledger.orders.in_force()] == ["ann@host"] * 2
    await browser.post("/orders/lift", kind="pause-memories", tenant="acme", apply="yes")
    await browser.post("/orders/lift", kind="slow", tenant="acme", user_id="bea", apply="yes")
    assert await ledger.orders.in_force() == []
    assert "no such order" in (await browser.post("/orders/lift", kind="block", tenant="a")).text


async def test_a_dry_run_says_whose_place_an_order_takes(browser: Browser) -> None:
    await browser.get("/orders")
    limit = {"tenant": "acme", "apply": "yes"}
    await browser.post("/orders/limit", **limit, weight="3", most_open="500")
    shown = (await browser.post("/orders/limit", tenant="acme", weight="2")).text
    assert shown.index("weight: 2") < shown.index("takes the place") < shown.index("weight: 3")
    done = await browser.post("/orders/limit", **limit, weight="2")
    text = (await browser.follow(done)).text
    assert "weight: 2" in text
    assert "most_open: 500" in text


@pytest.mark.parametrize(
    ("form", "fields", "named"),
    [
        ("lift", {"kind": "drain"}, "kind"),
        ("lift", {"kind": "block"}, "kind"),
        ("lift", {"kind": "x", "tenant": "acme"}, "kind"),
        ("pause", {"work": "everything"}, "work"),
        ("pause", {"work": "replies", "for_s": "soon"}, "for_s"),
        ("pause", {"work": "replies", "until": "soon"}, "until"),
        ("pause", {"work": "replies", "until": "2099-01-01", "for_s": "1h"}, "until"),
        ("pause", {"work": "replies", "until": "2020-01-01", "apply": "yes"}, "until"),
        ("pause", {"work": "replies", "tenant": " ", "user_id": "\x00"}, "user_id"),
        ("strike", {"tenant": "acme", "every_s": "0s"}, "every_s"),
        ("limit", {"tenant": "acme"}, "limits"),
        ("limit", {"tenant": "acme", "weight": "-1"}, "weight"),
        ("limit", {"tenant": "acme", "weight": "1001"}, "weight"),
        ("limit", {"tenant": "acme", "most_bytes": "9" * 15}, "most_bytes"),
        ("limit", {"weight": "2"}, "tenant"),
        ("drain", {"kind": "other"}, "kind"),
        ("drain", {"kind": "responses"}, "kind"),
        ("drain", {"worker": "nobody:1"}, "worker"),
        ("drain", {"worker": "host:1", "kind": "responses"}, "worker"),
        ("drain", {}, "worker"),
    ],
)
async def test_a_wrong_order_is_named_and_not_given(
    browser: Browser, ledger: Ledger, form: str, fields: dict[str, str], named: str
) -> None:
    await browser.get("/orders")
    answer = await browser.post(f"/orders/{form}", **fields)
    assert answer.status_code == httpx.codes.UNPROCESSABLE_ENTITY
    assert f"{named}: " in answer.text
    assert await ledger.orders.in_force() == []


async def test_workers_of_a_kind_are_drained_or_none_of_them(
    browser: Browser, ledger: Ledger, inspector: LedgerInspector
) -> None:
    async def beat(name: str, instance: str) -> None:
        await ledger.maintenance.record_heartbeat("replies", name, [], instance=instance)
        # However long a test takes, it is not gone.
        inspector.redis.zincrby(inspector.keys.workers, 3_600_000, f"replies {name}")

    await beat("host:1", "a")
    await beat("old:1", "")
    await browser.get("/workers")
    drain = {"kind": "responses", "apply": "yes"}
    answer = await browser.post("/orders/drain", **drain)
    assert answer.status_code == httpx.codes.UNPROCESSABLE_ENTITY
    assert "the version of old:1 obeys no orders" in answer.text
    assert await ledger.orders.in_force() == []
    await ledger.maintenance.forget_worker("replies", "old:1")
    await beat("host:2", "b")
    shown = (await browser.post("/orders/drain", kind="responses")).text
    assert "host:1" in shown
    assert "host:2" in shown
    await browser.follow(await browser.post("/orders/drain", **drain))
    assert {order.worker for order in await ledger.orders.in_force()} == {"host:1", "host:2"}
