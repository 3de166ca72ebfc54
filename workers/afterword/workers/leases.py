"""The leases of a worker process: renewed together; work that loses its lease is cancelled."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from afterword.shared.errors import LeaseLost, LedgerUnavailable
from afterword.shared.events import LeasesNotRenewed
from afterword.shared.observer import emit

#: Renews leases of (id, fence) and returns the ids that are no longer held.
Renew = Callable[[Sequence[tuple[str, str]]], Awaitable[Sequence[str]]]

#: A lease is renewed this many times before it would run out.
RENEWALS = 3

#: Writes that cannot be undone begin only in this share of a lease; the rest is for doing them.
SAFE_SHARE = 2 / 3


@dataclass(slots=True)
class _Held:
    fence: str
    task: asyncio.Task[object]
    confirmed: float
    lost: bool = False


class Leases:
    """Keeps the leases of the work in progress, and cancels work whose lease is lost."""

    def __init__(
        self, renew: Renew, lease_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._renew = renew
        self._lease_s = lease_s
        self.now = clock
        self._held: dict[str, _Held] = {}

    def __len__(self) -> int:
        """Return the number of leases held."""
        return len(self._held)

    @asynccontextmanager
    async def holding(
        self, name: str, fence: str, asked_at: float | None = None
    ) -> AsyncIterator[None]:
        """Hold the lease of a job or lane while the context is open.

        `asked_at` is when the claim was sent, on the clock `now`. Once another worker owns it,
        `LeaseLost` is raised inside the context, at its next await.
        """
        task = asyncio.current_task()
        assert task is not None
        confirmed = self.now() if asked_at is None else asked_at
        held = self._held[name] = _Held(fence, task, confirmed)
        try:
            yield
        except asyncio.CancelledError:
            if held.lost and task.uncancel() == 0:
                raise LeaseLost(f"another worker holds {name} now") from None
            raise
        finally:
            if self._held.get(name) is held:
                del self._held[name]

    def lost_by(self, name: str) -> bool:
        """Return whether the lease of a job or lane is lost, so that nothing may be given back."""
        return name not in self._held

    def require(self, name: str) -> None:
        """Raise `LeaseLost` unless the lease is certain to last for a while.

        A process that was suspended may have lost its lease without knowing. What counts is the
        time since Redis last confirmed it.
        """
        held = self._held.get(name)
        if held is None or self.now() - held.confirmed > self._lease_s * SAFE_SHARE:
            raise LeaseLost(f"another worker may hold {name} by now")

    def lose(self, name: str, fence: str = "") -> None:
        """Cancel the work on a job or lane; does nothing if it is not held here, or anew."""
        held = self._held.get(name)
        if held is not None and fence in ("", held.fence):
            del self._held[name]
            held.lost = True
            held.task.cancel()

    def hear(self, message: str | None) -> None:
        """Cancel the work that the ledger announces as overtaken: `<id>`, or `<id> <fence>`."""
        if message:
            name, _, fence = message.partition(" ")
            self.lose(name, fence)

    async def renew_all(self) -> None:
        """Renew all leases; to be called `RENEWALS` times while a lease lasts.

        Work whose lease cannot be renewed is cancelled. Raises what the renewal raised.
        """
        renewed = dict(self._held)
        held = [(name, one.fence) for name, one in renewed.items()]
        if not held:
            return
        asked_at = self.now()
        try:
            async with asyncio.timeout(self._lease_s * (1 - 1 / RENEWALS)):
                lost = await self._renew(held)
        except TimeoutError:
            self._give_up_all(held, "TimeoutError")
            raise LedgerUnavailable("Redis did not renew leases in time") from None
        except Exception as error:
            self._give_up_all(held, type(error).__name__)
            raise
        for name in renewed.keys() - set(lost):
            renewed[name].confirmed = asked_at
        for name in lost:
            self.lose(name)

    def _give_up_all(self, held: Sequence[tuple[str, str]], error: str) -> None:
        """Cancel all work: what cannot prove its lease must stop."""
        emit(LeasesNotRenewed, count=len(held), error=error)
        for name, _ in held:
            self.lose(name)
