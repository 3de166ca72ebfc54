"""`afterword up`: everything in the foreground of one terminal."""

from __future__ import annotations

from afterword.producer.cli.command import command
from afterword.producer.cli.local_stack import attached
from afterword.producer.cli.terminal import echo


@command(
    exit_1="a part does not start or keeps crashing",
    examples=["afterword up", "AFTERWORD_DATA_DIR=/srv/afterword afterword up"],
)
def up() -> None:
    """Run all of Afterword in the foreground.

    That is Redis, a model, memory and both kinds of workers. What is configured
    (AFTERWORD_REDIS_URL, ANTHROPIC_API_KEY, MEM0_API_KEY) is used instead of a local part; local
    parts keep their data in AFTERWORD_DATA_DIR. Ctrl-C stops everything.
    """
    with attached() as stack:
        echo("Afterword is running. Press Ctrl-C to stop it.")
        stack.wait()
