"""What is known of each language, one TOML file each; the README beside them explains the keys."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib.resources import files
from typing import Any

#: A pattern that matches nothing, for what a language does not have.
NEVER = "(?!)"

Lexicon = dict[str, Any]


@cache
def lexicons() -> dict[str, Lexicon]:
    """Return the lexicons by language code; they come with the package."""
    tables = (file for file in files(__name__).iterdir() if file.name.endswith(".toml"))
    return {
        table.name.removesuffix(".toml"): tomllib.loads(table.read_text("utf-8"))
        for table in sorted(tables, key=lambda table: table.name)
    }
