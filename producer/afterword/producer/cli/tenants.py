"""What `afterword status --tenants` reads and prints."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple

from afterword.producer.admin.tenants import AsyncTenants
from afterword.producer.admin.wording import duration
from afterword.producer.checked_ledger import CheckedLedger
from afterword.producer.cli import render
from afterword.producer.cli.options import tell_of_more
from afterword.producer.cli.terminal import echo
from afterword.shared.errors import InvalidRequest
from afterword.shared.ledger.tenants import TenantLoad, TenantLoads

#: How many tenants are shown unless `--limit` says otherwise.
_SHOWN = 20


class Part(NamedTuple):
    """Which of the tenants to show."""

    limit: int | None
    after: str | None

    def check(self, *, tenants: bool, job_id: str | None) -> None:
        """Raise `InvalidRequest` for options that do not go together."""
        if tenants and job_id is not None:
            raise InvalidRequest("tenants", "is of the whole fleet: leave out the job id")
        for name, value in self._asdict().items():
            if value is not None and not tenants:
                raise InvalidRequest(name, "goes with --tenants")


def looking(checked: CheckedLedger, part: Part) -> Callable[[], Awaitable[TenantLoads]]:
    """Return what looks at the chosen tenants."""
    tenants = AsyncTenants(lambda: checked)
    return lambda: tenants.busiest(part.limit or _SHOWN, after=part.after)


def print_loads(found: TenantLoads) -> None:
    """Print a tenant a row, and counts of all below."""
    if not found.count:
        echo("no tenant has jobs, or had some in the last hour")
        return
    render.table(
        ("tenant", "waiting", "oldest wait", "running", "cap", "weight", "last hour", "share"),
        [
            (one.tenant, one.waiting, duration(one.oldest_wait_s) if one.oldest_wait_s else "-",
             one.running, _cap(one), one.weight, one.begun, f"{one.share:.1%}")
            for one in found.tenants
        ],
    )  # fmt: skip
    echo()
    echo(f"tenants: {found.count}, {found.waiting} with waiting jobs, {found.at_cap} at their cap")
    if found.more:
        tell_of_more(found.tenants[-1].tenant)


def _cap(one: TenantLoad) -> str:
    cap = "-" if one.most_running is None else str(one.most_running)
    return f"{cap}, reached" if one.at_cap else cap
