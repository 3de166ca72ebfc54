"""What a story says about a complaint, in sentences: "it forgot what I told it yesterday"."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from afterword.producer.admin.wording import duration
from afterword.shared.ledger.story_records import JobStory, StepKind, StoryStep
from afterword.shared.lifecycle import JobState, TurnState
from afterword.shared.plurals import quantity

#: Why the reply was written without what memory holds.
_RECALLS = {
    "over_budget": "the search took longer than AFTERWORD_RECALL_BUDGET_MS",
    "recall_queue": "its worker had more searches to make than it can",
    "shut_by_hand": "somebody shut the gate of recall",
}
_LEFT_OUT = {
    "no_place": "others fitted better, and there is room for AFTERWORD_RECALL_TOP_K",
    "low_score": "it fitted less than AFTERWORD_RECALL_MIN_SCORE",
    "repeat": "a newer one, or the message, says the same",
    "no_room": "the prompt was full, or has its turn itself",
}
_NOT_STORED = {
    "memory_off": "memory is off",
    "refusal": "the model refused to answer",
    "opted_out": "its request said that it is not to be remembered",
    "pleasantry": "it only greets, thanks, reacts, or asks to go on or to try again",
    "question_only": "it only asks, and says nothing of the user",
    "request_only": "it only asks for work, or to forget something",
    "quoted_only": "all of it is quoted, so nothing in it is the user's own",
    "no_fact": "no fact was found in it",
    "known_facts": "memory had each of its facts already",
}
#: Why nothing of a user was stored for a time.
_LANE_WAITS = {
    "shut_by_hand": "somebody shut the gate of memory",
    "message_batch": "its facts were extracted in a message batch, which takes up to a day",
    "message_batch_failed": "its message batch had no answer, so it needed a call of its own",
}
_CAPS = {"tenant_running": "its tenant", "user_running": "its user"}
_ORDERS = {
    "pause-replies": "an operator paused replies",
    "pause-memories": "an operator paused writes to memory",
    "block": "an operator blocked its tenant or its user",
    "slow": "an operator slows its tenant or its user down",
}

#: A shorter wait for others is as usual where many tenants share the workers.
_BRIEF_S = 1.0

#: What is said of a step that may be a cause, and the words for its reason.
_STEPS: dict[StepKind, tuple[str, Mapping[str, str]]] = {
    StepKind.LANE_WAITS: ("Nothing of the user could be stored for a time: {why}.", _LANE_WAITS),
    StepKind.PARKED: ("It had to wait: {why}.", _ORDERS),
    StepKind.CAPPED: ("It had to wait{length}: {why} ran as many jobs as it may.", _CAPS),
    StepKind.PASSED_OVER: ("It had to wait{length}: it was the turn of another tenant.", {}),
    StepKind.WAITED_BEHIND: (
        "It had to wait{length} for an earlier turn of the same user{behind}:",
        {},
    ),
    StepKind.STORED: ("It was stored without the secrets in it: {secrets}.", {}),
    StepKind.CORRECTED: (
        "The user changed memories of it: {why}.",
        {"": "edited or deleted"},
    ),
    StepKind.BURIED: ("It could not be stored: {why}.", {}),
}


@dataclass(frozen=True, slots=True)
class Explanation:
    """A cause in one sentence, without content."""

    text: str
    """The sentence; it ends with a colon if `about` belongs to it."""

    about: str | None = None
    """The other job that it is about, if it is about one."""


def explained(story: JobStory) -> Sequence[Explanation]:
    """Return what became of a job and its turn in sentences, without content.

    What is as usual is not told: a reply that had all memories and a turn that was stored at once
    have no sentence.
    """
    return [*_of_the_reply(story), *_of_the_turn(story)]


def _of_the_reply(story: JobStory) -> Iterator[Explanation]:
    if story.state is JobState.FAILED:
        yield Explanation(f"There was no reply: {story.code}.")
    recalls = [step for step in story.steps if step.kind is StepKind.RECALLED]
    if recalls and story.memory == "degraded":
        reason = recalls[-1].reason
        yield Explanation(
            "The reply was written without what memory holds, or without a part of it: "
            f"{_RECALLS.get(reason, reason or 'not every memory could be read')}."
        )
    for left in story.left_out:
        why = _LEFT_OUT.get(left.reason, left.reason)
        yield Explanation(f"Memory {left.id} was found and not given to the model: {why}.")
    if story.memories:
        given = quantity(len(story.memories), "memory", "memories")
        yield Explanation(f"The model was given {given}.")


def _of_the_turn(story: JobStory) -> Iterator[Explanation]:
    said_by_its_state = {StepKind.BURIED} if story.turn is TurnState.DEAD else set[StepKind]()
    for step in (one for one in story.steps if one.kind not in said_by_its_state):
        if sentence := _of_step(step):
            yield Explanation(sentence, step.about if sentence.endswith(":") else None)
    ended = story.state in (JobState.SUCCEEDED, JobState.CANCELLED)
    code = story.turn_code or ""
    match story.turn:
        case TurnState.PENDING | TurnState.WRITING if ended:
            waits = f": it waits for {story.waits_for}" if story.waits_for else ""
            yield Explanation(f"What was said is not in memory yet{waits}.")
        case TurnState.SKIPPED | TurnState.NOTHING:
            yield Explanation(f"What was said is not in memory: {_NOT_STORED.get(code, code)}.")
        case TurnState.NONE if ended:
            why = _NOT_STORED.get(code, code) or "its request, or a setting, said so"
            yield Explanation(f"What was said was not to be remembered: {why}.")
        case TurnState.DEAD:
            yield Explanation(f"What was said could not be stored and is a dead letter: {code}.")
        case TurnState.ERASED:
            yield Explanation("The user was erased, and everything they said with them.")


def _of_step(step: StoryStep) -> str:
    """Return a sentence for a step that may be a cause, '' for any other one."""
    if step.kind not in _STEPS or _is_usual(step):
        return ""
    sentence, words = _STEPS[step.kind]
    return sentence.format(
        why=words.get(step.reason, step.reason),
        length="" if step.duration_s is None else f" {duration(step.duration_s)}",
        secrets=step.details.get("secrets"),
        behind=_behind(step),
    )


def _is_usual(step: StoryStep) -> bool:
    if step.kind in (StepKind.CAPPED, StepKind.PASSED_OVER):
        return step.duration_s is not None and step.duration_s < _BRIEF_S
    return step.kind is StepKind.STORED and "secrets" not in step.details


def _behind(step: StoryStep) -> str:
    """Return what became of an earlier turn, and why it took so long."""
    is_dead = step.details.get("turn") == TurnState.DEAD
    became = " until that became a dead letter" if is_dead else ""
    return became + (f" ({step.reason})" if step.reason else "")
