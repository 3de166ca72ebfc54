"""The Makefile's own promises, with a Python that only pretends to install."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import ROOT

#: Stands in for Python: notes what it is asked for, makes an environment of programs that say
#: their name, and fails where the test says so.
PYTHON = """#!/bin/sh
echo "python $*" >> log
case "$*" in
    *version_info*) exit "${OLD:-0}" ;;
    *ensurepip*) exit "${BARE:-0}" ;;
    "-m venv"*) ;;
    *--quiet*) exit ;;
    *) for n in $(seq 45); do echo "Collecting package-$n"; echo "  Downloading package-$n"
            echo "Ignoring package-$n: markers don't match your environment"
            echo "WARNING: Location 'file:///gone/$n' is ignored: it is no directory." >&2; done
        [ -z "$BROKEN" ] || echo "ERROR: $BROKEN: no matching distribution" >&2
        echo "Installing collected packages: package-1"; cat; exit "${BROKEN:-0}" ;;
esac
for venv in "$@"; do :; done
rm -rf $venv && mkdir -p $venv/bin && cp "$0" $venv/bin/python
for name in afterword ruff vulture mypy lint-imports pytest; do
    printf '#!/bin/sh\\necho "%s $*"\\ncat\\n' $name > $venv/bin/$name
done
chmod +x $venv/bin/*
"""


LOCKS = ("requirements.lock", "requirements-dev.lock", "requirements-build.lock")


class Tree:
    """A tree that holds only what make looks at."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("Makefile", "pyproject.toml", *LOCKS):
            shutil.copy(ROOT / name, folder)
        self.python = folder / "python"
        self.python.write_text(PYTHON)
        self.python.chmod(0o755)

    def make(
        self, *arguments: str, says: str = "", **variables: str
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["make", "-s", f"PYTHON={self.python}", *arguments],
            cwd=self.folder,
            input=says,
            env={"PATH": os.environ["PATH"], **variables},
            capture_output=True,
            text=True,
            check=False,
        )

    def installs(self) -> int:
        """Count the environments made so far."""
        log = self.folder / "log"
        return log.read_text().count("-m venv") if log.exists() else 0


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def test_chat_is_a_pipe_from_the_first_time_on(tree: Tree) -> None:
    ended = tree.make("chat", says="hi\nquit\n")
    assert (ended.returncode, ended.stdout) == (0, "afterword chat\nhi\nquit\n")


def test_the_first_time_says_what_is_going_on_in_a_few_lines(tree: Tree) -> None:
    product, more = (
        len(re.findall("^[a-z0-9].*==", (tree.folder / lock).read_text(), re.MULTILINE))
        for lock in ("requirements.lock", "requirements-dev.lock")
    )
    fetched = ["  20 fetched", "  40 fetched", "  unpacking them"]
    first, *said = tree.make("test").stderr.splitlines()
    assert first.startswith(f"Installing {product} packages, 600 MB, into .venv: once")
    last = f"Installing {more} more packages, which tests and checks need."
    assert said == [*fetched, "Installing afterword itself.", last, *fetched]


def test_a_wheel_is_built_with_what_that_needs_and_no_more(tree: Tree) -> None:
    assert tree.make("wheel").returncode == 0
    asked = (tree.folder / "log").read_text()
    assert re.findall("requirements.*lock", asked) == ["requirements-build.lock"]
    assert asked.endswith("python -m hatchling build\n")
    assert not (tree.folder / ".venv").exists()
    (tree.folder / "log").unlink()
    tree.make("wheel")
    assert (tree.folder / "log").read_text() == "python -m hatchling build\n"


@pytest.mark.parametrize("lacks", ["BARE", "OLD"])
def test_a_python_that_cannot_build_a_wheel_is_told_so(tree: Tree, lacks: str) -> None:
    ended = tree.make("wheel", **{lacks: "1"})
    assert ended.returncode != 0
    assert ended.stderr.startswith(("Python 3.11 or newer", f"{tree.python} cannot make"))


def test_the_second_time_installs_nothing(tree: Tree) -> None:
    tree.make("chat")
    (tree.folder / "log").unlink()
    assert tree.make("chat").stderr == ""
    assert not (tree.folder / "log").exists()


@pytest.mark.parametrize("user", ["ann", "some one", "o'hara", "$HOME", "a;b"])
def test_chat_takes_a_user_as_one_word(tree: Tree, user: str) -> None:
    ended = tree.make("chat", "ARGS=--json", USER_ID=user)
    assert ended.stdout == f"afterword chat --user {user} --json\n"


def test_an_install_that_failed_is_done_again(tree: Tree) -> None:
    broken = tree.make("chat", BROKEN="1")
    assert broken.returncode != 0
    assert "ERROR: 1: no matching distribution" in broken.stderr
    assert tree.make("chat").stdout == "afterword chat\n"
    assert tree.installs() == 2


def test_a_changed_lock_makes_everything_anew(tree: Tree) -> None:
    tree.make("test")
    os.utime(tree.folder / "requirements.lock", (4e9, 4e9))
    tree.make("test")
    assert tree.installs() == 2


def test_an_environment_whose_python_is_gone_is_made_anew(tree: Tree) -> None:
    tree.make("chat")
    (tree.folder / ".venv/bin/python").unlink()
    assert tree.make("chat").returncode == 0
    assert tree.installs() == 2


def test_a_change_of_settings_does_not_make_everything_anew(tree: Tree) -> None:
    tree.make("chat")
    os.utime(tree.folder / "pyproject.toml", (4e9, 4e9))
    assert "afterword itself" in tree.make("chat").stderr
    assert tree.installs() == 1


def test_a_python_without_venv_is_told_what_it_lacks(tree: Tree) -> None:
    ended = tree.make("chat", BARE="1")
    assert ended.returncode != 0
    assert "apt install python3-venv" in ended.stderr


def test_an_old_python_is_told_so(tree: Tree) -> None:
    ended = tree.make("chat", OLD="1")
    assert ended.returncode != 0
    assert "Python 3.11 or newer is needed" in ended.stderr


def test_the_tests_have_the_last_word(tree: Tree) -> None:
    ended = tree.make("test", "ARGS=-k lane")
    said = [line.split()[0] for line in ended.stdout.splitlines()]
    assert said == ["ruff", "ruff", "vulture", "vulture", "mypy", "lint-imports", "pytest"]
    assert ended.stdout.endswith("--randomly-seed=1 -k lane\n")


def test_the_quick_loop_starts_no_server(tree: Tree) -> None:
    assert tree.make("quick").stdout.endswith("-m not slow tests/unit tests/shape\n")


def test_help_names_every_target(tree: Tree) -> None:
    (declared,) = (
        line.split()[1:]
        for line in (tree.folder / "Makefile").read_text().splitlines()
        if line.startswith(".PHONY:")
    )
    listed = [line.split()[1] for line in tree.make("help").stdout.splitlines()]
    assert sorted(listed) == sorted(declared)
