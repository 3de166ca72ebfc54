"""The environment of the stack's processes: only what each one needs to know."""

from __future__ import annotations

import json
import os
import sysconfig
from pathlib import Path

from pydantic import SecretStr

import afterword
from afterword.shared.environment import FOREIGN, PREFIX, variable
from afterword.shared.settings import Settings

#: The folders from which Python takes `afterword`: one if it is installed, three in a checkout.
_ROOTS = [str(Path(part).parent) for part in afterword.__path__]


def bare() -> dict[str, str]:
    """Return ours without any setting or key, in which our packages can be imported."""
    plain = {name: value for name, value in os.environ.items() if not _is_setting(name)}
    roots = [root for root in _ROOTS if root not in sysconfig.get_paths().values()]
    if roots:  # a checkout, not an installation
        known = plain.get("PYTHONPATH", "").split(os.pathsep)
        plain["PYTHONPATH"] = os.pathsep.join([*roots, *filter(None, known)])
    return plain


def of(settings: Settings) -> dict[str, str]:
    """Return the variables that load as these settings; what is at its default stays out."""
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
