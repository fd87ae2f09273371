"""Storing events of the wire, for which the broker's ``store`` has more words than they need.

``post`` takes an event whole, ``store`` takes subject, body, id and headers, since not all that is
stored is an event (dead letters, timers, tasks). Called by ``worker.engine.settle``,
``worker.execution.effects``, ``client`` and ``local``. Beside the port, not in it: a broker has to
do one thing less, and none of the three can do it differently.
"""

from trio_dagnats.transport.port import Broker, Stored
from trio_dagnats.wire.events import Event


async def store_event(
    broker: Broker,
    event: Event,
    *,
    expect_last: int | None = None,
    resend_expect: int | None = None,
    deadline: float,
) -> Stored:
    """Store an event under its id; see ``port.Broker.store`` for the rest.

    Raises:
        NotStored, Conflict, TooLarge, Missing: as ``store``.
    """
    return await broker.store(
        event.subject,
        event.body,
        msg_id=event.msg_id,
        headers=event.headers,
        expect_last=expect_last,
        resend_expect=resend_expect,
        deadline=deadline,
    )
