"""Storing events of the wire, for which the broker's ``store`` has more words than they need."""

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
