"""How tests are shared out among the workers of pytest-xdist.

A test module goes to one worker as a whole, because its tests may share workers and servers. Two
markers in a module's `pytestmark` change that. With `spread` its tests share nothing, so each may
go to another worker. With `serial` they measure time or look at the whole machine, so they start
after every other test has ended.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import TYPE_CHECKING

from xdist.scheduler import LoadScopeScheduling

if TYPE_CHECKING:
    from xdist.workermanage import WorkerController

_ROOT = Path(__file__).parents[2]
_SERIAL = "serial"


@functools.cache
def _marks(module: str) -> frozenset[str]:
    """Return the marks that a module's text names; the scheduler's process imports no test."""
    return frozenset(re.findall(r"pytest\.mark\.(serial|spread)\b", (_ROOT / module).read_text()))


class Scheduler(LoadScopeScheduling):  # type: ignore[misc]
    """Hands out modules in the order of collection, and serial tests when all others are done."""

    def _split_scope(self, nodeid: str) -> str:
        module = nodeid.partition("::")[0]
        marks = _marks(module)
        if _SERIAL in marks:
            return _SERIAL
        return nodeid if "spread" in marks else module

    def mark_test_complete(
        self, node: WorkerController, item_index: int, duration: float = 0
    ) -> None:
        """Note the end of a test; another worker may have waited for it."""
        super().mark_test_complete(node, item_index, duration)
        if self._only_serial_left():
            for each in self.nodes:
                self._reschedule(each)

    def _reschedule(self, node: WorkerController) -> None:
        """Give a worker more to do; all but one end before the serial tests."""
        others = [other for other in self.nodes if other is not node]
        if self._only_serial_left() and not all(other.shutting_down for other in others):
            node.shutdown()  # once it has run what it still has
        else:
            super()._reschedule(node)

    def _assign_work_unit(self, node: WorkerController) -> None:
        """Hand out the next module, or the serial tests if no other worker has anything to run."""
        others = [work for other, work in self.assigned_work.items() if other is not node]
        if not self._only_serial_left() or not any(map(self._pending_of, others)):
            super()._assign_work_unit(node)

    def _only_serial_left(self) -> bool:
        return [*self.workqueue] == [_SERIAL]
