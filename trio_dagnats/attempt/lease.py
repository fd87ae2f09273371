"""The lease of a task message: how long this worker may speak for it (design 8.7).

The lease is time, not an answer: the server confirms a renewal even after the lease has expired
and another worker holds the message (contract 14). So it ends at the *send* time of the last
confirmed renewal plus the durable's ``ack_wait``, less a margin, and the attempt's scope ends
there. The first lease begins when the server sends the message, which can be long before it
arrives (a partition that heals delivers it late).

All times are trio clock readings in seconds. No I/O. With the durable's ordinary 300 seconds::

    sent_after     +100                                +295           +300
    │ ours           │ a renewal is sent: confirmed, the │ we give up   │ the server may deliver
    │                │ lease begins anew at its send     │ (the margin) │ to another worker

Who renews: ``worker.attempts.upkeep``, by a timer, while the handler waits. While a handler blocks
the event loop nobody does: the timer cannot run, and a thread of its own would say "still working"
for a process that hangs. The watchdog names the line that blocks, and the lease ends.
"""

MARGIN_SHARE = 0.1
MARGIN_MOST = 5.0
"""By so much we give up before the server may deliver to another worker: it covers a late turn of
the event loop and the end of the handler."""
FRESH_SHARE = 1 / 6
FRESH_MOST = 10.0


def lease_end(since: float, ack_wait: float) -> float:
    """Return until when a lease of ``ack_wait`` seconds, held from ``since`` on, is ours."""
    return since + ack_wait - min(ack_wait * MARGIN_SHARE, MARGIN_MOST)


def fresh_within(ack_wait: float) -> float:
    """Return how old the proof may be that a delivery was not long on its way to us.

    A lease begins when the server sends the message, which nobody tells us; it is counted from
    the last moment before which the message cannot have been sent.
    """
    return min(ack_wait * FRESH_SHARE, FRESH_MOST)


def renew_at(since: float, ack_wait: float) -> float:
    """Return when to renew next: after a third of the lease.

    The other two thirds are for a connection that is lost just then: the renewal is sent again when
    it is back, as long as the lease lasts.
    """
    return since + ack_wait / 3


def surely_in_time(until: float, now: float, abort_after: float) -> bool:
    """Say whether what is sent now cannot reach the server after the lease.

    Bytes that are on their way die with their connection, if that has been dead for
    ``abort_after`` seconds; before, they may arrive that late.
    """
    return until - now > abort_after
