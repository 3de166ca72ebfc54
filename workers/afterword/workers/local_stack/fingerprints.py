"""Compares the settings of two processes without either telling the other its values.

The supervisor gives its clients a fingerprint of each of its settings, keys among them; a client
that joins later finds out which of its own are not the same.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Mapping

from afterword.shared.environment import variable
from afterword.shared.settings import Settings
from afterword.workers.local_stack import environment, model_server

#: Clients of one stack agree on the first, however each of them writes it; no worker reads the
#: second.
_NOT_COMPARED = {variable("data_dir"), variable("chat_history")}


def of_settings(settings: Settings) -> dict[str, str]:
    """Return the fingerprint of each variable that makes a difference, and the key of them all."""
    key = secrets.token_hex(16)
    return {"": key} | _fingerprints(settings, key)


def differing(running: Mapping[str, str], settings: Settings) -> list[str]:
    """Return the variables whose values are not those of the running stack."""
    here = _fingerprints(settings, running[""])
    names = running.keys() | here.keys()
    return sorted(name for name in names if name and running.get(name) != here.get(name))


def _fingerprints(settings: Settings, key: str) -> dict[str, str]:
    values = environment.from_settings(settings)
    return {
        name: hmac.digest(key.encode(), value.encode(), "sha256").hex()
        for name, value in values.items()
        if name not in _NOT_COMPARED | _without_effect(settings)
    }


def _without_effect(settings: Settings) -> set[str]:
    """Return the variables that say what holds without them."""
    defaults = {
        name: field.get_default(call_default_factory=True)
        for name, field in Settings.model_fields.items()
        if name not in model_server.DEFAULTS  # the stack has defaults of its own for these
    }
    return {variable(name) for name, value in defaults.items() if getattr(settings, name) == value}
