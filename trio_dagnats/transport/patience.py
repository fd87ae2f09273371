"""How long a server is waited for, when nothing else bounds it; and at the end of a connection."""

import trio

PATIENCE = 10.0
"""Seconds: longer than a reconnect takes, shorter than anybody likes to wait for an error."""
END_OF_PULLS = 5.0
"""Seconds for the server to confirm that it sends no task any more; what came is handed back."""
FLUSH = 1.0
"""Seconds for the server to confirm that it has all that was sent, before a connection closes."""
CLOSE = 2.0
"""Seconds for the closing itself."""
END_OF_CONNECTION = FLUSH + CLOSE


def deadline_in(seconds: float = PATIENCE) -> float:
    """Return the deadline (trio time) of a request that begins now."""
    return trio.current_time() + seconds
