"""What every command has: a help with exit codes and examples, and errors that name its options."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import click

from afterword.shared.errors import InvalidRequest


class SectionedGroup(click.Group):
    """A group whose help lists its commands by what they are for."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self._sections: dict[str, Sequence[str]] = {}

    def add_section(self, title: str, *commands: click.Command) -> None:
        """Add commands that are listed under a title, in this order."""
        for command in commands:
            self.add_command(command)
        self._sections[title] = [str(command.name) for command in commands]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands of each section, in the same columns."""
        width = max(map(len, self.list_commands(ctx)))
        rest = formatter.width - width - 2 * formatter.indent_increment - 2
        for title, names in self._sections.items():
            with formatter.section(title):
                formatter.write_dl(
                    [
                        (name.ljust(width), self.commands[name].get_short_help_str(rest))
                        for name in names
                    ]
                )


class Command(click.Command):
    """A command whose help ends with its exit codes and examples.

    `exit_1` says when its exit code is 1, beside Redis being unreachable or unfit; a command that
    is `offline` asks no Redis and reads no setting. `examples` are command lines. An
    `InvalidRequest` is raised anew with the name of the option or argument that set the field.
    """

    def __init__(
        self,
        *args: Any,
        exit_1: str = "",
        offline: bool = False,
        examples: Sequence[str] = (),
        **settings: Any,
    ) -> None:
        super().__init__(*args, **settings)
        self.exit_1 = exit_1
        self.offline = offline
        self.examples = examples

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except InvalidRequest as error:
            raise InvalidRequest(self._spoken(error.field), error.reason) from None

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the exit codes and the examples."""
        super().format_epilog(ctx, formatter)
        with formatter.section("Exit codes"):
            formatter.write_dl(list(self.exit_codes().items()))
        with formatter.section("Examples"):
            for line in self.examples:
                formatter.write(f"{'':>{formatter.current_indent}}{line}\n")

    def exit_codes(self) -> dict[str, str]:
        """Return what each exit code of this command means."""
        if self.offline:
            return {"0": "Done.", "2": "An option or an argument is wrong.", "130": "Interrupted."}
        redis = "Redis is unreachable or not fit for use"
        return {
            "0": "Done.",
            "1": f"{redis}, or {self.exit_1}." if self.exit_1 else f"{redis}.",
            "2": "An option, an argument or a setting is wrong, or an id is unknown.",
            "130": "Interrupted.",
        }

    def _spoken(self, field: str) -> str:
        """Return how the command line calls a field of the Python API."""
        for parameter in self.params:
            if parameter.name == field and isinstance(parameter, click.Option):
                return max(parameter.opts, key=len)
            if parameter.name == field:
                return parameter.human_readable_name.strip("[].")
        return field


def command(
    name: str | None = None, *, exit_1: str = "", examples: Sequence[str], **settings: Any
) -> Callable[[Callable[..., Any]], Command]:
    """Make a function a command; its docstring is the help."""
    return click.command(name, cls=Command, exit_1=exit_1, examples=examples, **settings)
