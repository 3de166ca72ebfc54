"""What the documents show is run: the Python of one as one program, commands one by one.

A block that cannot be run has `<!-- not run: the reason -->` above it. In what a `console` block
shows, `...` stands for anything; a command that shows nothing only has to succeed.
"""

from __future__ import annotations

import doctest
import os
import re
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from textwrap import dedent

import pytest

from tests.conftest import ROOT
from tests.packaging.blocks import RUN, SHOWN, Block, blocks, program, session

#: What `status` and `doctor` print depends on what else the machine does.
pytestmark = pytest.mark.serial

DOCUMENTS = [*ROOT.glob("*.md"), *sorted(ROOT.glob("docs/**/*.md"))]
BLOCKS = [block for path in DOCUMENTS for block in blocks(path)]
PROGRAMS = [path for path in DOCUMENTS if program(path)]
COMMANDS = [block for block in BLOCKS if block.runs and block.language != "python"]


def run(command: list[str], stack: dict[str, str], says: str = "") -> str:
    """Run a command where it finds this checkout, and where what it writes is thrown away."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with TemporaryDirectory() as folder:
        for entry in ROOT.iterdir():
            Path(folder, entry.name).symlink_to(entry)
        ended = subprocess.run(
            command,
            cwd=folder,
            env={**os.environ, **stack, "PATH": path},
            input=says,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
    assert ended.returncode == 0, ended.stdout
    return ended.stdout


def check(block: Block, stack: dict[str, str]) -> None:
    """Run the commands of a block, and compare what they print with what it shows."""
    if block.language == "sh":
        run(["bash", "-euo", "pipefail", "-c", block.text], stack)
        return
    for command, shown in session(block):
        printed = run(["bash", "-euo", "pipefail", "-c", command], stack)
        rules = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
        as_shown = doctest.OutputChecker().check_output(shown, printed.strip(), rules)
        assert not shown or as_shown, f"{block}: {command}\n{printed}"


@pytest.mark.slow
@pytest.mark.system
@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.name)
def test_the_python_of_a_document_runs(path: Path, stack: dict[str, str]) -> None:
    runner = "import sys; exec(compile(sys.stdin.read(), sys.argv[1], 'exec'), {})"
    run([sys.executable, "-c", runner, path.name], stack, says=program(path))


@pytest.mark.slow
@pytest.mark.system
@pytest.mark.parametrize("block", COMMANDS, ids=str)
def test_the_commands_of_a_document_do_what_it_shows(block: Block, stack: dict[str, str]) -> None:
    check(block, stack)


def test_every_block_is_in_a_language_that_says_whether_it_runs() -> None:
    assert [f"{b}: {b.language!r}" for b in BLOCKS if b.language not in (*RUN, *SHOWN)] == []


def test_every_make_target_that_is_mentioned_exists() -> None:
    there = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    code = [(str(b), b.text) for b in BLOCKS]
    code += [(p.name, t) for p in DOCUMENTS for t in re.findall(r"`([^`\n]+)`", p.read_text())]
    mentioned = [(at, re.findall(r"\bmake (?:-s )?([a-z]+)\b", text)) for at, text in code]
    assert [(at, name) for at, names in mentioned for name in names if name not in there] == []


class TestTheRunnerItself:
    """Documents made up to see what the runner sees."""

    @pytest.fixture
    def document(self, tmp_path: Path) -> Path:
        path = tmp_path / "made-up.md"
        path.write_text(
            dedent(
                """\
                # Made up

                ```python
                x = 1
                ```

                <!-- not run: it costs money -->
                ```python
                raise RuntimeError
                ```

                - in a list

                  ```python
                  if x:
                      print("x is", x)
                  ```

                <!-- not run: it takes a cluster -->

                ```sh
                false
                ```

                ```console
                $ printf 'one\\ntwo\\n'
                one
                ...
                $ true
                ```
                """
            )
        )
        return path

    def test_blocks_are_found_with_their_excuses(self, document: Path) -> None:
        assert [(b.line, b.language, b.excuse) for b in blocks(document)] == [
            (4, "python", None),
            (9, "python", "it costs money"),
            (15, "python", None),
            (22, "sh", "it takes a cluster"),
            (26, "console", None),
        ]

    def test_the_python_is_one_program_with_the_lines_of_the_document(self, document: Path) -> None:
        text = program(document)
        assert text.splitlines()[3] == "x = 1"
        assert text.splitlines()[14:] == ["if x:", '    print("x is", x)']
        assert "RuntimeError" not in text

    def test_commands_are_compared_with_what_is_shown(self, document: Path) -> None:
        *_, block = blocks(document)
        assert session(block) == [("printf 'one\\ntwo\\n'", "one\n..."), ("true", "")]
        check(block, {})

    @pytest.mark.parametrize("text", ["$ echo two\none", "$ false"])
    def test_another_output_or_a_failure_is_an_error(self, text: str, tmp_path: Path) -> None:
        with pytest.raises(AssertionError):
            check(Block(tmp_path, 1, "console", text, None), {})

    def test_a_failing_line_of_a_script_fails_the_block(self, tmp_path: Path) -> None:
        with pytest.raises(AssertionError):
            check(Block(tmp_path, 1, "sh", "false\ntrue", None), {})

    def test_a_block_without_an_end_is_an_error(self, tmp_path: Path) -> None:
        (tmp_path / "open.md").write_text("```python\nx = 1\n")
        with pytest.raises(AssertionError, match="no end"):
            list(blocks(tmp_path / "open.md"))
