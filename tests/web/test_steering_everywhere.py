"""Whatever steers the fleet exists in Python, in the shell and on the page, and does the same."""

from __future__ import annotations

import asyncio
import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from typing import Any

import click
import pytest

from afterword.producer import AsyncOperator, Operator, TenantLimits
from afterword.producer.admin.async_steering import AsyncSteering, whom_in
from afterword.producer.admin.sync_steering import Steering
from afterword.producer.cli.main import cli
from afterword.producer.web.app import PAGES
from afterword.shared.ledger.ledger import Ledger
from afterword.shared.ledger.order_records import SteeringOrder
from afterword.shared.settings import Settings
from tests.conftest import ROOT
from tests.kit.command_line import afterword
from tests.kit.console_client import console_client
from tests.kit.ledger.builder import LedgerInspector

pytestmark = pytest.mark.redis

UNTIL = "2099-12-01T06:00:00+00:00"
LIMITS = {"weight": 2, "most_open": 500}
USER = {"tenant": "acme", "user_id": "bea"}
TERMS = {"reason": "it moves", "for_s": 600.0}
TERMS_IN_SHELL = ("--reason", "it moves", "--for", "10m")
TERMS_ON_PAGE = {"reason": "it moves", "for_s": "10m"}


@dataclass(frozen=True)
class Verb:
    """One thing that an operator can do to a running fleet, in each of the three places."""

    python: str
    arguments: dict[str, Any]
    shell: str
    page: str
    form: dict[str, str]
    words: tuple[str, ...] = ()
    before: tuple[str, dict[str, Any]] | None = None
    found: tuple[str, ...] = field(default=())

    def __str__(self) -> str:
        return " ".join((self.python, *self.found))


PAUSE = {"work": "memories"}
VERBS = (
    Verb("steering.pause", PAUSE | TERMS, "pause", "/orders/pause", PAUSE | TERMS_ON_PAGE,
         ("memories", *TERMS_IN_SHELL), found=("everybody",)),
    Verb("steering.pause", PAUSE | USER | {"until": datetime.fromisoformat(UNTIL)}, "pause",
         "/orders/pause", PAUSE | USER | {"until": UNTIL},
         ("memories", "--tenant", "acme", "--user", "bea", "--until", UNTIL), found=("user",)),
    Verb("steering.resume", PAUSE | USER, "resume", "/orders/lift",
         USER | {"kind": "pause-memories"}, ("memories", "--tenant", "acme", "--user", "bea"),
         before=("steering.pause", PAUSE | USER)),
    Verb("steering.strike", USER | TERMS, "strike", "/orders/strike", USER | TERMS_ON_PAGE,
         ("acme", "--user", "bea", *TERMS_IN_SHELL), found=("block",)),
    Verb("steering.strike", {"tenant": "acme", "every_s": 5.0}, "strike", "/orders/strike",
         {"tenant": "acme", "every_s": "5s"}, ("acme", "--every", "5s"), found=("slow",)),
    Verb("steering.lift_strike", USER, "strike", "/orders/lift", USER | {"kind": "block"},
         ("acme", "--user", "bea", "--lift"), before=("steering.strike", USER)),
    Verb("steering.limit", {"tenant": "acme", "limits": TenantLimits(**LIMITS), **TERMS}, "limits",
         "/orders/limit", {"tenant": "acme", "weight": "2", "most_open": "500", **TERMS_ON_PAGE},
         ("acme", "--weight", "2", "--most-open", "500", *TERMS_IN_SHELL)),
    Verb("steering.lift_limits", {"tenant": "acme"}, "limits", "/orders/lift",
         {"tenant": "acme", "kind": "limits"}, ("acme", "--lift"),
         before=("steering.limit", {"tenant": "acme", "limits": TenantLimits(weight=3)})),
    Verb("steering.drain", {"worker": "host:1", "reason": "old"}, "drain", "/orders/drain",
         {"worker": "host:1", "reason": "old"}, ("host:1", "--reason", "old")),
    Verb("steering.drain_kind", {"kind": "responses", "reason": "old"}, "drain", "/orders/drain",
         {"kind": "responses", "reason": "old"}, ("--kind", "responses", "--reason", "old")),
    Verb("shut_gate", {"name": "recall", **TERMS}, "gate shut", "/gates/shut",
         {"name": "recall", **TERMS_ON_PAGE}, ("recall", *TERMS_IN_SHELL)),
    Verb("open_gate", {"name": "recall"}, "gate open", "/gates/open", {"name": "recall"},
         ("recall",), before=("shut_gate", {"name": "recall"})),
)  # fmt: skip

#: What a command has beside what its call takes: who asks, how, and for how long it waits; a
#: gate's dry run is an argument of its call.
ONLY_IN_SHELL = {"apply", "as_json", "by", "lift", "per_minute", "wait_s"}
READERS = {"dry_run", "orders", "workers"}


# -- the three lists


def test_python_has_no_other_verb_and_lacks_none() -> None:
    expected = {verb.python.removeprefix("steering.") for verb in VERBS}
    gates = {name for name in _public(Operator) if name.endswith("_gate")}
    assert _public(AsyncSteering) == _public(Steering)
    assert (_public(AsyncSteering) - READERS) | gates == expected
    assert gates <= _public(AsyncOperator)


def test_the_shell_has_no_other_verb_and_lacks_none() -> None:
    assert {name for name, one in _commands(cli) if _steers(one)} == {verb.shell for verb in VERBS}


def test_the_guide_names_the_commands_that_act_at_once() -> None:
    page = (ROOT / "docs/how-to/shell.md").read_text()
    named = page.partition("`--apply`, but for ")[2].partition(" which act at")[0]
    params = {name: {one.name for one in command.params} for name, command in _commands(cli)}
    at_once = {name for name, has in params.items() if "by" in has and "apply" not in has}
    assert {*re.findall("`(.+?)`", named)} == at_once - {"audit", "console"} | {"submit"}


def test_the_page_has_no_other_verb_and_lacks_none() -> None:
    forms = {page.path for page in PAGES if page.path.startswith(("/orders/", "/gates/"))}
    assert forms == {verb.page for verb in VERBS}


@pytest.mark.parametrize("verb", VERBS, ids=str)
def test_a_command_takes_what_its_call_takes(verb: Verb) -> None:
    command = dict(_commands(cli))[verb.shell]
    offered = {one.name for one in command.params} - ONLY_IN_SHELL
    assert _parameters(verb.python) <= offered
    calls = {one.python for one in VERBS if one.shell == verb.shell}
    assert offered <= {name for call in calls for name in _parameters(call)}


async def test_a_form_takes_what_its_call_takes(settings: Settings, ledger: Ledger) -> None:
    await ledger.maintenance.record_heartbeat("replies", "host:1", [], instance="a")
    async with console_client(settings) as browser:
        pages = [(await browser.get(path)).text for path in ("/orders", "/gates", "/workers")]
    forms = _forms("".join(pages))
    for verb in VERBS:
        if verb.page in ("/orders/lift", "/gates/open"):
            continue  # stands beside what is in force
        assert _parameters(verb.python) - {"reason"} <= forms[verb.page], verb
        calls = {one.python for one in VERBS if one.page == verb.page}
        known = {name for call in calls for name in _parameters(call)}
        assert forms[verb.page] - {"csrf"} <= known, verb


# -- what they do


def _let_the_shell_find(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AFTERWORD_REDIS_URL", str(settings.redis_url))
    monkeypatch.setenv("AFTERWORD_NAMESPACE", settings.namespace)
    monkeypatch.setenv("AFTERWORD_DURABILITY", "none")


@pytest.mark.parametrize("verb", VERBS, ids=str)
def test_all_three_do_the_same(
    verb: Verb, settings: Settings, inspector: LedgerInspector, monkeypatch: pytest.MonkeyPatch
) -> None:
    _let_the_shell_find(settings, monkeypatch)
    done = []
    for do in (_by_python, _by_shell, _by_page):
        asyncio.run(_prepare(settings, inspector, verb))
        do(settings, verb)
        done.append(asyncio.run(_seen(settings)))
    assert done[0] == done[1], "the shell does what Python does"
    assert done[0] == done[2], "the page does what Python does"
    orders, gates, audit = done[0]
    assert audit
    assert bool(orders or gates) is (verb.before is None)


@pytest.mark.parametrize("verb", VERBS, ids=str)
def test_a_form_changes_nothing_before_its_dry_run_was_seen(
    verb: Verb, settings: Settings, inspector: LedgerInspector
) -> None:
    async def look() -> str:
        await _prepare(settings, inspector, verb)
        before = await _seen(settings)
        async with console_client(settings) as browser:
            await browser.get("/orders")
            answer = await browser.post(verb.page, **verb.form)
        assert await _seen(settings) == before
        return answer.text

    shown = asyncio.run(look())
    assert "Nothing has changed yet" in shown
    assert 'name="apply" value="yes"' in shown


@pytest.mark.parametrize("verb", VERBS, ids=str)
def test_a_command_changes_nothing_without_apply(
    verb: Verb, settings: Settings, inspector: LedgerInspector, monkeypatch: pytest.MonkeyPatch
) -> None:
    _let_the_shell_find(settings, monkeypatch)
    asyncio.run(_prepare(settings, inspector, verb))
    before = asyncio.run(_seen(settings))
    printed = afterword(*verb.shell.split(), *verb.words)
    assert "Add --apply" in printed.everything
    assert asyncio.run(_seen(settings)) == before


def _forms(page: str) -> dict[str, set[str]]:
    """Return which fields the forms of a page have, by where they are sent to."""
    found: dict[str, set[str]] = {}
    for path, inside in re.findall(r'<form[^>]* action="([^"]+)">(.*?)</form>', page, re.DOTALL):
        names = re.findall(r'<(?:input|select)[^>]* name="([^"]+)"', inside)
        found.setdefault(path, set()).update(names)
    return found


def _public(kind: type) -> set[str]:
    return {name for name, _ in inspect.getmembers(kind, callable) if not name.startswith("_")}


def _parameters(python: str) -> set[str]:
    owner = AsyncSteering if python.startswith("steering.") else AsyncOperator
    names = {*inspect.signature(getattr(owner, python.removeprefix("steering."))).parameters}
    if "limits" in names:
        names = names - {"limits"} | {one.name for one in fields(TenantLimits)}
    return names - {"self", "dry_run"}


def _commands(group: click.Command, name: str = "") -> Iterator[tuple[str, click.Command]]:
    if isinstance(group, click.Group):
        context = click.Context(group)
        for one in group.list_commands(context):
            command = group.get_command(context, one)
            assert command is not None
            yield from _commands(command, f"{name} {one}".strip())
    else:
        yield name, group


def _steers(command: click.Command) -> bool:
    """Return whether a command gives or lifts an order, or shuts or opens a gate."""
    names = {one.name for one in command.params}
    module = inspect.getmodule(inspect.unwrap(command.callback)) if command.callback else None
    source = inspect.getsource(module) if module else ""
    return "by" in names and ("steered(" in source or "shut_gate(" in source)


async def _prepare(settings: Settings, inspector: LedgerInspector, verb: Verb) -> None:
    """Leave nothing in force but what the verb lifts, and a worker that can be drained."""
    async with Ledger(settings, patience_s=5.0) as ledger:
        for order in await ledger.orders.in_force():
            await ledger.orders.lift(order.kind, whom_in(order))
        await ledger.gates.open("recall", by="test")
        inspector.redis.delete(inspector.keys.gate("recall"))
        await ledger.maintenance.record_heartbeat("replies", "host:1", [], instance="a")
        # However long a test takes, it is not gone.
        inspector.redis.zincrby(inspector.keys.workers, 3_600_000, "replies host:1")
    if verb.before:
        async with AsyncOperator(settings, by="before") as operator:
            await _call(operator, *verb.before)


async def _call(operator: AsyncOperator, python: str, arguments: dict[str, Any]) -> None:
    owner = operator.steering if python.startswith("steering.") else operator
    await getattr(owner, python.removeprefix("steering."))(**arguments)


def _by_python(settings: Settings, verb: Verb) -> None:
    async def done() -> None:
        async with AsyncOperator(settings, by="ann@host") as operator:
            await _call(operator, verb.python, verb.arguments)

    asyncio.run(done())


def _by_shell(_: Settings, verb: Verb) -> None:
    printed = afterword(*verb.shell.split(), *verb.words, "--apply", "--by", "ann@host")
    assert printed.code == 0, printed.everything


def _by_page(settings: Settings, verb: Verb) -> None:
    async def done() -> None:
        async with console_client(settings) as browser:
            await browser.get("/orders")
            await browser.follow(await browser.post(verb.page, **verb.form, apply="yes"))

    asyncio.run(done())


async def _seen(settings: Settings) -> tuple[list[Any], list[Any], Any]:
    """Return what is in force and the newest entry of the audit, without when it was."""
    async with Ledger(settings, patience_s=5.0) as ledger:
        orders = await ledger.orders.in_force()
        gates = [gate for gate in await ledger.gates.not_open() if str(gate.state) == "shut"]
        entries = await ledger.replay_runs.audit_entries(1)
        return (
            [(one.kind, whom_in(one), one.by, one.reason, one.every_s, one.limits,
              _end(one)) for one in orders],
            [(one.name, one.by, one.reason) for one in gates],
            [(one.by, one.action, one.details) for one in entries],
        )  # fmt: skip


def _end(order: SteeringOrder) -> object:
    """Return for how long an order is, or when it ends if that was said: both are exact."""
    if order.until is None or order.until == datetime.fromisoformat(UNTIL):
        return order.until
    return order.until - order.since


assert datetime.fromisoformat(UNTIL).tzinfo == UTC
