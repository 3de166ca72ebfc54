"""Which memory a process uses, so that two that use different ones can be told apart."""

from __future__ import annotations

import hashlib

from afterword.shared.settings import Settings
from afterword.shared.urls import POSTGRES, parse_url


def memory_place(settings: Settings) -> tuple[str, str]:
    """Return the memory of these settings, and a word that is equal where its address is.

    Neither holds a secret: they are told to whoever may read the ledger.
    """
    if settings.backend == "off":
        return "off", ""
    by_user = settings.memory_owner == "user"
    memory = f"{settings.backend}, owners are user ids" if by_user else settings.backend
    return memory, hashlib.sha256(_address(settings).encode()).hexdigest()[:8]


def _address(settings: Settings) -> str:
    if settings.backend == "hosted":
        return settings.mem0_host
    if settings.backend == "embedded" or settings.postgres_url is None:
        return str(settings.data_dir)
    url = parse_url(settings.postgres_url.get_secret_value(), POSTGRES)
    return f"{url.host}{url.path}"
