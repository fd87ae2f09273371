"""The checkpoint of an agent loop, one write (design 8.9): state, iteration, dispatch, signals.

One write commits an iteration as a whole, so a crash leaves either the old state or the new one,
and the dispatch in it tells a redelivery that its own work is done::

    handler ──> checkpoint written ──> step.continue stored ──> ACK
              │                      │                        │
    dies here:│ the next delivery    │ it finds its own       │ it finds the continue in the
              │ runs the iteration   │ dispatch: the continue │ history: ACK, nothing else
              │ again                │ is published           │

The number of iterations is counted here and nowhere else: the one in the task is lost on retries
(contract H12). Read and written by ``worker.context.iteration``; read by ``triage``.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import final

from trio_dagnats.wire.text import MISREAD, compact

MARK = "trio_dagnats_loop"
"""Tells a loop's checkpoint from one that some other handler wrote under the same step."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class LoopState:
    """A committed iteration.

    Attributes:
        state: the user's state, JSON.
        iteration: how many iterations are committed with this one.
        dispatch: the dispatch that committed it.
        signals: revisions of the signals consumed so far, by name.
        begun_ns: when the first iteration was committed, 0 if that is not known.
        warned: the log has said that a bound is near.
    """

    state: bytes
    iteration: int
    dispatch: int
    signals: Mapping[str, int] = field(default_factory=dict)
    begun_ns: int = 0
    warned: bool = False


def write_state(loop: LoopState) -> bytes:
    """Write the checkpoint; the state is embedded as it is."""
    head = compact(
        {
            MARK: 1,
            "iteration": loop.iteration,
            "dispatch": loop.dispatch,
            "signals": dict(loop.signals),
            "begun_ns": loop.begun_ns,
            "warned": loop.warned,
        }
    )
    return b'%b,"state":%b}' % (head[:-1], loop.state or b"null")


def read_state(raw: bytes | None) -> LoopState | None:
    """Read the checkpoint; None if there is none, or if it is not a loop's.

    Looked for by its mark first: a large checkpoint of some other handler is not parsed for it.
    """
    if not raw or MARK.encode() not in raw:
        return None
    try:
        found = json.loads(raw)
        return LoopState(
            state=compact(found["state"]),
            iteration=int(found["iteration"]),
            dispatch=int(found["dispatch"]),
            signals={str(name): int(rev) for name, rev in found["signals"].items()},
            begun_ns=int(found.get("begun_ns", 0)),
            warned=bool(found.get("warned")),
        )
    except MISREAD:
        return None
