"""The capacity calculator: each figure by hand, and its defaults are the product's."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from click.testing import CliRunner

from afterword.shared.settings import Settings
from benchmarks import capacity
from benchmarks.capacity import Load, main, need, shown
from benchmarks.simulation import BUSY, COSTS, plan

DAY = Load(
    replies_per_s=100, answer_s=2, write_s=2, retention_s=86_400, stream_s=900, own_cores=False
)


def test_redis_holds_streams_for_their_time_and_records_for_theirs() -> None:
    assert need(DAY).redis_gb == 100 * (9.6 * 900 + 5.0 * 85_500) / 1e6
    assert need(replace(DAY, retention_s=60)).redis_gb == 100 * 9.6 * 60 / 1e6


def test_stories_are_kept_beyond_their_jobs() -> None:
    more = need(replace(DAY, story_s=172_800)).redis_gb - need(DAY).redis_gb
    assert round(more, 6) == round(100 * 0.9 * 86_400 / 1e6, 6)
    assert need(replace(DAY, story_s=60)) == need(DAY)


def test_memory_workers_have_slots_for_the_turns_in_flight() -> None:
    assert need(DAY).memory_workers == 2  # 200 in flight, 160 of 200 slots in use
    assert need(replace(DAY, write_s=0.1)).memory_workers == 1


def test_an_embedder_on_your_own_cores_is_what_counts_there() -> None:
    found = need(replace(DAY, own_cores=True))
    assert found.recall_cores == 8  # 100 searches of 44 ms, at 60 %
    assert found.memory_workers == 7  # 100 adds of 42 ms, at 60 %
    assert need(DAY).recall_cores == 0


def test_response_workers_and_shards_are_those_of_the_plan() -> None:
    found, planned = need(DAY), plan(100, COSTS, BUSY)
    assert (found.response_workers, found.concurrency) == (planned.processes, planned.slots)
    assert found.shards == planned.shards


def test_its_figures_are_those_that_the_documents_give() -> None:
    redis = Path("docs/how-to/redis.md").read_text()
    assert f"| {capacity._WITH_STREAM_KB} KB" in redis
    page = Path("docs/explanation/capacity.md").read_text()
    row = re.search(r"\| 83 characters \| \d+ to (\d+) \| \d+ \| (\d+) \|", page)
    assert row
    assert (float(row[1]), float(row[2])) == (capacity._SEARCH_MS, capacity._ADD_MS)


def test_its_defaults_are_the_settings_defaults() -> None:
    settings = Settings.load({})
    given = {option.name: option.default for option in main.params}
    assert given["retention_s"] == settings.retention_s
    assert given["story_s"] == settings.story_s
    assert given["stream_s"] == settings.stream_retention_s
    assert settings.concurrency == capacity._SLOTS


def test_it_prints_what_it_found() -> None:
    ran = CliRunner().invoke(main, ["--replies", "100"])
    assert ran.exit_code == 0, ran.output
    assert ran.output == shown(need(replace(DAY, story_s=172_800))) + "\n"
    assert CliRunner().invoke(main, ["--replies", "0"]).exit_code == 2
