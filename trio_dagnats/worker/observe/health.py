"""How a worker is, at one moment: for those who ask whether it shall have traffic, or live on."""

from typing import NamedTuple, final


@final
class Health(NamedTuple):
    """How a worker is.

    Attributes:
        ready: the first task can arrive, or could.
        draining: it has begun to drain.
        connected: its server can be reached.
        attempts: how many are in flight.
        loop_stood: seconds since the event loop's last sign of life, about a quarter if all is
            well; 0 before the first one.
    """

    ready: bool
    draining: bool
    connected: bool
    attempts: int
    loop_stood: float
