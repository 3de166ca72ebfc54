"""Who is logged in, and how often somebody may try to."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import re
import secrets
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from afterword.shared.ledger.access_keys import AccessKey, AccessScope
from afterword.shared.ledger.console_sessions import ConsoleSessions

#: A session ends after this time, and after the second one if it is not used.
LIFETIME_S = 12 * 3_600
IDLE_S = 3_600

#: A cookie whose session was used says so again after this time.
_RENEWED_S = 60

#: Its parts: the session, its key or none, when it began and when it was used, what signs that.
_COOKIE = re.compile(
    r"(s1\.[0-9a-f]{32}\.(?:[0-9a-f]{12})?\.[0-9]{1,12}\.[0-9]{1,12})\.([0-9a-f]{64})"
)

#: Failed logins from one address, and from all of them, in a minute.
MAX_FAILURES = 5
MAX_FAILURES_OF_ALL = 60
_MINUTE_S = 60.0

Clock = Callable[[], float]


@dataclass(slots=True)
class Session:
    """Somebody's visit; `key_id` is empty where no key is asked for.

    `cookie` is what their browser is to keep, empty once they have logged out.
    """

    id: str
    key_id: str
    by: str
    scopes: frozenset[AccessScope]
    began_s: int
    csrf: str
    cookie: str

    def accepts(self, csrf: str) -> bool:
        """Return whether a form was made for this session."""
        return hmac.compare_digest(csrf.encode("utf-8", "replace"), self.csrf.encode())


class Sessions:
    """Sessions as signed cookies: any console of the fleet takes them, before and after a restart.

    A cookie names a key and says nothing of what that may do: the key is looked up at each request,
    so one that is revoked ends its sessions. What signs is in the ledger; without it, no cookie of
    before is taken.

    Args:
        ledger: what consoles share.
        find_key: returns a key by its id, None if it is refused.
        by: the name that the audit shows where no key is asked for; None if one is.
        clock: the time of day, in seconds.

    """

    def __init__(
        self,
        ledger: Callable[[], Awaitable[ConsoleSessions]],
        find_key: Callable[[str], Awaitable[AccessKey | None]],
        by: str | None,
        clock: Clock,
    ) -> None:
        self._ledger = ledger
        self._find_key = find_key
        self._by = by
        self._clock = clock

    async def begin(self, key: AccessKey | None) -> Session:
        """Begin the session of a key, or one that may do everything where none is asked for."""
        now = round(self._clock())
        secret = await (await self._ledger()).secret()
        return self._session(secret, secrets.token_hex(16), key, now, now)

    async def get(self, cookie: str) -> Session | None:
        """Return the session of a cookie, None if it was not signed here or is over."""
        parts = _COOKIE.fullmatch(cookie)
        if parts is None:
            return None
        ledger = await self._ledger()
        secret = await ledger.secret()
        if not hmac.compare_digest(_signed(secret, parts[1]), parts[2]):
            return None
        session_id, key_id, began, seen = parts[1].split(".")[1:]
        now = round(self._clock())
        if now - int(began) > LIFETIME_S or now - int(seen) > IDLE_S:
            return None
        is_ended, key = await asyncio.gather(ledger.is_ended(session_id), self._key(key_id))
        if is_ended or (key is None and not (key_id == "" and self._by is not None)):
            return None
        last = now if now - int(seen) >= _RENEWED_S else int(seen)
        return self._session(secret, session_id, key, int(began), last)

    async def end(self, session: Session) -> None:
        """End a session, whoever has its cookie."""
        session.cookie = ""
        ledger = await self._ledger()
        await ledger.end(session.id, self._clock(), session.began_s + LIFETIME_S)

    async def _key(self, key_id: str) -> AccessKey | None:
        return await self._find_key(key_id) if key_id else None

    def _session(
        self, secret: bytes, session_id: str, key: AccessKey | None, began_s: int, seen_s: int
    ) -> Session:
        said = f"s1.{session_id}.{key.id if key else ''}.{began_s}.{seen_s}"
        return Session(
            id=session_id,
            key_id=key.id if key else "",
            by=f"{key.name} ({key.id})" if key else self._by or "",
            scopes=frozenset(key.scopes if key else AccessScope),
            began_s=began_s,
            csrf=_signed(secret, f"csrf.{session_id}"),
            cookie=f"{said}.{_signed(secret, said)}",
        )


def _signed(secret: bytes, text: str) -> str:
    return hmac.new(secret, text.encode(), hashlib.sha256).hexdigest()


class LoginLimit:
    """Counts failed logins of the last minute, and refuses further ones."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._failures = deque[tuple[float, str]]()

    def refuses(self, address: str) -> bool:
        """Return whether an address has to wait."""
        self._forget()
        mine = sum(who == address for _, who in self._failures)
        return mine >= MAX_FAILURES or len(self._failures) >= MAX_FAILURES_OF_ALL

    def failed(self, address: str) -> None:
        """Count a failed login."""
        self._failures.append((self._clock(), address))

    def _forget(self) -> None:
        while self._failures and self._clock() - self._failures[0][0] > _MINUTE_S:
            self._failures.popleft()
