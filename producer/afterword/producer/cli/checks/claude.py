"""Asks Claude for each model of the settings, with calls that cost nothing."""

from __future__ import annotations

import asyncio
import importlib.util
from typing import TYPE_CHECKING

from afterword.producer.cli.checks.finding import Finding, Level, fail, ok, warn
from afterword.producer.cli.remedies import OF_A_MODEL
from afterword.shared.errors import AccessDenied, AfterwordError, Misconfigured, NoSuchModel
from afterword.shared.settings import Settings

if TYPE_CHECKING:
    from afterword.workers.ports import Model

_KEY = "Check ANTHROPIC_API_KEY and its account."
_NETWORK = "Check ANTHROPIC_BASE_URL, the network, and https://status.anthropic.com"


async def look_at_claude(settings: Settings) -> list[Finding]:
    """Return a finding for each model that the settings name."""
    if importlib.util.find_spec("anthropic") is None:
        return [ok("claude", "not installed, and not needed by a producer")]
    from afterword.workers.wiring import open_model

    try:
        model = open_model(settings)
    except Misconfigured as error:
        return [fail("claude", str(error), _KEY)]
    try:
        asked = _models(settings).items()
        return list(await asyncio.gather(*(_look(model, *each) for each in asked)))
    finally:
        await model.aclose()


def _models(settings: Settings) -> dict[str, str]:
    """Return each model, with the setting that names it; that of the replies wins."""
    memory = [settings.memory_model] if settings.backend == "selfhosted" else []
    named = {
        "AFTERWORD_MEMORY_MODEL": memory,
        "AFTERWORD_FALLBACK_MODELS": settings.fallback_models,
        "AFTERWORD_MODEL": [settings.model],
    }
    return {model: setting for setting, models in named.items() for model in models}


async def _look(model: Model, name: str, setting: str) -> Finding:
    """Return what is found of one model; a fallback that fails is a warning."""
    try:
        checked = await model.check(name)
    except AfterwordError as error:
        level = Level.WARN if setting == "AFTERWORD_FALLBACK_MODELS" else Level.FAIL
        return Finding("claude", level, f"{name} ({setting}): {error}", _remedy(error, setting))
    if checked.warning:
        return warn("claude", checked.warning, f"Choose another model: {setting}.")
    return ok("claude", checked.found)


def _remedy(error: AfterwordError, setting: str) -> str:
    if isinstance(error, NoSuchModel):
        return f"Choose a model that exists and that your account may use: {setting}."
    code = error.code if isinstance(error, AccessDenied) else ""
    _, cure = OF_A_MODEL.get(code, ("", _NETWORK))
    return f"{cure}."
