"""The consumer's heartbeat: whether the broker still answers this worker's requests for hints."""

from __future__ import annotations


class ConsumerHeartbeat:
    """Written by the thread that talks to the broker, read by the watchdog on another thread.

    Beats are expected from the first request to the broker until the worker stops. A broker that
    is not Redis is consumed in another way: then none are expected.
    """

    def __init__(self) -> None:
        self._expected = False
        self._beaten = False

    def expect(self) -> None:
        """Expect beats from now on. A request to the broker is not a beat; its answer is."""
        if not self._expected:
            self._expected = self._beaten = True

    def beat(self) -> None:
        """Record that the broker has answered, or that there is no free slot to ask for."""
        self._beaten = True

    def end(self) -> None:
        """Expect no more beats: the worker is stopping."""
        self._expected = False

    def missed(self) -> bool:
        """Return whether a beat was expected and none came since the last call."""
        beaten, self._beaten = self._beaten, False
        return self._expected and not beaten


#: One per process: Celery creates the channels itself, so they cannot be given one.
CONSUMER_HEARTBEAT = ConsumerHeartbeat()
