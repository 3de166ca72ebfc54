"""The image's recipe: pinned, hashed, without secrets, and not run as root."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from tests.conftest import ROOT
from tests.kit.compose_file import document
from tests.packaging.dockerfile import Instruction, instructions

TEXT = (ROOT / "Dockerfile").read_text()
SECRET = re.compile(r"key|password|secret|token|credential", re.IGNORECASE)

Recipe = list[Instruction]


def having(recipe: Recipe, *words: str) -> list[str]:
    return [one.rest for one in recipe if one.word in words]


def unpinned(recipe: Recipe) -> list[str]:
    return [
        image
        for image in having(recipe, "FROM")
        if not re.match(r"[\w./-]+:\d+\.\d+\.\d+[\w.-]*( AS \w+)?$", image)
    ]


def run_by_root(recipe: Recipe) -> list[str]:
    last = [one for one in recipe if one.stage == recipe[-1].stage]
    users = [(place, one.rest) for place, one in enumerate(last) if one.word == "USER"]
    if not users:
        return ["no USER"]
    place, user = users[-1]
    later = [one.rest for one in last[place:] if one.word in {"RUN", "COPY"}]
    return later + [user] * (not re.fullmatch(r"[1-9]\d*:[1-9]\d*", user))


def fetched(recipe: Recipe) -> list[str]:
    return having(recipe, "ADD") + [run for run in having(recipe, "RUN") if "://" in run]


def secrets(recipe: Recipe) -> list[str]:
    return [said for said in having(recipe, "ARG", "ENV", "LABEL") if SECRET.search(said)]


def copied_from_nowhere(recipe: Recipe) -> list[str]:
    local = [rest for rest in having(recipe, "COPY") if not rest.startswith("--from=")]
    sources = [source for rest in local for source in rest.split()[:-1]]
    sent = (ROOT / ".dockerignore").read_text().splitlines()
    assert sent[1] == "*", "nothing is sent to the build but what is named"
    return [one for one in sources if not (ROOT / one).exists() or f"!{one}" not in sent]


def installed_unchecked(recipe: Recipe) -> list[str]:
    """Find installs that take more than what a lock names, with hashes, or than our own wheel."""
    steps = [step.strip() for run in having(recipe, "RUN") for step in run.split("&&")]
    checked = {"--no-deps", "--require-hashes", "--only-binary"}, {"--no-deps", "--no-index"}
    return [
        step
        for step in steps
        if re.search(r"\bpip install\b|\bapt(-get)? install\b", step)
        and not any(needed <= set(step.split()) for needed in checked)
    ]


def built_unlocked(recipe: Recipe) -> list[str]:
    wheels = [run for run in having(recipe, "RUN") if "pip wheel" in run]
    return [run for run in wheels if "--no-build-isolation" not in run]


def stateless(recipe: Recipe) -> list[str]:
    """Find that a volume for the state would belong to root, who alone could write to it."""
    (user,) = having(recipe, "USER")
    place = document()["services"]["memories"]["environment"]["AFTERWORD_STATE_DIR"]
    owned = f"--chown={user} /state {place}"
    return [] if any(one.endswith(owned) for one in having(recipe, "COPY")) else [place]


CHECKS = [
    unpinned, run_by_root, fetched, secrets, copied_from_nowhere, installed_unchecked,
    built_unlocked, stateless,
]  # fmt: skip


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_the_recipe_is_sound(check: Callable[[Recipe], list[str]]) -> None:
    assert check(list(instructions(TEXT))) == []


def test_the_command_is_the_entry_point_and_the_build_stays_behind() -> None:
    recipe = list(instructions(TEXT))
    assert having(recipe, "ENTRYPOINT") == ['["afterword"]']
    last = [one for one in recipe if one.stage == recipe[-1].stage]
    assert last[0].stage == 1
    assert having(last, "RUN") == []


@pytest.mark.parametrize(
    ("check", "old", "new"),
    [
        (unpinned, "python:3.11.14-slim-trixie AS", "python:3-slim AS"),
        (run_by_root, "USER 10001:10001", "USER root"),
        (run_by_root, "USER 10001:10001\n", ""),
        (run_by_root, "ENTRYPOINT", "RUN true\nENTRYPOINT"),
        (fetched, "WORKDIR /src", "ADD https://example.invalid/x /src"),
        (fetched, "WORKDIR /src", "RUN curl https://example.invalid/x"),
        (secrets, "ENV PATH", "ENV ANTHROPIC_API_KEY=x PATH"),
        (copied_from_nowhere, "COPY producer producer", "COPY producers producer"),
        (copied_from_nowhere, "COPY producer producer", "COPY tests tests"),
        (installed_unchecked, "--require-hashes ", ""),
        (installed_unchecked, "--no-index", ""),
        (built_unlocked, "--no-build-isolation ", ""),
        (stateless, "--chown=10001:10001 ", ""),
        (stateless, "/var/lib/afterword", "/state"),
    ],
)
def test_a_flaw_is_found(check: Callable[[Recipe], list[str]], old: str, new: str) -> None:
    assert old in TEXT
    assert check(list(instructions(TEXT.replace(old, new)))) != []
