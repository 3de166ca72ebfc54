"""Who is logged in, and how often somebody may try to."""

from __future__ import annotations

import hmac
import secrets
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field

from afterword.shared.ledger.access_keys import AccessKey, AccessScope

#: Most sessions at a time; the one that was not used for longest ends first.
MAX_SESSIONS = 1_000

#: A session ends after this time, and after the second one if it is not used.
LIFETIME_S = 12 * 3_600.0
IDLE_S = 3_600.0

#: Failed logins from one address, and from all of them, in a minute.
MAX_FAILURES = 5
MAX_FAILURES_OF_ALL = 60
_MINUTE_S = 60.0

Clock = Callable[[], float]


@dataclass(slots=True)
class Session:
    """Somebody's visit; `key_id` is empty where no key is asked for."""

    key_id: str
    by: str
    scopes: frozenset[AccessScope]
    began_s: float
    seen_s: float
    csrf: str = field(default_factory=lambda: secrets.token_urlsafe(32))

    def accepts(self, csrf: str) -> bool:
        """Return whether a form was made for this session."""
        return hmac.compare_digest(csrf.encode("utf-8", "replace"), self.csrf.encode())


class Sessions:
    """The sessions of this process; a restart ends them all."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._open = OrderedDict[str, Session]()

    def begin(self, key: AccessKey) -> tuple[str, Session]:
        """Begin the session of a key; return the cookie that names it."""
        return self._begin(key.id, f"{key.name} ({key.id})", frozenset(key.scopes))

    def begin_without_key(self, by: str) -> tuple[str, Session]:
        """Begin a session that may do everything."""
        return self._begin("", by, frozenset(AccessScope))

    def _begin(self, key_id: str, by: str, scopes: frozenset[AccessScope]) -> tuple[str, Session]:
        now = self._clock()
        cookie = secrets.token_urlsafe(32)
        self._open[cookie] = Session(key_id, by, scopes, now, now)
        while len(self._open) > MAX_SESSIONS:
            self._open.popitem(last=False)
        return cookie, self._open[cookie]

    def get(self, cookie: str) -> Session | None:
        """Return the session that a cookie names, None if there is none or it is over."""
        session, now = self._open.get(cookie), self._clock()
        if session is None:
            return None
        if now - session.began_s > LIFETIME_S or now - session.seen_s > IDLE_S:
            self.end(cookie)
            return None
        session.seen_s = now
        self._open.move_to_end(cookie)
        return session

    def end(self, cookie: str) -> None:
        """End a session, if there is one."""
        self._open.pop(cookie, None)


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
