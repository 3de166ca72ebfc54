"""The story of a job as lines for people: how it is, its steps, its memories."""

from __future__ import annotations

from collections.abc import Iterator

from afterword.producer.admin.explanation import explained
from afterword.producer.admin.wording import (
    exact_time,
    step_facts,
    step_name,
    utc_time,
    with_reason,
)
from afterword.producer.cli import render
from afterword.producer.cli.options import tell_of_more
from afterword.producer.cli.terminal import echo, indented, one_line
from afterword.shared.contracts import Extraction
from afterword.shared.ledger.story_records import (
    JobStory,
    MemoryGiven,
    StoryStep,
    UserJobs,
)
from afterword.shared.plurals import quantity


def print_story(story: JobStory) -> None:
    """Print a story: facts, what may explain a complaint, and the steps in the order of time."""
    for name, value in _head(story):
        echo(f"{name}: {indented(value)}")
    echo()
    _print_explanation(story)
    render.table(
        ("time", "step", "reason", "attempt", "worker", "more"),
        [
            (exact_time(step.at), step_name(step),
             step.reason or "-", step.attempt or "-", step.worker or "-", _more(step))
            for step in story.steps
        ],
    )  # fmt: skip
    if story.steps_left_out:
        echo("Some steps between these are left out.")
    _print_memories(story)


def _print_explanation(story: JobStory) -> None:
    """Print in words what the console says in words."""
    found = explained(story)
    if not found:
        return
    echo("in words:")
    for one in found:
        echo(one_line(f"  - {one.text} {one.about}" if one.about else f"  - {one.text}"))
    echo()


def print_user_jobs(page: UserJobs) -> None:
    """Print a job a row, and how to see more of them."""
    render.table(
        ("job", "submitted", "state", "turn", "memory", "given", "stored"),
        [
            (one.job_id, utc_time(one.created_at),
             "imported" if one.imported else with_reason(one.state, one.code),
             with_reason(one.turn, one.turn_code), one.memory or "-", one.memories, one.stored)
            for one in page.jobs
        ],
    )  # fmt: skip
    if page.next:
        tell_of_more(page.next)


def _head(story: JobStory) -> Iterator[tuple[str, str]]:
    """Yield the facts that stand above the steps."""
    yield "job", f"{story.job_id} is {with_reason(story.state, story.code)}"
    yield "turn", with_reason(story.turn, story.turn_code)
    if story.waits_for:
        until = f" until {utc_time(story.waits_until)}" if story.waits_until else ""
        yield "waits for", story.waits_for + until
    if story.user_id is not None:
        yield "user", f"{story.user_id} of {story.tenant}"
    if story.conversation_id is not None:
        yield "conversation", story.conversation_id
    if story.replay_of:
        yield "replays", story.replay_of
    if story.replayed_as:
        yield "replayed as", story.replayed_as
    yield from _content(story)


def _content(story: JobStory) -> Iterator[tuple[str, str]]:
    """Yield what was said, if it was requested, or that it is gone."""
    if not story.job_kept:
        yield (
            "kept",
            "its story only: not what was said, nor what the memories say that it was given",
        )
    if story.message is not None:
        yield "message", story.message
    if story.reply is not None:
        yield "reply", story.reply


def _extraction(paid: Extraction) -> str:
    usage = paid.usage
    given = usage.input + usage.cache_read + usage.cache_write
    each = "" if paid.fact_usd is None else f", {paid.fact_usd:.6f} USD each"
    return (
        f"{given} input and {usage.output} output tokens, {paid.cost_usd:.6f} USD, "
        f"{quantity(paid.facts, 'memory', 'memories')}{each}"
    )


def _more(step: StoryStep) -> str:
    """Return what a step is about and what is known of it."""
    known = [step.about, *step_facts(step)] if step.about else step_facts(step)
    return one_line(", ".join(known))


def _print_memories(story: JobStory) -> None:
    if story.memory is not None:
        echo()
        echo(f"memory of the reply: {story.memory}")
    for memory in story.memories:
        echo(f"  given {_given(memory)}")
    for left in story.left_out:
        echo(f"  left out {one_line(left.id)}: {left.reason}")
    if story.memory_ids:
        echo()
        echo("memories that came of it:")
    for memory_id in story.memory_ids:
        echo(f"  {one_line(memory_id)}")
    if story.extraction is not None:
        echo(f"extraction: {_extraction(story.extraction)}")


def _given(memory: MemoryGiven) -> str:
    score = "" if memory.score is None else f", score {memory.score:.2f}"
    day = f", of {memory.created_at:%Y-%m-%d}" if memory.created_at else ""
    text = f": {indented(memory.text)}" if memory.text is not None else ""
    return f"{one_line(memory.id)}{score}{day}{text}"
