"""The environment variables of the stack's processes: only what each one needs."""

from __future__ import annotations

import json
import os
import sysconfig
from pathlib import Path

from pydantic import SecretStr

import afterword
from afterword.shared.environment import FOREIGN, PREFIX, variable
from afterword.shared.settings import Settings

#: The directories that Python imports `afterword` from: one if installed, three in a checkout.
_ROOTS = [str(Path(part).parent) for part in afterword.__path__]


def without_settings() -> dict[str, str]:
    """Return this process's environment without settings and keys; `afterword` stays importable."""
    env = {name: value for name, value in os.environ.items() if not _is_setting(name)}
    roots = [root for root in _ROOTS if root not in sysconfig.get_paths().values()]
    if roots:  # a checkout, not an installation
        known = env.get("PYTHONPATH", "").split(os.pathsep)
        env["PYTHONPATH"] = os.pathsep.join([*roots, *filter(None, known)])
    return env


def from_settings(settings: Settings) -> dict[str, str]:
    """Return the variables that load as these settings, without those at their defaults."""
    values = {name: getattr(settings, name) for name in settings.model_fields_set}
    return {variable(name): _text(value) for name, value in values.items() if value is not None}


def _is_setting(name: str) -> bool:
    return name.startswith(PREFIX) or name in FOREIGN


def _text(value: object) -> str:
    """Return the text that loads as this value."""
    match value:
        case SecretStr():
            return value.get_secret_value()
        case tuple():
            return ",".join(value)
        case dict():
            return json.dumps(value)
        case _:
            return str(value)
