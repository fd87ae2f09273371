"""What trio itself takes for a wait: tasks that do nothing but sleep, as many as handlers at once.

Prints the microseconds of CPU of each ``trio.sleep``.
"""

import sys
import time

import trio

SLEEPS = 40
"""Of each task."""


async def sleep(seconds: float) -> None:
    """Sleep again and again."""
    for _ in range(SLEEPS):
        await trio.sleep(seconds)


async def main(at_once: int, seconds: float) -> None:
    """Let them all sleep, and tell."""
    begun = time.process_time()
    async with trio.open_nursery() as nursery:
        for _ in range(at_once):
            nursery.start_soon(sleep, seconds)
    print((time.process_time() - begun) / (at_once * SLEEPS) * 1e6)


if __name__ == "__main__":
    trio.run(main, int(sys.argv[1]), float(sys.argv[2]))
