"""The arguments of the scripts of gates; see `steps`."""

from __future__ import annotations

from typing import NamedTuple

from afterword.shared.transport.signatures import declares


@declares("gate/ask")
class AskGate(NamedTuple):
    """Ask whether a provider may be called now."""

    gate: str
    token: str
    canary_ms: int
    octave_ms: int


@declares("gate/report")
class ReportToGate(NamedTuple):
    """Report the outcome of calling a provider."""

    gate: str
    token: str
    outcome: str
    code: str
    fault: str
    pause_ms: int
    cap_ms: int
    first_ms: int
    longest_ms: int
    octave_ms: int
    worked: bool
    age_ms: int


@declares("gate/shut")
class ShutGate(NamedTuple):
    """Shut a gate by hand."""

    gate: str
    by: str
    reason: str
    for_ms: int
    token: str
    details: str


@declares("gate/open")
class OpenGate(NamedTuple):
    """Open a gate by hand."""

    gate: str
    by: str
    token: str
    details: str


@declares("gate/list")
class ListGates(NamedTuple):
    """List the gates that are not open."""

    octave_ms: int
