"""The seconds of a drain's end, in one place, and their sum (design 8.12).

::

    drain begins        nothing new is asked for
    + the longer one of
      END_OF_PULLS      the server has confirmed that (``transport/patience``)
      grace             handlers may still run; then they are cancelled
    + FAREWELL          notes and answers of what is handed back
    + LEAVE             the directory entry
    + END_OF_CONNECTION the connection is flushed and closed (``transport/patience``)

Each is an upper bound that only a server that does not answer, or a handler that does not end,
makes anybody wait for: with both well a worker is gone milliseconds after its last handler.

The sum is that of a connection of our own. By nats-py's public calls alone (a client that the user
connected) the end of each subscription is waited for, 5 seconds at most, one after the other.

``hard_exit`` waits for none of it: it ends the process ``HARD_EXIT_AFTER`` seconds after the grace.
"""

from trio_dagnats.transport.patience import END_OF_CONNECTION, END_OF_PULLS

FAREWELL = 1.0
"""Seconds that an attempt's own farewell may take once it is cancelled: note, event, answer.

By a drain or for any other reason, a cancelled run for one; and for an outcome that is being stored
when its attempt is cancelled (``Attempt.hasten``), a dead letter, the count of skipped tasks.
"""
LEAVE = 0.25
"""Seconds for the deletion of the directory entry, which ends by itself after a minute."""
HARD_EXIT_AFTER = 1.75
"""Seconds after the grace at which ``hard_exit`` ends the process.

More than ``FAREWELL`` and ``LEAVE`` together, or it would cut hand-backs short; less than a server
that does not answer can hold a connection's end up, which is what it is for.
"""


def gone_within(grace: float) -> float:
    """Return the seconds from the beginning of a drain within which a worker has ended.

    It holds whatever the server does, for handlers that end when they are cancelled.

    Args:
        grace: seconds that handlers may still run.
    """
    return max(grace, END_OF_PULLS) + FAREWELL + LEAVE + END_OF_CONNECTION
