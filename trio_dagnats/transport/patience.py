"""How long a request to the server is waited for, when nothing else bounds it."""

import trio

PATIENCE = 10.0
"""Seconds: longer than a reconnect takes, shorter than anybody likes to wait for an error."""


def soon(seconds: float = PATIENCE) -> float:
    """Return the deadline (trio time) of a request that begins now."""
    return trio.current_time() + seconds
