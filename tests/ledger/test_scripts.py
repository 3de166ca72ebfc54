"""The scripts as texts: each explained, each used, all speaking of the keys that Python means."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from afterword.shared import ledger as package
from afterword.shared.hints import TASK_OF, envelope
from afterword.shared.names import MEMORIES, REPLIES, Keys, queue_key
from afterword.shared.transport.scripts import script
from tests.kit.ledger.builder import LedgerInspector

if TYPE_CHECKING:
    from collections.abc import Sequence

LUA = Path(package.__file__).with_name("lua")
SHARED, ALONE, TOGETHER = "_lib", "single", "batched"
STEPS = sorted(str(path.relative_to(LUA).with_suffix("")) for path in LUA.glob("*/*.lua"))
SOURCES = {path.stem: path.read_text() for path in LUA.parent.glob("*.py")}
ROOT = "ns:{0a}"
PRIORITIES = {"high": 0, "normal": 3, "low": 6}


def evaluate(
    inspector: LedgerInspector, body: str, *arguments: str | int, broker: str = "b:"
) -> Sequence[object]:
    """Run a few lines with what all scripts share in front; return what they return."""
    text = (LUA / f"{SHARED}.lua").read_text() + body
    return inspector.redis.eval(text, 1, f"{inspector.keys.root}", broker, *arguments)  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", [SHARED, ALONE, TOGETHER, *STEPS])
def test_every_script_begins_with_what_it_does_and_takes(name: str) -> None:
    lines = (LUA / f"{name}.lua").read_text().splitlines()
    head = list(itertools.takewhile(lambda line: line.startswith("--"), lines))

    assert re.match(r"-- [A-Z].+", head[0]), "a sentence first"
    text = "\n".join(head)
    if name != SHARED:
        used = {int(number) for number in re.findall(r"ARGV\[(\d+)\]", "\n".join(lines))}
        told = {int(number) for number in re.findall(r"\[(\d+)\]", text)}
        assert "Answers" in text
        assert used <= told, f"ARGV {sorted(used - told)} are not explained"


@pytest.mark.parametrize("name", STEPS)
def test_every_script_is_used_by_a_door(name: str) -> None:
    callers = [module for module, text in SOURCES.items() if f'"{name}"' in text]

    assert callers, f"nobody runs {name}.lua"


@pytest.mark.parametrize("name", STEPS)
def test_every_way_out_of_a_script_carries_the_hints_left_to_send(name: str) -> None:
    """Every top-level `return` goes through `answer`, or hints to a broker elsewhere are lost."""
    lines = (LUA / f"{name}.lua").read_text().splitlines()
    outside = _outside_functions(lines)

    assert lines[-1].startswith("return ")
    for line in outside:
        for found in re.findall(r"\breturn\b(.*)", line):
            assert re.match(r" (answer|granted)\(", found), line


def _outside_functions(lines: list[str]) -> list[str]:
    kept, inside = [], False
    for line in lines:
        if re.match(r"local function", line):
            inside = not line.rstrip().endswith(" end")
        elif inside:
            inside = line.rstrip() != "end"
        else:
            kept.append(line)
    return kept


@pytest.mark.parametrize(
    ("name", "many"), [*((name, False) for name in STEPS), ("job/submit", True)], ids=str
)
def test_a_script_carries_what_it_uses_of_the_shared_part_and_nothing_else(
    name: str, *, many: bool
) -> None:
    text = re.sub(r"--.*", "", script(name, many=many).text)
    shared = (LUA / f"{SHARED}.lua").read_text()
    for line in re.findall(r"^local (?:function )?(\w+(?:, \w+)*)", shared, re.MULTILINE):
        names = line.split(", ")
        carried = re.search(rf"^local (?:function )?{re.escape(line)}\b", text, re.MULTILINE)
        assert bool(carried) == any(len(re.findall(rf"\b{each}\b", text)) > 1 for each in names)


@pytest.mark.redis
def test_the_keys_have_the_shapes_that_python_means(inspector: LedgerInspector) -> None:
    keys = inspector.keys
    lua = evaluate(
        inspector,
        "return { job_key('j'), events_key('j'), DEAD, root .. ':wake:j', root .. ':fenced' }",
    )

    assert lua == [keys.job("j"), keys.events("j"), keys.dead, keys.wake("j"), keys.fenced]


@pytest.mark.redis
@pytest.mark.parametrize(("priority", "step"), PRIORITIES.items())
def test_the_queues_have_the_names_that_kombu_means(
    inspector: LedgerInspector, priority: str, step: int
) -> None:
    (name, queue, told) = evaluate(inspector, f"return {{ queue_key('replies.{step}') }}")

    assert name == "b:" + queue_key(REPLIES, priority)  # type: ignore[arg-type]
    assert (queue, told) == (REPLIES, str(step))


@pytest.mark.redis
@pytest.mark.parametrize("arg", [f"j00_{7:032x}", "l00_default/a%20b%22%5C~._-"])
@pytest.mark.parametrize(("queue", "step"), [(REPLIES, 0), (REPLIES, 6), (MEMORIES, 0)])
def test_the_message_is_the_same_byte_by_byte(
    inspector: LedgerInspector, queue: str, step: int, arg: str
) -> None:
    text = evaluate(inspector, f"return envelope('{queue}', '{step}', ARGV[2], 7)", arg)

    assert text == envelope(TASK_OF[queue], arg, f"{arg}.7", step=step)


@pytest.mark.redis
def test_no_two_messages_have_the_same_name(inspector: LedgerInspector) -> None:
    evaluate(inspector, "hint('replies.0', 'j') hint('replies.0', 'j')")

    assert len(set(inspector.redis.lrange("b:replies", 0, -1))) == 2


def test_a_shard_is_spelt_the_same_everywhere() -> None:
    assert Keys("ns", 10).root == ROOT
