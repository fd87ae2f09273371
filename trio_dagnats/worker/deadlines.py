"""The last seconds of a drain, in one place (design 8.12): gone within 2 s after the grace.

::

    drain begins     nothing new is taken
    + grace          handlers are cancelled
    + FAREWELL       notes and answers of what is handed back
    + LEAVE          the directory entry
    + the rest       the connection is flushed and closed (``transport``)
    grace + HARD_EXIT_AFTER    ``hard_exit`` ends the process, whatever is still waited for

Each is an upper bound that only a server that does not answer, or a handler that does not end,
makes anybody wait for.
"""

FAREWELL = 1.0
"""Seconds that an attempt's own farewell may take once it is cancelled: note, event, answer."""
LEAVE = 0.25
"""Seconds for the deletion of the directory entry, which ends by itself after a minute."""
HARD_EXIT_AFTER = 1.75
"""Seconds after the grace at which ``hard_exit`` ends the process."""
