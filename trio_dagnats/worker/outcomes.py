"""What an outcome is to the table of an attempt's life, and how large it may be. Pure."""

from collections.abc import Mapping

from trio_dagnats.attempt.life import Input
from trio_dagnats.attempt.outcome import Completed, Continued, Failed, Settlement
from trio_dagnats.wire.events import FailureType

SNAPSHOT_ROOM = 8192
"""Bytes of a run's snapshot that are not outputs: ids, states and times of a small run (H29)."""

INPUT_OF: Mapping[type[Settlement], Input] = {
    Completed: Input.COMPLETED,
    Continued: Input.CONTINUED,
    Failed: Input.FAILED,
}


def bounded(outcome: Settlement, max_payload: int) -> Settlement:
    """Turn an output that can never fit the engine's snapshot into a failure that says so.

    The snapshot holds it as base64 and must fit ``max_payload``; else the step would stay running
    for ever (contract H29).
    """
    if not isinstance(outcome, Completed):
        return outcome
    most = (max_payload - SNAPSHOT_ROOM) * 3 // 4
    if len(outcome.output) <= most:
        return outcome
    return Failed(
        kind=FailureType.NON_RETRIABLE,
        error=f"output of {len(outcome.output)} bytes is more than the {most} that fit a run on "
        "this server; store it elsewhere and complete with a reference to it",
    )
