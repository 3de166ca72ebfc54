"""The pulse of a worker: signs that it still takes hints from the broker."""

from __future__ import annotations


class Pulse:
    """Set by the thread that talks to the broker, looked at by another one.

    There is a pulse from the first question to the broker until the worker stops. A broker that
    is not asked in this way, since it is no Redis, gives none.
    """

    def __init__(self) -> None:
        self._begun = False
        self._beaten = False

    def begin(self) -> None:
        """Expect signs from now on; asking the broker is none yet, its answer is."""
        if not self._begun:
            self._begun = self._beaten = True

    def beat(self) -> None:
        """Give a sign: the broker has answered, or there is no slot to ask for."""
        self._beaten = True

    def end(self) -> None:
        """Expect no more signs: the worker stops."""
        self._begun = False

    def missed(self) -> bool:
        """Return whether a sign was due, and there was none since this was asked last."""
        beaten, self._beaten = self._beaten, False
        return self._begun and not beaten


#: Celery makes the channels itself, by the name of their class; a process is one worker.
PULSE = Pulse()
