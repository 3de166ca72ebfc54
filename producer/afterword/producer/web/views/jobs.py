"""Jobs and users: found, shown, and with its own scope what was said."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

from starlette.responses import RedirectResponse, Response

from afterword.producer.admin.explanation import explained
from afterword.producer.web.console import Visit
from afterword.producer.web.views.fleet import ROWS, held_up_by
from afterword.shared.clock import utc_now
from afterword.shared.errors import JobNotFound, MemoriesUnavailable
from afterword.shared.ledger.browsing import Place
from afterword.shared.names import check_job_id, lane_id, lane_tag, memory_key, shard_of

Value = TypeVar("Value")

#: Jobs of a user that a page shows.
_JOBS = 20

#: How long a page waits for a memory worker, in seconds.
_MEMORIES_S = 20.0


async def jobs(visit: Visit) -> Response:
    """Find jobs by id or by user, and list the open ones."""
    wanted, user_id = visit.asked("id"), visit.asked("user_id")
    if wanted:
        return RedirectResponse(f"/jobs/{quote(wanted, safe='')}", 303)
    if user_id:
        asked = {"tenant": visit.asked("tenant") or "default", "user_id": user_id}
        return RedirectResponse(f"/users?{urlencode(asked)}", 303)
    browsing = (await visit.console.ledger()).browsing
    places = (Place.RUNNING, Place.READY, Place.DELAYED, Place.HELD)
    rows = await asyncio.gather(*(browsing.jobs_in(place, ROWS) for place in places))
    return visit.page("jobs.html", places=dict(zip(places, rows, strict=True)), most=ROWS)


async def job(visit: Visit) -> Response:
    """Show one job: where it is, what it waits for, what became of it."""
    return await _job(visit, content=False)


async def job_content(visit: Visit) -> Response:
    """Show one job with what was said; the look is audited before there is anything to see."""
    job_id = check_job_id(visit.path["job_id"])
    await audit_look(visit, "job", job=job_id)
    return await _job(visit, content=True)


async def _job(visit: Visit, *, content: bool) -> Response:
    """Answer with a job, or with its story alone, which is kept for longer."""
    job_id = check_job_id(visit.path["job_id"])
    story = await visit.operator.story(job_id, content=content)
    return visit.page(
        "job.html",
        job=await _found(_details(visit, job_id)),
        letter=await _found(visit.operator.dead_letter(job_id)),
        story=story,
        told=explained(story),
        texts=content,
        now=utc_now(),
    )


async def _details(visit: Visit, job_id: str) -> dict[str, Any]:
    return await (await visit.console.ledger()).queries.details(job_id)


async def _found(asked: Awaitable[Value]) -> Value | None:
    try:
        return await asked
    except JobNotFound:
        return None


async def user(visit: Visit) -> Response:
    """Show what is known of one user without what they said."""
    return await _user(visit)


async def user_memories(visit: Visit) -> Response:
    """Show what is remembered of a user; the look is audited first."""
    tenant, user_id = _owner(visit)
    await audit_look(visit, "memories", tenant=tenant, user=_tag(visit, tenant, user_id))
    try:
        memories = visit.console.producer.memories(user_id, tenant=tenant)
        after = visit.asked("memories_after") or None
        page = await memories.list(after=after, timeout=_MEMORIES_S)
    except MemoriesUnavailable as error:
        return await _user(visit, problem=str(error))
    return await _user(visit, memories=page)


async def _user(visit: Visit, **found: Any) -> Response:
    tenant, user_id = _owner(visit)
    ledger = await visit.console.ledger()
    usage = await visit.console.producer.usage(tenant=tenant, user_id=user_id)
    receipt = await visit.operator.erasure(user_id, tenant=tenant)
    rows = await ledger.browsing.of_user(tenant, user_id, ROWS)
    page = await visit.operator.user_jobs(
        user_id, tenant=tenant, limit=_JOBS, after=visit.asked("after") or None
    )
    shown = {"memories": None, "problem": "", "after": visit.asked("after")} | found
    following = {"tenant": tenant, "user_id": user_id, "after": page.next}
    next_page = urlencode(following) if page.next else ""
    return visit.page(
        "user.html", tenant=tenant, user_id=user_id, rows=rows, usage=usage, receipt=receipt,
        held_up=await held_up_by(visit, tenant, user_id),
        jobs=page.jobs, next_page=next_page, **shown,
    )  # fmt: skip


def _owner(visit: Visit) -> tuple[str, str]:
    return visit.asked("tenant") or "default", visit.asked("user_id")


def _tag(visit: Visit, tenant: str, user_id: str) -> str:
    """Return the name of a user in logs: the audit outlives an erasure, and must not name them."""
    owner = memory_key(tenant, user_id)
    return lane_tag(lane_id(owner, shard_of(owner, visit.console.settings.shards)))


async def audit_look(visit: Visit, what: str, **whose: str) -> None:
    """Record that somebody looks at content."""
    ledger = await visit.console.checked.get()
    details = {"what": what, **whose}
    await ledger.replay_runs.add_audit_entry(
        visit.session.by, "look", details, f"look-{secrets.token_hex(8)}"
    )
