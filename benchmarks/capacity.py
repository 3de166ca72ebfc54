"""How many workers, and how much Redis, a rate of replies needs: measured costs, times your rate.

`python -m benchmarks.capacity --replies 200` prints it. docs/explanation/capacity.md has the
formulas and says where each figure comes from.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import click

from benchmarks.simulation import BUSY, COSTS, Costs, plan

#: Redis' memory for an answered job, in KB: with its stream, and after that.
_WITH_STREAM_KB, _WITHOUT_KB = 9.6, 5.0

#: What is kept of it for longer, see docs/reference/retention.md.
_STORY_KB = 0.9

#: CPU of a search and of an add with the embedder on your own cores, in ms, of 83 characters.
_SEARCH_MS, _ADD_MS = 44.0, 42.0

#: The share of the slots of a worker that is planned to be in use.
_FULL = 0.8

#: Slots of a memory worker, `AFTERWORD_CONCURRENCY`.
_SLOTS = 200


@dataclass(frozen=True)
class Load:
    """What is to be served; times in seconds."""

    replies_per_s: float
    answer_s: float
    write_s: float
    retention_s: float
    stream_s: float
    own_cores: bool
    story_s: float = 0.0


@dataclass(frozen=True)
class Need:
    """What that takes; `redis_gb` is what its data take, its limit should be twice that."""

    response_workers: int
    concurrency: int
    memory_workers: int
    recall_cores: int
    shards: int
    redis_gb: float


def need(load: Load) -> Need:
    """Return what a load needs, each core at most 60 % busy."""
    replies = plan(load.replies_per_s, Costs(COSTS.worker_ms, COSTS.redis_ms, load.answer_s), BUSY)
    streamed_s = min(load.stream_s, load.retention_s)
    kilobytes = _WITH_STREAM_KB * streamed_s + _WITHOUT_KB * (load.retention_s - streamed_s)
    kilobytes += _STORY_KB * max(0.0, load.story_s - load.retention_s)
    by_slots = load.replies_per_s * load.write_s / (_SLOTS * _FULL)
    return Need(
        response_workers=replies.processes,
        concurrency=replies.slots,
        memory_workers=max(1, math.ceil(max(by_slots, _cores(load, _ADD_MS)))),
        recall_cores=math.ceil(_cores(load, _SEARCH_MS)),
        shards=replies.shards,
        redis_gb=load.replies_per_s * kilobytes / 1e6,
    )


def _cores(load: Load, milliseconds: float) -> float:
    """Return how many cores an embedder on your own machines needs for so much of each reply."""
    cores = load.replies_per_s * milliseconds / 1000 / BUSY if load.own_cores else 0.0
    return round(cores, 6)  # what floats add must not be another core


def shown(found: Need) -> str:
    """Return what is printed."""
    rows = {
        "response workers": f"{found.response_workers}, each --concurrency {found.concurrency}",
        "memory workers": str(found.memory_workers),
        "cores for recall": f"{found.recall_cores} besides those" if found.recall_cores else "none",
        "shards": str(found.shards),
        "Redis": f"{found.redis_gb:.1f} GB of data, maxmemory {2 * found.redis_gb:.1f} GB",
    }
    return "\n".join(f"{name:<17} {text}" for name, text in rows.items())


@click.command()
@click.option("--replies", type=click.FloatRange(0, min_open=True), required=True, help="A second.")
@click.option("--answer-s", type=click.FloatRange(0), default=2.0, help="The model's time.")
@click.option("--write-s", type=click.FloatRange(0), default=2.0, help="mem0's time for a turn.")
@click.option("--retention-s", type=click.FloatRange(0), default=86_400.0)
@click.option("--story-s", type=click.FloatRange(0), default=172_800.0)
@click.option("--stream-s", type=click.FloatRange(0), default=900.0)
@click.option("--own-cores", is_flag=True, help="The embedder runs on the workers' cores.")
def main(**given: float) -> None:
    """Print what a rate of replies needs."""
    print(shown(need(_load(**given))))


def _load(*, replies: float, own_cores: float, **seconds: float) -> Load:
    return Load(replies_per_s=replies, own_cores=bool(own_cores), **seconds)


if __name__ == "__main__":
    main()
