"""The audit, and the keys of the console."""

from __future__ import annotations

from urllib.parse import urlencode

from starlette.responses import RedirectResponse, Response

from afterword.producer.web.console import Visit
from afterword.producer.web.forms import seconds
from afterword.shared.arguments import check_event_id
from afterword.shared.clock import utc_now
from afterword.shared.errors import InvalidRequest
from afterword.shared.ledger.access_keys import AccessScope

_ENTRIES = 100


async def audit(visit: Visit) -> Response:
    """Show what operators did, newest first, page by page."""
    asked = {name: visit.asked(name) for name in ("by", "action") if visit.asked(name)}
    after = visit.asked("after") and check_event_id("after", visit.asked("after"))
    browsing = (await visit.console.ledger()).browsing
    page = await browsing.audit_page(
        _ENTRIES, after=after or None, by=asked.get("by"), action=asked.get("action")
    )
    next_page = urlencode(asked | {"after": page.after}) if page.after else ""
    return visit.page("audit.html", page=page, asked=asked, after=after, next_page=next_page)


async def keys(visit: Visit) -> Response:
    """Show who may open the console."""
    return await _keys(visit)


async def create_key(visit: Visit) -> Response:
    """Create a key, and show it once. Nobody gives a scope that they do not have."""
    scopes = {AccessScope.READ, *(scope for scope in AccessScope if visit.asked(scope) == "yes")}
    if not scopes <= visit.session.scopes:
        raise InvalidRequest("scopes", "must be scopes that your own key has")
    expires = visit.asked("expires")
    made = await visit.console.access(visit.session.by).create(
        visit.asked("name"), scopes, seconds("expires", expires) if expires else None
    )
    return await _keys(visit, made.key)


async def revoke_key(visit: Visit) -> Response:
    """Refuse a key from now on."""
    await visit.console.access(visit.session.by).revoke(visit.asked("key_id"))
    return RedirectResponse("/keys", 303)


async def _keys(visit: Visit, made: str = "") -> Response:
    found = await visit.console.access(visit.session.by).all()
    return visit.page("keys.html", keys=found, made=made, scopes=list(AccessScope), now=utc_now())
