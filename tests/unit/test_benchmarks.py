"""What the benchmarks do with what they have measured."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree as ET

import click
import pytest
from click.testing import CliRunner

from afterword.shared.errors import LedgerUnavailable
from benchmarks.added_latency import added_ms
from benchmarks.attacks import why_blind
from benchmarks.designs import why_degraded
from benchmarks.figures import percentile
from benchmarks.plots import bars, curves
from benchmarks.provider import AnswerTiming, _stream
from benchmarks.report import goals, to_markdown, update_report
from benchmarks.sections import Finding, Options, Row, run_section

_SVG = "{http://www.w3.org/2000/svg}"


@pytest.mark.parametrize(
    ("values", "percent", "found"),
    [
        ([5.0], 50, 5.0),
        ([5.0], 99, 5.0),
        ([3.0, 1.0, 2.0], 50, 2.0),
        ([float(n) for n in range(1, 101)], 99, 99.0),
        ([float(n) for n in range(1, 101)], 100, 100.0),
        ([float(n) for n in range(1, 102)], 99, 100.0),
    ],
)
def test_a_percentile_is_the_smallest_value_that_so_many_do_not_exceed(
    values: list[float], percent: float, found: float
) -> None:
    assert percentile(values, percent) == found


def test_added_latency_is_what_passed_less_the_providers_own_time() -> None:
    timing = AnswerTiming(model_ms=200, recall_ms=50, deltas=11, gap_ms=20)
    assert (timing.first_ms, timing.whole_ms) == (250, 450)
    assert added_ms(10.0, 10.256, timing.first_ms) == pytest.approx(6)
    assert added_ms(10.0, 10.456, timing.whole_ms) == pytest.approx(6)


@pytest.mark.parametrize(
    ("row", "goal", "met"),
    [
        (Row("f", 6.0, "ms", at_most=6), "at most 6", True),
        (Row("f", 6.1, "ms", at_most=6), "at most 6", False),
        (Row("f", 1.0, at_most=0), "at most 0", False),
        (Row("f", 6.0, at_least=6), "at least 6", True),
        (Row("f", 5.9, at_least=6), "at least 6", False),
        (Row("f", 5.9), "", True),
    ],
)
def test_a_figure_meets_its_goal_or_misses_it(row: Row, goal: str, *, met: bool) -> None:
    assert (row.goal, row.met) == (goal, met)


def test_each_figure_stands_beside_its_goal() -> None:
    table = goals([Row("p50", 5.25, "ms", 6), Row("p99", 13.0, "ms", 12), Row("late", 1.0, "ms")])
    assert table.splitlines()[2:] == [
        "| p50 | 5.25 ms | at most 6 | met |",
        "| p99 | 13 ms | at most 12 | **missed** |",
        "| late | 1 ms |  |  |",
    ]


@pytest.mark.parametrize(
    ("recalled", "why"),
    [('["degraded","over_budget",0,0,0,400,[]]', "over_budget"), ('["fresh","",3,3,0,4,[]]', "")],
)
def test_a_reply_without_memory_says_why(recalled: str, why: str) -> None:
    story = f"1796143919176 claim 1 vm:1\n1796143928558 reply 1 [{recalled},[]]"
    assert why_degraded(story) == why


def test_a_section_that_breaks_off_is_a_failure_and_says_why() -> None:
    def lost(_options: Options) -> Finding:
        raise AssertionError("job 7 is lost")

    finding = run_section(lost, Options())
    assert finding.failures == ["AssertionError('job 7 is lost')"]
    assert "**Failed**: AssertionError('job 7 is lost')" in to_markdown("latency", finding)


def test_a_report_of_one_section_leaves_the_others_as_they_were(tmp_path: Path) -> None:
    order = ["one", "two"]
    update_report(
        tmp_path, {"two": Finding([Row("b", 2.0)], plots={"two": "<svg/>"}, runs=[2])}, order
    )
    update_report(tmp_path, {"one": Finding([Row("a", 1.0, at_most=2)])}, order)
    kept = json.loads((tmp_path / "latest.json").read_text())["sections"]
    assert list(kept) == order
    assert kept["two"]["runs"] == [2]
    assert kept["one"]["rows"][0]["at_most"] == 2
    text = (tmp_path / "latest.md").read_text()
    assert text.index("## one") < text.index("## two") < text.index("![two](two.svg)")
    assert (tmp_path / "two.svg").read_text() == "<svg/>"


def test_the_longest_bar_belongs_to_the_largest_value() -> None:
    root = ET.fromstring(bars({"slow & steady": 4.0, "fast": 1.0}, "ms"))
    widths = [float(bar.attrib["width"]) for bar in root.iter(f"{_SVG}rect")]
    texts = [text.text for text in root.iter(f"{_SVG}text")]
    assert widths == [90, 360]
    assert texts == ["fast", "1.00 ms", "slow & steady", "4.00 ms"]


def test_a_curve_runs_from_the_origin_to_the_largest_of_all() -> None:
    root = ET.fromstring(curves({"a": [(0, 0), (50, 5)], "b": [(100, 10)]}, "share", "ms"))
    lines = [line.attrib["points"] for line in root.iter(f"{_SVG}polyline")]
    assert lines == ["60.0,260.0 350.0,147.0", "640.0,34.0"]
    assert {"share", "ms", "a", "b", "100", "10"} <= {
        text.text for text in root.iter(f"{_SVG}text")
    }


def test_a_curve_of_nothing_but_zeros_can_be_drawn() -> None:
    assert "60.0,260.0" in curves({"a": [(0, 0)]}, "x", "y")


def test_an_answer_in_parts_is_the_same_answer() -> None:
    (at_once,) = _stream("text", AnswerTiming(deltas=3))
    parts = _stream("text", AnswerTiming(deltas=3, gap_ms=5))
    assert len(parts) == 3
    assert b"".join(parts) == at_once


@pytest.mark.parametrize(
    ("raised", "why"),
    [
        (None, ""),
        (LedgerUnavailable(), ""),
        (SystemExit(1), ""),
        (SystemExit(3), "exit 3"),
        (KeyError("secret"), "KeyError at "),
    ],
)
def test_only_a_command_that_breaks_leaves_an_operator_blind(
    raised: BaseException | None, why: str
) -> None:
    @click.command
    def look() -> None:
        if raised is not None:
            raise raised

    found = why_blind(CliRunner().invoke(look))
    assert found.startswith(why)
    assert bool(found) == bool(why)
    assert "secret" not in found
